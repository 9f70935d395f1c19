"""What a model is trained to do: one file an objective, found by its name.

`objectives/causal_lm.py` is `--objective causal-lm`: a module with an `objective` that has what `Objective` asks for.
Those learned from blocks of tokens extend `training.blocks.BlockObjective`, which leaves them a few lines.
"""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor
from torch.utils.data import Dataset

from ...errors import one_of

if TYPE_CHECKING:
    from ..arms import Arm
    from ..corpus import Corpus
    from ..settings import Settings

Batch = dict[str, Tensor]
Data = dict[str, Any]  # what `prepare` made: tensors by name


class Objective(Protocol):
    """What a batch is, what a step's loss is, how it is evaluated, and its floors."""

    models: ClassVar[Mapping[str, str]]  # names of transformers' classes: "pretrain", "classify", "answer"
    auto: str  # transformers' Auto class that opens a kept model
    schedule: str  # of the learning rate, by transformers' name
    unit: str  # what a loss is counted by, for example "token"
    sizes: ClassVar[Mapping[str, Any]]  # settings of a demonstration

    def check(self, settings: "Settings", arm: "Arm") -> None:
        """Raises UserError for settings that it cannot use."""

    def config(self, settings: "Settings", arm: "Arm") -> Any:
        """The transformers config of an arm's model, before conversion."""

    def drop_attention(self, model: Any) -> None:
        """Takes attention out of a model in place, for the arm `none`."""

    def prepare(self, folder: Path, settings: "Settings", corpus: "Corpus") -> tuple[Any, Data]:
        """(tokenizer, data), made once and kept in the folder."""

    def train(self, data: Data, settings: "Settings", seed: int, count: int) -> Dataset:
        """`count` examples in the order of training: each a function of seed and number alone."""

    def parts(self, data: Data) -> list[str]:
        """Parts of the data that a run is judged on at its end, next to "held_out", its validation part."""

    def judged(self, data: Data, settings: "Settings", part: str) -> Dataset:
        """The examples that a part of the data is judged on, the same for every arm and seed."""

    def collate(self, rows: list[dict[str, Any]]) -> Batch:
        """A batch from examples."""

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """A step's loss."""

    def evaluate(self, model: Any, examples: Dataset) -> float:
        """Nats a unit over the judged examples."""

    def about(self, data: Data, settings: "Settings") -> dict[str, Any]:
        """Sizes of the data, and `floors`: what trivial methods reach on the judged examples, in nats a unit."""

    def reader(self, tokenizer: Any) -> Any:
        """The tokenizer that is kept with a model."""

    def encode(self, tokenizer: Any, texts: Sequence[str], settings: "Settings") -> list[list[int]]:
        """Texts as a task's model reads them."""


def names() -> list[str]:
    """Names of all objectives."""
    return sorted(x.name.replace("_", "-") for x in pkgutil.iter_modules(__path__))


@cache
def find(name: str) -> Objective:
    """The objective of this name.

    Raises:
        UserError: there is none.
    """
    if name not in names():
        raise one_of("an objective", name, names())
    found: Objective = importlib.import_module(f".{name.replace('-', '_')}", __name__).objective
    return found
