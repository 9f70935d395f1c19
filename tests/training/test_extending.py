"""A new objective is one file, and so is a new task: both are written here and found by their names."""

import json
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

from talking_heads.training import objectives, tasks
from talking_heads.training.judge import END, IGNORED, PAD, collate
from talking_heads.training.objectives.span_corruption import SpanCorruption
from talking_heads.training.tokens import token_stream, train_tokenizer

from .small import TINY, addresses, run

TRANSLATION = """
from tests.training.test_extending import Translation
objective = Translation()
"""
COUNTING = """
from tests.training.test_extending import Counting
def from_files(files, most):
    return Counting(files, most)
"""


class Pairs(Dataset):
    def __init__(self, pairs, count):
        self.pairs, self.count = pairs, count

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        return dict(zip(("input_ids", "labels"), self.pairs[number % len(self.pairs)], strict=True))


class Translation(SpanCorruption):
    """Lines "source<tab>target" to a T5: what a batch is differs, so data, examples and floors do."""

    def prepare(self, folder, settings, corpus):
        lines = [line for x in (*corpus.pretrain, *corpus.held_out) for line in x.text.split("\n")]
        tokenizer = train_tokenizer(lines, settings.vocabulary)
        tokens = lambda text: torch.from_numpy(next(token_stream(tokenizer, [text]))).long()  # noqa: E731
        pairs = [tuple(map(tokens, line.split("\t"))) for line in lines if "\t" in line]
        return tokenizer, {"train": pairs[10:], "held_out": pairs[:10]}

    def train(self, data, settings, seed, count):
        return Pairs(data["train"], count)

    def parts(self, data):
        return []

    def judged(self, data, settings, part):
        return Pairs(data[part], len(data[part]))

    def about(self, data, settings):
        counted = {"tokens": len(data["train"]), "tokens_seen": settings.steps * settings.batch}
        return {**counted, "floors": {"unigram": 5.0, "kneser_ney": {}}}


class Counting:
    """How many words a text has: regression by the classifier of one number."""

    head, metric, digest = "classify", "negative error", "1"
    changes = {"num_labels": 1, "problem_type": "regression"}  # noqa: RUF012

    def __init__(self, path, most):
        self.name, self.texts = Path(path).stem, Path(path).read_text().split("\n")[:most]

    def about(self):
        return {"metric": self.metric, "train": len(self.texts), "test": len(self.texts)}

    def examples(self, objective, tokenizer, settings):
        ids = map(torch.tensor, objective.encode(tokenizer, self.texts, settings))
        return [
            {"input_ids": x, "labels": torch.tensor(float(len(text.split())))}
            for x, text in zip(ids, self.texts, strict=True)
        ]

    def collate(self, rows):
        return collate(rows)

    def score(self, model, objective, tokenizer, settings):
        rows = collate(list(self.examples(objective, tokenizer, settings)))
        with torch.no_grad():
            return -(model(**rows).logits[:, 0] - rows["labels"]).abs().mean().item()


@pytest.fixture
def added(tmp_path, monkeypatch):
    for package, name, text in ((objectives, "translation", TRANSLATION), (tasks, "counting", COUNTING)):
        folder = tmp_path / package.__name__
        folder.mkdir()
        (folder / f"{name}.py").write_text(text)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    objectives.find.cache_clear()
    yield tmp_path
    objectives.find.cache_clear()


def test_an_objective_and_a_task_are_one_file_each(added, monkeypatch, capsys):
    words = addresses(True).split()
    lines = [" ".join(words[i : i + 6]) for i in range(0, 24_000, 6)]
    pairs = added / "pairs.txt"
    pairs.write_text("\n".join(f"{line}\t{line[::-1]}" for line in lines))
    texts = added / "words.txt"
    texts.write_text("\n".join(lines[:8]))
    options = ["--objective", "translation", "--transfer", f"counting:{texts}", "--text", pairs]
    assert run(monkeypatch, "compare", "--out", added / "out", *TINY, *options) == 0
    results = json.loads((added / "out" / "results.json").read_text())
    for arm in results["arms"]:
        assert arm["loss"][0] > 0 and arm["transfer"]["words"][0] < 0
    assert "negative error, words" in (added / "out" / "report.html").read_text()
    assert run(monkeypatch, "compare", "--objective", "translations", "--out", added / "new", *TINY) == 2
    said = capsys.readouterr().err
    assert "translation" in said and "; got 'translations'; did you mean translation?" in said


def test_pairs_are_padded_as_every_batch_is():
    rows = [Pairs([(torch.tensor([5, END]), torch.tensor([6, 7, END]))], 1)[0]]
    rows.append({"input_ids": torch.tensor([5]), "labels": torch.tensor([END])})
    batch = collate(rows)
    assert batch["input_ids"][1].tolist() == [5, PAD] and batch["labels"][1].tolist() == [
        END,
        IGNORED,
        IGNORED,
    ]
