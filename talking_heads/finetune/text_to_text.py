"""Tasks for encoder-decoders, all as text to text: T5's prompts, and a label's name as the answer (Raffel et al. 2020).

Of the labels that a task has, the one whose text the model holds most likely is predicted; T5's own evaluation lets the
model write freely and counts anything else as wrong. Similarities are the likeliest of 0.0, 0.2 to 5.0. Answers of SQuAD
are written freely, without a beam.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..training.answers import Question
from ..training.judge import IGNORED, batches
from .data import Example
from .tasks import ChoiceTask, QuestionTask, Task

_STEP = 0.2  # of similarities
_ANSWER = 32  # tokens of an answer to a question, at most
NO_ANSWER = "no answer"  # SQuAD 2.0's questions without one


def prompt(task: Task, row: Example | Question) -> str:
    """What the model reads."""
    if isinstance(row, Question):
        return f"question: {row.question.strip()} context: {row.context}"
    if isinstance(task, ChoiceTask):
        first, second = row.choices or ("", "")
        return f"copa choice1: {first} choice2: {second} premise: {row.text} question: {row.asks}"
    assert not isinstance(task, QuestionTask)
    fields = list(zip(task.fields, (row.text, row.pair), strict=False))
    name = task.hub[1] or task.name  # mnli for both parts of MNLI
    fields = fields[::-1] if name == "mnli" else fields  # T5 puts the hypothesis first
    return " ".join([name, *(f"{name}: {text}" for name, text in fields)])


def candidates(task: Task) -> list[str]:
    """The texts that may be predicted, in the order of their numbers."""
    if isinstance(task, QuestionTask):
        return []
    if isinstance(task, ChoiceTask) or task.labels:
        return list(task.labels)
    return [f"{_STEP * i:.1f}" for i in range(round(5 / _STEP) + 1)]


def target(task: Task, row: Example | Question) -> str:
    """What the model learns to write."""
    if isinstance(row, Question):
        return row.answers[0] if row.answers else NO_ANSWER
    names = candidates(task)
    label = row.label or 0
    return names[round(label / _STEP) if len(names) == round(5 / _STEP) + 1 else int(label)]


class TextToText:
    """How examples become batches, a step's loss, and predictions."""

    def __init__(self, task: Task, tokenizer: Any, length: int) -> None:
        self.task, self.tokenizer, self.length = task, tokenizer, length

    def examples(self, rows: Sequence[Any], learn: bool) -> list[dict[str, Any]]:
        given = self.tokenizer([prompt(self.task, x) for x in rows], truncation=True, max_length=self.length)
        found = [{"input_ids": x} for x in given["input_ids"]]
        if learn:
            wanted = self._targets([target(self.task, x) for x in rows])
            found = [{**x, "labels": y} for x, y in zip(found, wanted, strict=True)]
        return found

    def _targets(self, texts: list[str]) -> list[list[int]]:
        found: list[list[int]] = self.tokenizer(text_target=texts)["input_ids"]
        return found

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """transformers' own collator: padded, labels with what the loss leaves out."""
        from transformers import DataCollatorForSeq2Seq

        collator = DataCollatorForSeq2Seq(self.tokenizer, label_pad_token_id=IGNORED)
        return {name: x for name, x in collator([{**x} for x in rows]).items() if x is not None}

    def loss(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        found: Tensor = model(**batch).loss
        return found

    @torch.no_grad()
    def predict(self, model: Any, rows: Sequence[Any]) -> Any:
        """Label numbers, similarities, or {question's id: answer}."""
        given: Any = self.examples(rows, learn=False)
        if isinstance(self.task, QuestionTask):
            texts = [x for batch in batches(model, given, self.collate) for x in self._written(model, batch)]
            return {row.id: text for row, text in zip(rows, texts, strict=True)}
        found = [x for batch in batches(model, given, self.collate) for x in self._likeliest(model, batch)]
        return [round(_STEP * x, 1) for x in found] if not getattr(self.task, "labels", ()) else found

    def _written(self, model: Any, batch: dict[str, Tensor]) -> list[str]:
        made = model.generate(**batch, max_new_tokens=_ANSWER, do_sample=False, num_beams=1)
        texts = [x.strip() for x in self.tokenizer.batch_decode(made, skip_special_tokens=True)]
        is_2 = getattr(self.task, "may_be_empty", False)
        return ["" if is_2 and x == NO_ANSWER else x for x in texts]

    def _likeliest(self, model: Any, batch: dict[str, Tensor]) -> list[int]:
        """Numbers of the candidates with the highest sum of log-probabilities; the encoder runs once."""
        encoded = model.get_encoder()(**batch)
        sums = []
        for ids in self._targets(candidates(self.task)):
            labels = torch.tensor(ids, device=batch["input_ids"].device).repeat(len(batch["input_ids"]), 1)
            logits = model(
                encoder_outputs=encoded, attention_mask=batch["attention_mask"], labels=labels
            ).logits
            chosen = logits.float().log_softmax(-1).gather(-1, labels[..., None])
            sums.append(chosen[..., 0].sum(-1))
        found: list[int] = torch.stack(sums).argmax(0).tolist()
        return found
