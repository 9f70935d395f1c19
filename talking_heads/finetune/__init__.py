"""Fine-tuning any transformers model on GLUE, COPA and SQuAD: text-to-text for encoder-decoders, task heads for others."""
