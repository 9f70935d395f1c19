"""What a model learns after pre-training: one file a task.

`tasks/squad.py` would be `--transfer squad:TRAIN,TEST`: a module with `from_files(files, most)` that makes a `Task`.
"""

import importlib
import logging
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor
from torch.utils.data import Dataset

from ...errors import UserError
from ..corpus import Corpus
from .classification import file_task, paragraph_task

LOGGER = logging.getLogger(__name__)
# The fewest texts to learn from and to judge; fewer give no score at all. These few still give little: the standard
# error of an accuracy near one half is 0.25 on 4 texts, 0.05 on 100.
LEAST_TRAIN, LEAST_TEST = 10, 4

if TYPE_CHECKING:
    from ..objectives import Objective
    from ..settings import Settings


class Task(Protocol):
    """Examples to learn from, and a metric on examples that were not."""

    @property
    def name(self) -> str: ...

    @property
    def head(self) -> str:
        """Which of an objective's `models` it needs."""

    @property
    def metric(self) -> str:
        """What a score is, for a table's column; higher is better."""

    @property
    def digest(self) -> str:
        """Names the exact examples."""

    @property
    def changes(self) -> Mapping[str, Any]:
        """What the model's config needs for it."""

    def about(self) -> dict[str, Any]:
        """Sizes, and what trivial methods reach."""

    def examples(self, objective: "Objective", tokenizer: Any, settings: "Settings") -> Dataset:
        """What is learned from; the loss is the model's own."""

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch from examples."""

    def score(self, model: Any, objective: "Objective", tokenizer: Any, settings: "Settings") -> float:
        """The metric on the examples to judge."""


def names() -> list[str]:
    """Names of the files of tasks."""
    return [x.name for x in pkgutil.iter_modules(__path__)]


def choose_tasks(corpus: Corpus, transfer: Sequence[str], most: int) -> list[Task]:
    """From the command line's options: see `_choose`; with none given the corpus's first label, if it has enough texts.

    Raises:
        UserError: a task that is none, or with fewer than LEAST_TRAIN texts to learn from or LEAST_TEST to judge.
    """
    if not transfer:
        first = paragraph_task(corpus, None, most)
        if first and (few := _too_few(first)):
            LOGGER.warning("no transfer task: %s", few)
            return []
        return [first] if first else []
    if "none" in transfer:
        if len(transfer) > 1:
            raise UserError(
                "--transfer none must stand alone", ", ".join(transfer), "leave it out or the others"
            )
        return []
    tasks = [_choose(corpus, text, most) for text in transfer]
    for task in tasks:
        if few := _too_few(task):
            raise few
    if len({task.name for task in tasks}) < len(tasks):
        raise UserError("transfer tasks must differ in name", ", ".join(transfer), "name each once")
    return tasks


def _too_few(task: Task) -> UserError | None:
    """Why a task has too few texts for a score to say anything; None of one that does not count its texts."""
    sizes = [
        len(getattr(task, part, range(least)))
        for part, least in (("train", LEAST_TRAIN), ("test", LEAST_TEST))
    ]
    if sizes[0] >= LEAST_TRAIN and sizes[1] >= LEAST_TEST:
        return None
    return UserError(
        f"a transfer task must have at least {LEAST_TRAIN} texts to learn from and {LEAST_TEST} to judge",
        f"{sizes[0]} and {sizes[1]} for {task.name}",
        "add texts, raise --transfer-examples, or pass --transfer none",
    )


def _choose(corpus: Corpus, text: str, most: int) -> Task:
    """A task from NAME:FILES (tasks/NAME.py), labelled files TRAIN[,TEST], or a label of the corpus."""
    name, is_named, files = text.partition(":")
    if is_named and name in names() and name != "classification":
        task: Task = importlib.import_module(f".{name}", __name__).from_files(files, most)
        return task
    train, _, test = text.partition(",")
    if Path(train).is_file() or test:
        return file_task(Path(train), Path(test) if test else None, most)
    found = paragraph_task(corpus, text, most)
    if found is None:
        raise UserError("a transfer task must have two classes and paragraphs to judge", text, "name another")
    return found
