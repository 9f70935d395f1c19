"""Associative recall: what the task is, what a model of it can see, and the diagram's folder."""

import json

import pytest
import torch

from talking_heads.errors import UserError
from talking_heads.training.recall import Point, Recall, Task, border, diagram, examples, lines, train

from .small import run

SMALL = Task(keys=8, values=8, width=16, steps=60, batch=32, rate=1e-2)


def test_the_answer_is_the_value_of_the_key_that_is_asked_for():
    keys, values, query, answer = examples(Task(), 16, 50, torch.Generator().manual_seed(0))
    assert keys.shape == values.shape == (50, 16)
    for i in range(50):
        assert len(set(keys[i].tolist())) == 16  # no key twice
        assert values[i][keys[i] == query[i]].tolist() == [answer[i]]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("talks", [False, True])
def test_maps_start_as_multi_head_attention_and_the_order_of_pairs_is_nothing(layers, talks):
    task = Task(keys=8, values=8, width=16, layers=layers)
    torch.manual_seed(0)
    plain = Recall(task, 4, False)
    torch.manual_seed(0)
    model = Recall(task, 4, talks)
    keys, values, query, _ = examples(task, 4, 5, torch.Generator().manual_seed(0))
    logits = model(keys, values, query)
    torch.testing.assert_close(logits, plain(keys, values, query))
    torch.testing.assert_close(logits, model(keys.flip(1), values.flip(1), query))
    assert sum("mix" in name for name in model.state_dict()) == 2 * layers * talks


def test_a_model_learns_to_recall_and_a_point_is_its_seed_alone():
    point = Point("talking-heads", 2, 4, 0)
    seen = []
    found = train(SMALL, point)[1]
    assert found > 0.6  # guessing one of the two values: 0.56
    watched = train(SMALL, point, lambda done, right: seen.append((done, right() if done == 60 else 0)))
    assert watched[1] == found  # watching changes nothing
    assert [done for done, _ in seen] == list(range(1, 61)) and seen[-1][1] > 0.6


def test_the_diagram_goes_on_and_adds_points(tmp_path, monkeypatch, capsys):
    sizes = ["--keys", 8, "--width", 8, "--steps", 3, "--batch", 4, "--out", tmp_path / "o"]
    assert run(monkeypatch, "recall", *sizes, "--pairs", 2, "--heads", 2, "--seeds", 1) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "o" / "points").glob("*.json")}
    more = ["--pairs", 2, "--pairs", 4, "--heads", 2, "--heads", 8, "--json", tmp_path / "copy.json"]
    assert run(monkeypatch, "recall", *sizes, *more, "--seeds", 2) == 0
    assert len(before) == 2 and all(path.read_bytes() == data for path, data in before.items())
    results = json.loads((tmp_path / "copy.json").read_text())
    assert len(results["points"]) == 2 * 2 * 2 * 2 and "torch" in results["points"][0]["versions"]
    assert (tmp_path / "o" / "recall.png").exists() and "8 x 1" in capsys.readouterr().out
    assert run(monkeypatch, "recall", *sizes, "--pairs", 2, "--heads", 2, "--steps", 4) == 2
    assert "must hold the same task" in capsys.readouterr().err


def test_the_border_is_the_most_pairs_that_are_recalled():
    points = [
        {"kind": kind, "pairs": pairs, "heads": heads, "seed": 0, "accuracy": value}
        for kind, pairs, heads, value in [
            ("multi-head", 8, 4, 0.95),
            ("multi-head", 16, 4, 0.5),
            ("multi-head", 8, 8, 0.3),
            ("talking-heads", 16, 8, 0.97),
        ]
    ]
    results = {"task": {"width": 8}, "points": points}
    assert border(results) == {"multi-head": {2: 8, 1: 0}, "talking-heads": {1: 16}}
    assert lines(results)[2:] == [
        "| 8 | 8 x 1 | 0.300 | - | 1 |",
        "| 8 | 4 x 2 | 0.950 | - | 1 |",
        "| 16 | 8 x 1 | - | 0.970 | 1 |",
        "| 16 | 4 x 2 | 0.500 | - | 1 |",
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (([9], [2], [0]), "pairs must be from 1 to the 8 keys"),
        (([2], [3], [0]), "heads must divide the width"),
        (([2], [2], []), "--seeds must be different numbers"),
        (([2, 2], [2], [0]), "--pairs must be different numbers"),
    ],
)
def test_counts_that_do_not_fit_are_refused(given, said, tmp_path):
    with pytest.raises(UserError, match=said):
        diagram(SMALL, *given, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="steps must be at least 1"):
        Task(steps=0)
