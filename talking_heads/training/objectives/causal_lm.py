"""Causal language models: a decoder of Llama's shape (RMSNorm, rotary positions, SwiGLU) on bytes or on BPE."""

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from ...errors import UserError
from ..blocks import BlockObjective, Example, Nothing, weight_deviation
from ..judge import END, PAD

if TYPE_CHECKING:
    from ..arms import Arm
    from ..settings import Settings

SPECIAL = ("<pad>", "</s>", "<unk>")
BYTES = len(SPECIAL) + 256  # the vocabulary without merges: a token is a byte


class CausalLM(BlockObjective):
    models: ClassVar = {
        "pretrain": "LlamaForCausalLM",
        "classify": "LlamaForSequenceClassification",
        "answer": "LlamaForQuestionAnswering",
    }
    auto = "AutoModelForCausalLM"
    sizes_heads = True
    schedule = "cosine"
    sizes: ClassVar = {"vocabulary": BYTES, "layers": 4, "feed_forward": 344, "length": 256, "steps": 2000}
    special = SPECIAL

    def check(self, settings: "Settings", arm: "Arm") -> None:
        super().check(settings, arm)
        width = arm.width or settings.width
        size = arm.size or width // (arm.heads or 1)
        if arm.heads and size % 2:
            raise UserError(
                "rotary positions must have heads of an even size",
                f"size {size} for {arm.name}",
                "choose other heads",
            )

    def config(self, settings: "Settings", arm: "Arm") -> Any:
        from transformers import LlamaConfig

        width = arm.width or settings.width
        return LlamaConfig(
            vocab_size=settings.vocabulary,
            hidden_size=width,
            intermediate_size=arm.feed_forward or settings.feed_forward,
            num_hidden_layers=settings.layers,
            num_attention_heads=arm.heads or 1,
            head_dim=arm.size or width // (arm.heads or 1),
            max_position_embeddings=settings.length,
            pad_token_id=PAD,
            bos_token_id=None,
            eos_token_id=END,
            use_cache=False,
            initializer_range=weight_deviation(width),
        )

    def drop_attention(self, model: Any) -> None:
        for layer in model.base_model.layers:
            layer.self_attn = Nothing(2)

    def example(self, block: Tensor, draw: torch.Generator, judged: bool) -> Example:
        return {"input_ids": block, "labels": block}

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Blocks are full: without a mask of padding, attention is causal and nothing else."""
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def about(self, data: dict[str, Any], settings: "Settings") -> dict[str, Any]:
        return super().about(data, settings) | {"judges_all": True}  # every token: bits a byte mean something

    def scored(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return logits[:, :-1], labels[:, 1:]


objective = CausalLM()
