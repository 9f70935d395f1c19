"""transformers models from random initialisation, converted as an arm says."""

from pathlib import Path
from typing import Any

import torch
import transformers

from ..hf import convert
from .settings import Arm, Settings, parse_arm
from .tokens import SPECIAL


def build(settings: Settings, arm: Arm | str, seed: int, classes: int | None = None) -> Any:
    """A T5 (span corruption) or BERT (masked LM); with `classes` its sequence classifier.

    The seed fixes every parameter; identity maps draw no random numbers, so arms that differ in their
    maps only start from the same weights.
    """
    arm = parse_arm(arm) if isinstance(arm, str) else arm
    transformers.set_seed(seed)
    if settings.objective == "span-corruption":
        kind = (
            transformers.T5ForSequenceClassification if classes else transformers.T5ForConditionalGeneration
        )
        config = _t5(settings, arm)
    else:
        kind = transformers.BertForSequenceClassification if classes else transformers.BertForMaskedLM
        config = _bert(settings, arm)
    if classes:
        config.num_labels = classes
    model = kind(config)
    if not arm.is_plain:
        maps: dict[str, Any] = arm.maps
        convert(model, init=arm.init, **maps)
    return model


def device() -> str:
    """Where arms are trained and timed: the first GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def static_maps(model: Any) -> dict[str, list[list[float]]]:
    return {
        name: x.detach().cpu().tolist()
        for name, x in model.named_parameters()
        if name.endswith(("logits_mix", "weights_mix"))
    }


def load_pretrained(folder: Path, settings: Settings) -> Any:
    """The model that a run has kept, whatever its arm."""
    span = settings.objective == "span-corruption"
    kind: Any = transformers.AutoModelForSeq2SeqLM if span else transformers.AutoModelForMaskedLM
    return kind.from_pretrained(folder)


def body(model: Any) -> Any:
    """The part that pre-training and classification share."""
    return getattr(model, "transformer", None) or getattr(model, "bert", None) or model


def load_body(classifier: Any, pretrained: Any) -> None:
    """Copies the shared part's weights; the classifier's own head (and BERT's pooler) keep their start."""
    target = body(classifier)
    known = target.state_dict().keys()
    given = {name: x for name, x in body(pretrained).state_dict().items() if name in known}
    missing = [name for name in known if name not in given and not name.startswith("pooler.")]
    if missing:
        raise ValueError(
            f"the pre-trained model must have all of the classifier's body; got none for {missing[:3]}"
        )
    target.load_state_dict(given, strict=False)


def _t5(settings: Settings, arm: Arm) -> Any:
    width = arm.width or settings.width
    return transformers.T5Config(
        vocab_size=settings.vocabulary,
        d_model=width,
        d_kv=width // arm.heads,
        d_ff=arm.feed_forward or settings.feed_forward,
        num_layers=settings.layers,
        num_decoder_layers=settings.layers,
        num_heads=arm.heads,
        dropout_rate=0.0,
        pad_token_id=SPECIAL.index("<pad>"),
        eos_token_id=SPECIAL.index("</s>"),
        decoder_start_token_id=SPECIAL.index("<pad>"),
        use_cache=False,
    )


def _bert(settings: Settings, arm: Arm) -> Any:
    return transformers.BertConfig(
        vocab_size=settings.vocabulary,
        hidden_size=arm.width or settings.width,
        num_hidden_layers=settings.layers,
        num_attention_heads=arm.heads,
        intermediate_size=arm.feed_forward or settings.feed_forward,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=settings.length + 8,
        pad_token_id=SPECIAL.index("<pad>"),
    )
