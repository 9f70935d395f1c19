"""Questions whose answers stand in a text: `--transfer squad:TRAIN[,TEST]`, files in SQuAD's format; the score is F1."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...errors import UserError
from .. import answers
from ..answers import Question, answers_of, read_squad, squad_scores, windows
from ..judge import batches, collate

if TYPE_CHECKING:
    from ..objectives import Objective
    from ..settings import Settings

_FIFTH = 5
_FLOORS = ["the most frequent answer gives", "the sentence with most words of the question"]


@dataclass(frozen=True)
class Squad:
    """See `tasks.Task`. Questions to learn from and to judge; a model points at the first and last token of the answer."""

    name: str
    train: Sequence[Question]
    test: Sequence[Question]

    head, metric = "answer", "F1"
    changes: ClassVar[dict[str, Any]] = {}

    @property
    def digest(self) -> str:
        found = hashlib.sha256()
        for part in (self.train, self.test):
            found.update(repr([(x.id, x.question, x.context, x.answers) for x in part]).encode())
        return found.hexdigest()[:16]

    def about(self) -> dict[str, Any]:
        """Sizes, and the F1 of trivial methods as fractions: see `answers.floors`."""
        floors = answers.floors(self.train, self.test)
        sizes = {
            "train": len(self.train),
            "test": len(self.test),
            "metric": self.metric,
            "floor_names": _FLOORS,
        }
        return sizes | {name: x["f1"] / 100 for name, x in floors.items()}

    def examples(self, objective: "Objective", tokenizer: Any, settings: "Settings") -> Dataset:
        made = windows(tokenizer, self.train, settings.length)
        found: Any = [
            {
                "input_ids": torch.tensor(row["input_ids"]),
                "start_positions": torch.tensor(a),
                "end_positions": torch.tensor(b),
            }
            for row, (a, b) in zip(made.rows, made.spans, strict=True)
        ]
        return found  # type: ignore[no-any-return]

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        return collate(rows)

    def score(self, model: Any, objective: "Objective", tokenizer: Any, settings: "Settings") -> float:
        """F1 as a fraction."""
        made = windows(tokenizer, self.test, settings.length)
        rows: Any = [{"input_ids": torch.tensor(row["input_ids"])} for row in made.rows]
        starts: list[Any] = []
        ends: list[Any] = []
        with torch.no_grad():
            for batch in batches(model, rows, collate):
                found = model(**batch)
                starts += found.start_logits.float().cpu().tolist()
                ends += found.end_logits.float().cpu().tolist()
        may_be_empty = any(not x.answers for x in self.test)
        return squad_scores(answers_of(self.test, made, starts, ends, may_be_empty), self.test)["f1"] / 100


def from_files(files: str, most: int) -> Squad:
    """TRAIN[,TEST]; without TEST every fifth article of TRAIN is judged."""
    train, _, test = files.partition(",")
    rows = read_squad(Path(train))
    if test:
        judged = read_squad(Path(test))
    else:
        titles = list(dict.fromkeys(x.title or x.context for x in rows))
        held = set(titles[_FIFTH - 1 :: _FIFTH] or titles[-1:])
        rows, judged = (
            [x for x in rows if ((x.title or x.context) in held) == is_held] for is_held in (False, True)
        )
    if not rows or not judged:
        raise UserError(
            "questions must be of two articles or more, to learn from some and judge the others",
            f"one in {train}",
            "name a second file: squad:TRAIN,TEST",
        )
    return Squad("squad", rows[:most], judged[:most])
