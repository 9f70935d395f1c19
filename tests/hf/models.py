"""Toy models of the architectures that are tested by name, float64, with inputs and labels."""

from typing import Any

import torch
import transformers

from talking_heads.anatomy.inputs import BATCH, inputs
from talking_heads.hf.survey.run import build

NAMED = {
    "bert": "BertForMaskedLM",
    "roberta": "RobertaForMaskedLM",
    "albert": "AlbertForMaskedLM",
    "electra": "ElectraForMaskedLM",
    "distilbert": "DistilBertForMaskedLM",
    "modernbert": "ModernBertForMaskedLM",
    "t5": "T5ForConditionalGeneration",
    "bart": "BartForConditionalGeneration",
    "marian": "MarianMTModel",
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
    "gemma2 without soft cap": "Gemma2ForCausalLM",
    "vit": "ViTForImageClassification",
    "deit": "DeiTForImageClassification",
    "clip": "CLIPModel",
    "whisper": "WhisperForConditionalGeneration",
    "gpt-oss": "GptOssForCausalLM",
}
_CONFIGS = {
    "gemma2 without soft cap": {"attn_logit_softcapping": None},
    "marian": {"decoder_start_token_id": 0},
    "t5": {"decoder_start_token_id": 0},
}


def model(name: str) -> Any:
    return build(getattr(transformers, NAMED[name]), {"config": _CONFIGS.get(name, {})})


def batch(name: str, made: Any) -> dict[str, Any]:
    """Inputs with what gives the model its loss."""
    given = inputs(made, {})
    if name == "clip":
        return given | {"return_loss": True, "pixel_values": torch.randn(BATCH, 3, 32, 32).double()}
    if name in ("vit", "deit"):
        return given | {"labels": torch.tensor([0, 1])}
    given.pop("decoder_input_ids", None)
    labels = given.get("input_ids", torch.randint(5, 60, (BATCH, 8))).clone()
    if "attention_mask" in given:
        labels[given["attention_mask"] == 0] = -100
    return given | {"labels": labels}


def without_dropout(made: Any) -> Any:
    """The model with every dropout probability 0, those of modules and those kept as plain numbers."""
    for part in made.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        for field in ("attention_dropout", "dropout_prob", "dropout"):
            if isinstance(getattr(part, field, None), float):
                setattr(part, field, 0.0)
    return made
