"""MAX and MST against hand-made trees and brute force; selection, baselines, intervals."""

import itertools

import numpy as np
import pytest

from talking_heads.errors import UserError
from talking_heads.heads import Table, dependencies, random_copy, read_treebank
from talking_heads.heads.dependencies import Gold, Options, baselines, max_hits, spanning
from talking_heads.heads.hits import Scores
from talking_heads.results.statistics import interval, resamples, two_sided

from .small import DATA, Reads, model, tokenizer

SENTENCES = read_treebank(DATA / "sample.conllu")


def brute_force(maps, root):
    """The best of all arborescences from root, arcs parent -> child weighted maps[parent, child]."""
    count = len(maps)
    best = (-np.inf, None)
    for parents in itertools.product(range(count), repeat=count - 1):
        heads = [*parents[:root], -1, *parents[root:]]
        climbs = all(_reaches(heads, i) for i in range(count))
        if climbs:
            best = max(best, (sum(maps[h, i] for i, h in enumerate(heads) if h >= 0), tuple(heads)))
    return best


def _reaches(heads, i):
    for _ in range(len(heads)):
        i = heads[i]
        if i == -1:
            return True
    return False


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_the_spanning_tree_is_the_best_of_all(count):
    draw = np.random.default_rng(count)
    for root in {0, count - 1, count // 2}:
        maps = draw.random((3, count, count)).astype(np.float32)
        found = spanning(maps, root)
        turned = spanning(maps.swapaxes(1, 2), root, "dependent")
        for place in range(3):
            weight, heads = brute_force(maps[place].astype(float), root)
            assert tuple(found[place]) == heads == tuple(turned[place])
            assert weight == pytest.approx(sum(maps[place][h, i] for i, h in enumerate(heads) if h >= 0))


def planted(sentence, direction):
    """A map that knows the tree: children attend to heads ("dependent") or heads to one child ("head")."""
    count = len(sentence.words)
    maps = np.full((1, count, count), 0.01, np.float32)
    for i, h in enumerate(sentence.heads):
        if h >= 0:
            maps[0, i, h] = 1 if direction == "dependent" else maps[0, i, h]
            maps[0, h, i] = 1 if direction == "head" else maps[0, h, i]
    return maps


def test_a_head_that_knows_the_tree_scores_one():
    gold = Gold(SENTENCES, Options(direction="dependent"))
    scores = gold.scores(["knows"])
    for number, sentence in enumerate(SENTENCES):
        gold.count(scores, number, planted(sentence, "dependent"))
    assert np.all(scores.value() == 1)


def test_directions_and_diagonal():
    dependents, heads = np.array([0, 2]), np.array([1, 1])
    maps = np.array([[[0.1, 0.9, 0], [0.8, 0.2, 0], [0.1, 0.2, 0.7]]], np.float32)
    hit = lambda **x: max_hits(maps, dependents, heads, Options(**x)).tolist()  # noqa: E731
    assert hit() == [[True, False]]
    assert hit(diagonal="zeroed") == [[True, True]]  # word 2 attends to itself most
    assert hit(direction="head") == [[True, False]]
    assert hit(direction="dependent", diagonal="zeroed") == [[True, True]]
    with pytest.raises(UserError, match="direction must be one of"):
        Options(direction="up")


def test_baselines_by_hand():
    found = baselines(SENTENCES)
    assert found["options"]["punct"] is False and found["options"]["average"] == "micro"
    # edges without punctuation: 7 + 6 + 8; neighbours: amod red, nsubj dog, old; n't, he; 5 in the third
    near = sum(
        abs(h - i) == 1
        for s in SENTENCES
        for i, h in enumerate(s.heads)
        if h >= 0 and s.relations[i] != "punct"
    )
    assert found["chain"]["uuas"] == near / 21
    assert found["offset"]["det"] == {"accuracy": 1 / 3, "offset": 1, "count": 3}
    assert found["offset"]["nsubj"] == {"accuracy": 0.5, "offset": 1, "count": 4}
    assert set(baselines(SENTENCES, options=Options(subtypes=True))["offset"]) >= {"nsubj:pass", "obl:agent"}
    assert "punct" in baselines(SENTENCES, options=Options(punct=True))["offset"]
    chosen_elsewhere = baselines(SENTENCES[:1], SENTENCES[2:])["offset"]
    assert chosen_elsewhere["amod"]["offset"] is None and np.isnan(chosen_elsewhere["amod"]["accuracy"])


@pytest.mark.parametrize("name", ["bert, talking, 8 value heads", "bert, talking, 8 softmax heads"])
def test_heads_of_other_numbers_and_their_random_copy(name):
    made = model(name)
    random = random_copy(made)
    assert random.config.talking_heads == made.config.talking_heads and type(random) is type(made)
    for weights, heads in (("softmax", 4 + 4 * ("softmax" in name)), ("mixed", 4 + 4 * ("value" in name))):
        options = Options(weights=weights)
        table = dependencies(made, tokenizer(), SENTENCES, options=options, random_model=random, draws=5)
        assert len(table.scores.columns) == 2 * heads


def test_a_model_end_to_end(tmp_path):
    bert = model("bert")
    random = random_copy(bert)
    report, select = SENTENCES[:2], SENTENCES[2:]
    table = dependencies(bert, tokenizer(), report, select, random_model=random, draws=50)
    assert table.meta["chosen_on"] == "1 other sentences" and table.meta["sentences"] == 2
    assert len(table.rows) == 8 * len(table.scores.groups)
    best = {row["relation"]: row for row in table.best().rows}
    for relation, row in best.items():
        of = [r for r in table.rows if r["relation"] == relation]
        assert row["chosen"] == max(r["chosen"] for r in of)
        assert {"offset", "chain", "random model"} <= set(row) and row["interval"][0] <= row["score"] <= row[
            "interval"
        ][1]
    assert "amod" not in best  # not in the sentences it would be chosen on
    table.to_json(tmp_path / "t.json")
    assert table.to_csv().splitlines()[0] == "relation,head,score,chosen,count"
    assert table.to_markdown().startswith("| relation")
    same = table.diff(table)
    assert all(row["difference"] == 0 or np.isnan(row["difference"]) for row in same.rows)
    assert all(row["difference"] == 0 and row["p"] == 1 for row in table.compare(table).rows)
    other = dependencies(random, tokenizer(), report, select, draws=50)
    assert any(abs(row["difference"]) > 0.1 for row in table.diff(other).rows)
    assert [r["relation"] for r in table.compare(other).rows] == list(best)
    with pytest.raises(UserError, match="same sentences"):
        table.compare(dependencies(bert, tokenizer(), select, draws=5))
    with pytest.raises(UserError, match="only tables alike"):
        table.diff(Table([], ("label",), "score"))


def test_files_are_taken_and_long_sentences_counted(tmp_path):
    text = (DATA / "sample.conllu").read_text()
    long = "".join(
        f"{i}\tdog\tdog\tNOUN\tNN\t_\t{i - 1}\t{'root' if i == 1 else 'dep'}\t_\t_\n" for i in range(1, 401)
    )
    path = tmp_path / "long.conllu"
    path.write_text(text + long + "\n")
    table = dependencies(model("bert"), tokenizer(), path, draws=5)
    assert table.meta["skipped"] == {"longer than the model's 40 tokens": 1} and table.meta["sentences"] == 3
    several = [*read_treebank(path), *read_treebank(path)]
    assert dependencies(model("bert"), tokenizer(), several, draws=5).meta["skipped"] == {
        "longer than the model's 40 tokens": 2
    }
    assert table.meta["chosen_on"] == "the sentences reported" and "dep" not in table.scores.groups
    only = tmp_path / "only.conllu"
    only.write_text(long + "\n")
    with pytest.raises(UserError, match="some sentence must fit"):
        dependencies(model("bert"), tokenizer(), only)
    assert spanning(np.random.default_rng(0).random((2, 400, 400)), 7).shape == (2, 400)


def test_a_model_of_ones_own():
    mine = Reads().eval()
    table = dependencies(mine, tokenizer(), SENTENCES, random_model=random_copy(mine), draws=5)
    assert table.scores.columns == [
        f"encoder.{n}:{h}" for n, heads in enumerate((4, 2, 3)) for h in range(heads)
    ]
    mixed = dependencies(mine, tokenizer(), SENTENCES, options=Options(weights="mixed"), draws=5)
    assert len(mixed.scores.columns) == 2 + 2 + 3 and mixed.meta["options"]["weights"] == "mixed"


def test_averages_and_intervals():
    hits, totals = np.array([[[3.0]], [[0.0]]]), np.array([[4], [1]])
    assert Scores(["r"], ["h"], hits, totals).value() == 3 / 5
    assert Scores(["r"], ["h"], hits, totals, "macro").value() == pytest.approx(3 / 8)
    draw = np.random.default_rng(0)
    values = (draw.random(400) < 0.3).astype(float)
    scores = Scores(["r"], ["h"], values[:, None, None], np.ones((400, 1)))
    low, high = interval(scores.value(resamples(400, 2000, 0))[:, 0, 0])
    width = 1.96 * (0.3 * 0.7 / 400) ** 0.5  # of the normal approximation
    assert low == pytest.approx(values.mean() - width, abs=0.01) and high == pytest.approx(
        values.mean() + width, abs=0.01
    )
    assert two_sided(np.full(999, 0.1)) == 2 / 1000 and two_sided(np.array([-1.0, 1.0] * 50)) == 1
