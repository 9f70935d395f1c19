"""Tasks for models with a head of their own (BERT and its kin, and decoders): classes, alternatives, spans."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..training.answers import Windows, answers_of, windows
from ..training.judge import batches
from .data import Example
from .tasks import ChoiceTask, QuestionTask, Task, TextTask

_ASKED = {
    "cause": "What was the cause of this?",
    "effect": "What happened as a result?",
}  # COPA's own questions


def auto_class(task: Task) -> str:
    """transformers' Auto class of the model."""
    return (
        "AutoModelForQuestionAnswering"
        if isinstance(task, QuestionTask)
        else "AutoModelForSequenceClassification"
    )


def config_changes(task: Task) -> dict[str, Any]:
    if isinstance(task, QuestionTask):
        return {}
    if isinstance(task, ChoiceTask) or task.is_regression:
        return {"num_labels": 1}
    names = dict(enumerate(task.labels))
    return {"num_labels": len(names), "id2label": names, "label2id": {x: i for i, x in names.items()}}


class Heads:
    """How examples become batches, a step's loss, and predictions. See also `text_to_text.TextToText`."""

    def __init__(self, task: Task, tokenizer: Any, length: int) -> None:
        self.task, self.tokenizer, self.length = task, tokenizer, length

    def examples(self, rows: Sequence[Any], learn: bool) -> list[dict[str, Any]]:
        """What a model reads of each example; with `learn` the labels, too."""
        if isinstance(self.task, QuestionTask):
            made = windows(self.tokenizer, rows, self.length)
            return [
                {**row, "start_positions": a, "end_positions": b} if learn else row
                for row, (a, b) in zip(made.rows, made.spans, strict=True)
            ]
        found = []
        for row in rows:
            given = (
                self._choice(row) if isinstance(self.task, ChoiceTask) else self._encode(row.text, row.pair)
            )
            if learn:
                is_number = isinstance(self.task, TextTask) and self.task.is_regression
                given["labels"] = float(row.label) if is_number else int(row.label)
            found.append(given)
        return found

    def _encode(self, text: str, pair: str | None) -> dict[str, Any]:
        return dict(self.tokenizer(text, pair, truncation=True, max_length=self.length))

    def _choice(self, row: Example) -> dict[str, Any]:
        both = [self._encode(f"{row.text} {_ASKED[row.asks]}", x) for x in row.choices or ()]
        return {"both": both}

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """A padded batch; of COPA two rows an example."""
        from transformers import DataCollatorWithPadding

        given = [{**row} for row in rows]
        labels = [row.pop("labels") for row in given if "labels" in row]
        if given and "both" in given[0]:
            given = [x for row in given for x in row["both"]]
        batch: dict[str, Tensor] = dict(DataCollatorWithPadding(self.tokenizer)(given))
        return batch | ({"labels": torch.tensor(labels)} if labels else {})

    def loss(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        if isinstance(self.task, ChoiceTask):
            labels = batch["labels"]
            logits = model(**{name: x for name, x in batch.items() if name != "labels"}).logits
            return torch.nn.functional.cross_entropy(logits.view(-1, 2), labels)
        found: Tensor = model(**batch).loss
        return found

    @torch.no_grad()
    def predict(self, model: Any, rows: Sequence[Any]) -> Any:
        """Label numbers, similarities, or {question's id: answer}."""
        if isinstance(self.task, QuestionTask):
            return self._answers(model, rows)
        given: Any = self.examples(rows, learn=False)
        order = sorted(range(len(given)), key=lambda i: len(given[i].get("input_ids", ())))
        alike: Any = [given[i] for i in order]  # by length, so that less is padding; COPA's stay as they are
        logits = torch.cat([model(**x).logits.float().cpu() for x in batches(model, alike, self.collate)])
        if isinstance(self.task, ChoiceTask):
            return logits.view(-1, 2).argmax(-1).tolist()
        logits = logits[torch.tensor(order).argsort()]
        return logits[:, 0].tolist() if self.task.is_regression else logits.argmax(-1).tolist()

    def _answers(self, model: Any, rows: Sequence[Any]) -> dict[str, str]:
        made: Windows = windows(self.tokenizer, rows, self.length)
        starts: list[Any] = []
        ends: list[Any] = []
        given: Any = made.rows
        for batch in batches(model, given, self.collate):
            found = model(**batch)
            starts += found.start_logits.float().cpu().numpy().tolist()
            ends += found.end_logits.float().cpu().numpy().tolist()
        return answers_of(rows, made, starts, ends, getattr(self.task, "may_be_empty", False))
