"""Small models with their tokenizers in folders, and small tasks in GLUE's layout."""

import dataclasses
from functools import cache
from pathlib import Path

from talking_heads.training.checkpoints import keep_model
from talking_heads.training.models import build
from talking_heads.training.objectives import find
from talking_heads.training.tokens import train_tokenizer

from ..training.small import SMALL, addresses

OBJECTIVES = {"bert": "masked-lm", "albert": "sentence-order", "t5": "span-corruption", "llama": "causal-lm"}


@cache
def tokenizer():
    return train_tokenizer([addresses(True)], 400)


def save_model(folder: Path, name: str, arm: str = "multi-head:2", length: int = 64) -> Path:
    """A pre-training model of random weights, as a run keeps it."""
    settings = dataclasses.replace(SMALL, objective=OBJECTIVES[name], arms=(arm,), length=length)
    keep_model(folder, build(settings, arm, 0), find(settings.objective).reader(tokenizer()))
    return folder


def write_pairs(folder: Path, train: int = 40, judged: int = 12) -> Path:
    """RTE: entailed where the second text has the word yes."""
    folder.mkdir(parents=True)
    for name, count in (("train.tsv", train), ("dev.tsv", judged)):
        lines = ["index\tsentence1\tsentence2\tlabel"]
        for i in range(count):
            label = ("entailment", "not_entailment")[i % 2]
            lines.append(
                f"{i}\tThe state of things is number {i} now.\tThe answer is {('yes', 'no')[i % 2]}, sir.\t{label}"
            )
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder
