"""Text streamed from a data set: the same examples wherever a run was stopped."""

import json
from dataclasses import replace

import datasets
import pytest
import torch

from talking_heads.errors import UserError
from talking_heads.training import corpus, run
from talking_heads.training.objectives import find
from talking_heads.training.stream import HubText, Streamed
from talking_heads.training.tokens import train_tokenizer

from .small import SMALL, addresses

ROWS = [{"text": x} for x in addresses(True).split("\n") if x.strip()][:40]
ROWS[7] = {"text": ""}


class Rows:
    """A data set of three files, as the hub streams them."""

    column = "text"

    def open(self):
        return datasets.Dataset.from_list(ROWS).to_iterable_dataset(num_shards=3).skip(5)


@pytest.fixture(scope="module")
def source():
    return Streamed(Rows(), train_tokenizer([x["text"] for x in ROWS], 400))


def taken(examples, count):
    found = []
    for example in examples:
        found.append({name: x.tolist() for name, x in example.items()})
        if len(found) == count:
            return found
    return found


def test_a_stream_is_its_documents_in_order_and_goes_on_anywhere(source):
    objective = find("span-corruption")
    examples = source.examples(32, objective.example, 3)
    whole = taken(examples, 900)  # more than the text has: it begins again
    tokens = [t for row in Rows().open() if row["text"] for t in source.tokenizer(row["text"])["input_ids"]]
    plain = source.examples(32, lambda block, draw, judged: {"block": block}, 0)
    blocks = [x["block"] for x in taken(plain, len(tokens) // 32)]
    assert [t for block in blocks for t in block] == tokens[: len(tokens) // 32 * 32] and len(blocks) < 800
    for number in (0, 1, 50, len(blocks) - 1, len(blocks) + 20):
        again = source.examples(32, objective.example, 3)
        taken(again, number + 7)  # as a loader reads ahead
        position = json.loads(json.dumps(again.position(number)))
        late = source.examples(32, objective.example, 3)
        late.seek(number, position)
        assert taken(late, 9) == whole[number : number + 9], number
        slow = source.examples(32, objective.example, 3)
        slow.seek(number, None)
        assert taken(slow, 2) == whole[number : number + 2]
        assert position["tokens"] <= 32 * number


def test_a_run_that_was_stopped_sees_what_a_whole_run_sees(source, tmp_path, monkeypatch):
    settings = replace(
        SMALL, objective="causal-lm", vocabulary=400, steps=6, evaluations=3, arms=("multi-head:2",)
    )
    blocks = torch.randint(69, 300, (3, settings.length))
    data = {"train": blocks, "held_out": blocks, "stream": source}
    monkeypatch.setattr(find("causal-lm"), "evaluate", lambda model, examples: 1.0)
    given = (settings, "multi-head:2", 0, data)
    whole = run.pretrain(tmp_path / "whole", *given, lambda *said: None)

    def stop(done, total, said):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.pretrain(tmp_path / "cut", *given, stop)
    position = json.loads((tmp_path / "cut" / "checkpoint-4" / "stream.json").read_text())
    assert 0 < position["tokens"] <= 4 * settings.batch * settings.length
    rest = run.pretrain(tmp_path / "cut", *given, lambda *said: None)
    for name, x in whole.state_dict().items():
        assert torch.equal(x, rest.state_dict()[name]), name


def test_the_first_text_is_kept_for_judging(monkeypatch):
    rows = [{"text": f"{number} {row['text']}"} for number in range(60) for row in ROWS]  # each another
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *given, **more: datasets.Dataset.from_list(rows).to_iterable_dataset(),
    )
    found = corpus.from_hub("some/text:en", megabytes=0.2, stream=True)
    assert (
        isinstance(found.stream, HubText)
        and found.stream.column == "text"
        and 20 < found.stream.skip < len(rows)
    )
    first = next(iter(found.stream.open()))
    assert first["text"] == rows[found.stream.skip]["text"]
    assert corpus.from_hub("some/text", megabytes=0.2).stream is None
    with pytest.raises(UserError, match=r"must have more than 50 MB of text; got 0\.\d+ in some/text"):
        corpus.from_hub("some/text", stream=True)
    with pytest.raises(UserError, match="--stream must go with a data set on the hub"):
        corpus.choose_corpus([], None, stream=True)
