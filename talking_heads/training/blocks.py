"""Objectives that learn from text in blocks of equal length: how blocks are made, drawn and judged."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserError
from .floors import MOST, floors
from .judge import IGNORED, PAD, batches, collate
from .tokens import SPECIAL, load_blocks, save_blocks, token_bytes, token_marks, token_stream, train_tokenizer

if TYPE_CHECKING:
    from .arms import Arm
    from .corpus import Corpus
    from .settings import Settings

Example = dict[str, Tensor]
Corrupt = Callable[
    [Tensor, torch.Generator, bool], Example
]  # block, its random numbers, whether it is judged


def weight_deviation(width: int) -> float:
    """The standard deviation of weights at the start: Nguyen, Salazar (2019).

    About 0.02 at width 1,024, as usual; a narrow model needs more of it to learn fast.
    """
    return math.sqrt(2 / (5 * width))


def drawn(seed: int, number: int) -> torch.Generator:
    """The random numbers of an example."""
    return torch.Generator().manual_seed(seed * 1_000_003 + 7 * number + 1)


class Examples(Dataset):
    """Example number i of a training run (or, with `judged`, of a part that is judged).

    An example is a pure function of (seed, number), so every arm sees the same examples in the same order and a
    resumed run continues exactly where it stopped. Judged examples are spread evenly over the text.
    """

    def __init__(self, blocks: Tensor, count: int, seed: int, corrupt: Corrupt, judged: bool = False) -> None:
        self.blocks, self.count, self.seed, self.corrupt, self.judged = blocks, count, seed, corrupt, judged
        self.order: tuple[int, Tensor] = (-1, torch.empty(0))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Example:
        return self.corrupt(self.blocks[self.place(number)].long(), drawn(self.seed, number), self.judged)

    def place(self, number: int) -> int:
        """The block of example `number`."""
        if self.judged:
            return judged_blocks(len(self.blocks), self.count)[number]
        passes, place = divmod(number, len(self.blocks))
        if self.order[0] != passes:  # each pass over the blocks has an order of its own
            draw = torch.Generator().manual_seed(self.seed * 1_000_003 + passes)
            self.order = (passes, torch.randperm(len(self.blocks), generator=draw))
        return int(self.order[1][place])


def judged_blocks(blocks: int, count: int) -> list[int]:
    """`count` block numbers spread evenly over all; more than there are go round again."""
    return [(i * blocks // count if count <= blocks else i % blocks) for i in range(count)]


def _kept(folder: Path) -> tuple[Any, dict[str, Any]] | None:
    """Tokenizer and blocks of a folder; None where they are damaged (and are made again, the same)."""
    from transformers import PreTrainedTokenizerFast

    try:
        found = load_blocks(folder / "blocks.safetensors")
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    except Exception as problem:  # tokenizers and safetensors raise all kinds
        warnings.warn(f"{folder} is damaged ({str(problem)[:80]}) and made again", stacklevel=2)
        return None
    return (tokenizer, found) if {"train", "held_out", "marks"} <= found.keys() else None


class BlockObjective:
    """An objective that turns a block of tokens into an example; see `objectives.Objective`.

    A subclass gives `models`, `auto`, `config`, `drop_attention` and `example`.
    """

    models: ClassVar[Mapping[str, str]]
    auto: str
    schedule = "linear"
    unit = "token"
    sizes: ClassVar[Mapping[str, Any]] = {}
    special: Sequence[str] = SPECIAL
    masks_words = False  # whether Settings.whole_words means something
    sizes_heads = False  # whether its models take heads that do not divide their width

    def example(self, block: Tensor, draw: torch.Generator, judged: bool) -> Example:
        """The example made of a block."""
        raise NotImplementedError

    def example_of(self, data: dict[str, Any], settings: "Settings") -> Corrupt:
        """How a block becomes an example, where that depends on the data or the settings."""
        return self.example

    def check(self, settings: "Settings", arm: "Arm") -> None:
        least = len(self.special) + 256  # every byte, so that no text is unknown
        if settings.vocabulary < least:
            raise UserError(f"vocabulary must be at least {least}", settings.vocabulary, "give more")
        if settings.whole_words and not self.masks_words:
            raise UserError(
                "whole words are masked by masked-lm and sentence-order alone",
                f"whole_words with {settings.objective}",
                "leave it out or choose another objective",
            )
        if arm.size and not self.sizes_heads:
            raise UserError(
                "heads of any size must be T5's or Llama's; BERT's divide its width",
                f"size={arm.size} with {settings.objective}",
                "leave size= out",
            )

    def prepare(self, folder: Path, settings: "Settings", corpus: "Corpus") -> tuple[Any, dict[str, Any]]:
        from transformers import PreTrainedTokenizerFast

        path = folder / "blocks.safetensors"
        kept = _kept(folder) if path.exists() else None
        if kept is None:
            tokenizer = train_tokenizer(
                (document.text for document in corpus.pretrain), settings.vocabulary, self.special
            )
            tokenizer.save_pretrained(folder)
            parts = {"train": corpus.pretrain, "held_out": corpus.held_out, "test": corpus.test}
            parts |= {f"other:{name}": documents for name, documents in corpus.other.items()}
            streams: dict[str, Any] = {
                name: token_stream(tokenizer, (document.text for document in documents))
                for name, documents in parts.items()
            }
            streams["bytes"] = [token_bytes(tokenizer).numpy()]
            streams["marks"] = [token_marks(tokenizer).numpy()]
            save_blocks(path, settings.length, streams)  # last: its presence says that all is there
            made = load_blocks(path)
            short = [name for name, documents in parts.items() if documents and not len(made[name])]
            if short:
                path.unlink()
                raise UserError(
                    f"the corpus must fill blocks of {settings.length} tokens",
                    f"too little text in {corpus.name} ({', '.join(short)})",
                    "add text",
                )
            kept = PreTrainedTokenizerFast.from_pretrained(folder), made
        return kept

    def train(self, data: dict[str, Any], settings: "Settings", seed: int, count: int) -> Dataset:
        if "stream" in data:
            found: Dataset = data["stream"].examples(settings.length, self.example_of(data, settings), seed)
            return found
        return Examples(data["train"], count, seed, self.example_of(data, settings))

    def parts(self, data: dict[str, Any]) -> list[str]:
        """What a run is judged on at its end, next to its validation text: the test text and others."""
        return [name for name in data if name == "test" or name.startswith("other:") if len(data[name])]

    def judged(self, data: dict[str, Any], settings: "Settings", part: str) -> Examples:
        most = 10 * settings.judged  # of a text judged once: all of it, unless it is long
        count = settings.judged if part == "held_out" else min(len(data[part]), most)
        return Examples(data[part], count, 0, self.example_of(data, settings), judged=True)

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        return collate(rows)

    def loss(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        loss: Tensor = model(**batch).loss
        return loss

    @torch.no_grad()
    def evaluate(self, model: Any, examples: Dataset) -> float:
        """Nats a judged token: the mean over all of them."""
        total, count = 0.0, 0
        for batch in batches(model, examples, self.collate):
            logits, labels = self.scored(self.logits(model(**batch)).float(), batch["labels"])
            total += torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
            ).item()
            count += int((labels != IGNORED).sum())
        return total / count

    def logits(self, output: Any) -> Tensor:
        """[batch, positions, vocabulary] in what the model returns."""
        found: Tensor = output.logits
        return found

    def scored(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits next to the labels that they predict."""
        return logits, labels

    def about(self, data: dict[str, Any], settings: "Settings") -> dict[str, Any]:
        texts = {name: self._text(data, settings, name) for name in ("held_out", *self.parts(data))}
        own = texts.pop("held_out")
        return {
            "tokens": data["train"].numel(),
            "tokens_counted": min(data["train"].numel(), MOST),
            "held_out_tokens": data["held_out"].numel(),
            "tokens_seen": settings.steps * settings.batch * settings.length,
            **own,
            "parts": texts,
        }

    def _text(self, data: dict[str, Any], settings: "Settings", part: str) -> dict[str, Any]:
        """{"judged_tokens", "bytes_per_token", "floors"} of a part, over the blocks that are judged."""
        text, count = data[part], len(self.judged(data, settings, part))
        keep = torch.zeros(len(text), dtype=torch.bool)
        keep[judged_blocks(len(text), count)] = True
        return {
            "judged_tokens": int(keep.sum()) * text.shape[1],
            "bytes_per_token": data["bytes"].flatten()[text[keep].long()].double().mean().item(),
            "floors": floors(
                data["train"],
                text,
                settings.vocabulary,
                keep[:, None].expand_as(text).flatten().numpy(),
            ),
        }

    def reader(self, tokenizer: Any) -> Any:
        """The tokenizer that is kept with a model, as it reads texts of a task."""
        return tokenizer

    def encode(self, tokenizer: Any, texts: Sequence[str], settings: "Settings") -> list[list[int]]:
        given = {"truncation": True, "max_length": settings.length, "split_special_tokens": True}
        ids: list[list[int]] = tokenizer(list(texts), **given)["input_ids"]
        return ids


class Nothing(torch.nn.Module):
    """In the place of an attention layer of an arm without attention: adds nothing to the residual stream.

    Args:
        outputs: how many values the layer returns. residual: it returns its input, where the layer itself adds it.
    """

    def __init__(self, outputs: int, residual: bool = False) -> None:
        super().__init__()
        self.outputs, self.residual = outputs, residual

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Any, ...]:
        first = hidden_states if self.residual else torch.zeros_like(hidden_states)
        return (first, *[None] * (self.outputs - 1))


__all__ = ["IGNORED", "PAD", "BlockObjective", "Examples", "Nothing", "judged_blocks", "weight_deviation"]
