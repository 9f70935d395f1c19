"""Training text that is read from the hub as training goes on, and goes on exactly where a checkpoint was made.

Example k is made of tokens k * length to (k + 1) * length of the stream, the tokens of one document after the other, and
of random numbers that depend on the seed and k alone. A position is a document's place in the data set and how many
tokens came before it, so that a checkpoint holds a few numbers and no text.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from .blocks import Corrupt, Example, drawn
from .tokens import token_stream

FILE = "stream.json"  # in a checkpoint
_MARKS = 100_000  # documents back: far more than is read ahead of a step
POSITION = {"tokens": int, "documents": (dict, type(None))}


@dataclass(frozen=True)
class HubText:
    """Documents of a data set on the hub, from number `skip` on: those before are for validation, test and floors.

    Args:
        name: repository[:config]. column: the text's.
    """

    name: str
    column: str
    skip: int

    def open(self) -> Any:
        """A streaming `datasets.IterableDataset`."""
        import datasets

        repository, _, config = self.name.partition(":")
        return datasets.load_dataset(repository, config or None, split="train", streaming=True).skip(
            self.skip
        )


@dataclass(frozen=True)
class Streamed:
    """A text to stream, and the tokenizer it is read with."""

    text: Any  # HubText, or what has its `open` and `column`
    tokenizer: Any

    def examples(self, length: int, make: Corrupt, seed: int) -> "StreamExamples":
        return StreamExamples(self, length, make, seed)


class StreamExamples(IterableDataset):
    """The examples of a run in order, from `start` on; the text begins again where it ends."""

    def __init__(self, source: Streamed, length: int, make: Corrupt, seed: int) -> None:
        self.source, self.length, self.make, self.seed = source, length, make, seed
        self.start = 0
        self._begin: dict[str, Any] = {"tokens": 0, "documents": None}
        self._marks: deque[dict[str, Any]] = deque(maxlen=_MARKS)  # where documents begin, in order

    def seek(self, number: int, position: dict[str, Any] | None) -> None:
        """Begin at example `number`; without a position everything before is read again."""
        self.start = number
        self._begin = position or {"tokens": 0, "documents": None}

    def position(self, number: int) -> dict[str, Any]:
        """{"tokens", "documents"}: the last beginning of a document at or before example `number`."""
        while len(self._marks) > 1 and self._marks[1]["tokens"] <= number * self.length:
            self._marks.popleft()
        return self._marks[0] if self._marks else self._begin

    def __iter__(self) -> Iterator[Example]:
        tokens, number = self._begin["tokens"], self.start
        held = torch.zeros(0, dtype=torch.int32)  # tokens from `first` on
        first = number * self.length
        for part in self._documents():
            skipped = max(0, first + len(held) - tokens)  # before the first example
            tokens += len(part)
            held = torch.cat([held, part[skipped:]])
            while len(held) >= self.length:
                yield self.make(held[: self.length].long(), drawn(self.seed, number), False)
                held, number = held[self.length :], number + 1
                first += self.length

    def _documents(self) -> Iterator[Tensor]:
        """The tokens of each document; before each a mark is set."""
        tokens, state = self._begin["tokens"], self._begin["documents"]
        self._marks.clear()
        while True:
            rows = self.source.text.open()
            if state is not None:
                rows.load_state_dict(state)
            read = iter(rows)
            empty = True
            while True:
                mark = {"tokens": tokens, "documents": rows.state_dict()}
                row = next(read, None)
                if row is None:
                    break
                self._marks.append(mark)
                text = row[self.source.text.column]
                if text and text.strip():
                    empty = False
                    (part,) = token_stream(self.source.tokenizer, [text])
                    tokens += len(part)
                    yield torch.from_numpy(part)
            if empty and state is None:
                return
            state = None
