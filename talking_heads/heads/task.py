"""A classifier on its task: batches with labels, accuracy, and what single heads are worth to it."""

import inspect
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..reading.labelled import Example, label_number, read_examples
from ..results.statistics import rank_correlation
from ..results.table import Table
from .importance import single_ablations
from .models import open_model
from .record import Progress, longest


@dataclass
class TaskOf:
    """A model and the examples it is judged by, in batches of alike lengths."""

    model: Any
    tokenizer: Any
    examples: list[Example]
    batch: int = 32

    def __len__(self) -> int:
        return len(self.examples)

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """Keyword arguments of the model, with labels: classes, or target tokens of an encoder-decoder."""
        device = next(self.model.parameters()).device
        limit = longest(self.model, self.tokenizer)
        order = sorted(self.examples, key=lambda x: len(x.text) + len(x.pair or ""))
        size = self.batch if self.tokenizer.pad_token_id is not None else 1  # nothing to pad with: one by one
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            pairs = None if rows[0].pair is None else [x.pair or "" for x in rows]
            found = self.tokenizer(
                [x.text for x in rows], pairs, padding=size > 1, truncation=limit is not None, max_length=limit,
                return_tensors="pt",
            )  # fmt: skip
            found = {name: x for name, x in found.items() if name in self._takes}
            yield {name: x.to(device) for name, x in found.items()} | {
                "labels": self._labels(rows).to(device)
            }

    @property
    def _takes(self) -> Collection[str]:
        """The arguments of the model that a tokenizer may give (token types, say, are not for all)."""
        return inspect.signature(self.model.forward).parameters

    def _labels(self, rows: list[Example]) -> Tensor:
        config = self.model.config
        if self.model.can_generate():
            found = self.tokenizer(
                text_target=[x.label for x in rows], padding=len(rows) > 1, return_tensors="pt"
            )
            return found["input_ids"].masked_fill(found["attention_mask"] == 0, -100)
        if config.num_labels == 1:
            return torch.tensor([_number(x.label) for x in rows])
        classes = torch.tensor([label_number(x.label, config) for x in rows])
        if config.problem_type == "multi_label_classification":
            return torch.nn.functional.one_hot(classes, config.num_labels).float()
        return classes

    @torch.no_grad()
    def score(self, model: Any = None) -> float:
        """Accuracy: the share of examples (of target tokens, for an encoder-decoder) that are right."""
        model = model or self.model
        model.eval()
        right = count = 0
        for batch in self.batches():
            logits, labels = model(**batch).logits, batch["labels"]
            if labels.is_floating_point():
                raise UserError(
                    "a score needs classes or target texts", "numbers", "use importance, which needs none"
                )
            counted = labels != -100
            right += int(((logits.argmax(-1) == labels) & counted).sum())
            count += int(counted.sum())
        return right / count


def _number(label: str) -> float:
    try:
        return float(label)
    except ValueError:
        raise UserError(
            "labels must be numbers where a model gives one",
            repr(label),
            "fix the file, or use a classifier",
        ) from None


def open_task(
    model: str,
    data: Path | str,
    *,
    limit: int | None = None,
    batch: int = 32,
    device: str = "cpu",
    dtype: str | None = None,
    **columns: Any,
) -> TaskOf:
    """The model and the task's examples (the first `limit`).

    Args:
        device, dtype: see `open_model`. columns: of `read_examples`.

    Raises:
        UserError: a model without a task's head, a file that is no task's.
    """
    examples = read_examples(data, **columns)[:limit]
    network, tokenizer = open_model(model, device=device, dtype=dtype)
    kind = type(network).__name__
    translates = network.config.is_encoder_decoder and network.can_generate()
    if not translates and not kind.endswith("ForSequenceClassification"):
        raise UserError(
            "a model must be a sequence classifier or an encoder-decoder with its language model's head",
            f"{kind} in {model}",
            "fine-tune it on the task first",
        )
    return TaskOf(network, tokenizer, examples, batch)


def related(
    table: Table, task: TaskOf, *, labels: tuple[str, ...] = (), progress: Progress | None = None
) -> tuple[Table, Table]:
    """How a head's score (S-F1 and each label's recall) goes with what masking it costs the task.

    Returns:
        (Spearman's rho and its p for each group of `table`, None where either is constant,
        the costs of `single_ablations`).
    """
    costs = single_ablations(task.model, task.score, progress=progress)
    cost_of = {row["head"]: row["cost"] for row in costs.rows}
    rows = []
    for group in labels or dict.fromkeys(row[table.keys[0]] for row in table.rows):
        pairs = [
            (r["score"], cost_of[r["head"]])
            for r in table.rows
            if r[table.keys[0]] == group and r["head"] in cost_of
        ]
        rho, p = rank_correlation([x for x, _ in pairs], [y for _, y in pairs]) or (None, None)
        rows.append({"label": group, "rho": rho, "p": p, "heads": len(pairs)})
    return Table(rows, ("label",), "rho", {"score": costs.meta["score"]}), costs
