"""A toy language, word for word, and options with which a 2+2 model learns it in seconds."""

import random
from pathlib import Path

from tests.training.small import run

__all__ = ["FAST", "TINY", "files", "run", "train_words", "words"]
FAST = "--layers 2 --width 96 --feed-forward 64 --rate 0.002 --tokens 600 --updates 280 --warmup 30 --every 20".split()  # noqa: SIM905
FAST += "--dropout 0 --smoothing 0 --vocabulary 330 --average 4".split()  # noqa: SIM905
TINY = "--layers 1 --width 16 --feed-forward 16 --tokens 100 --updates 12 --every 2 --vocabulary 300".split()  # noqa: SIM905
TINY += ["--arm", "multi-head:2", "--average", "2"]
_SYLLABLES = [(c + v) for c in "bdfg" for v in "aeiou"], [(c + v) for c in "klmn" for v in "aeiou"]
_draw = random.Random(5)
SOURCE, TARGET = (["".join(_draw.sample(parts, 2)) for _ in range(8)] for parts in _SYLLABLES)


def words(count: int, seed: int, longest: int = 4) -> tuple[list[str], list[str]]:
    """Sentences of two words or more, and their translations."""
    draw = random.Random(seed)
    rows = [[draw.randrange(len(SOURCE)) for _ in range(draw.randint(2, longest))] for _ in range(count)]
    return tuple([" ".join(side[i] for i in row) for row in rows] for side in (SOURCE, TARGET))


def files(folder: Path, train: int = 1200) -> dict[str, Path]:
    """{"train.source": path, ...} of three sets."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for number, (name, count) in enumerate({"train": train, "dev": 30, "test": 40}.items()):
        for side, lines in zip(("source", "target"), words(count, number), strict=True):
            found[f"{name}.{side}"] = folder / f"{name}.{side}"
            found[f"{name}.{side}"].write_text("\n".join(lines) + "\n")
    return found


def train_words(paths: dict[str, Path]) -> list[str]:
    """The options that name the texts of training and validation."""
    return [
        *("--source", str(paths["train.source"]), "--target", str(paths["train.target"])),
        *("--dev-source", str(paths["dev.source"]), "--dev-target", str(paths["dev.target"])),
    ]
