"""Bracketed trees, and trees from distances, against a person's reading and a recursion."""

import gzip

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from talking_heads.errors import UserError
from talking_heads.heads.trees import GoldSpans, Tree, balanced, baseline_distances, read_trees, split_spans

from .small import DATA


def test_reading():
    skipped = []
    first, second, third = read_trees(DATA / "sample.mrg", skipped=skipped)
    assert first.words == ["The", "old", "dog", "chased", "a", "small", "ball", "in", "the", "garden"]
    assert sorted(first.spans) == [(0, 2, "NP"), (3, 9, "VP"), (4, 6, "NP"), (7, 9, "PP"), (8, 9, "NP")]
    assert second.words == ["She", "thought", "he", "was", "very", "tired"]  # quotes and the trace are gone
    assert sorted(second.spans) == [(1, 5, "VP"), (2, 5, "S"), (2, 5, "SBAR"), (3, 5, "VP"), (4, 5, "ADJP")]
    assert third.words == ["Bread", "rye"] and third.spans == []
    assert skipped == [("sample.mrg:8", "fewer than two words")]
    with_punctuation = read_trees(DATA / "sample.mrg", punct=True)
    assert with_punctuation[2].words == ["Bread", "(", "rye", ")"] and len(with_punctuation) == 4


@pytest.mark.parametrize(
    "text, said",
    [
        ("(S (NP (DT the)\n (NN dog)", "2: the file ends within the tree of line 1"),
        ("(S (DT the) (NN dog)))", "1: a closing bracket"),
        ("(S (DT the) (NN dog))\nthe dog", "2: text outside"),
        ("(S " * 3000 + "(DT a) (NN cat)" + ")" * 3000, "1: .*nesting depth"),
    ],
)
def test_broken_brackets_name_their_line(tmp_path, text, said):
    path = tmp_path / "trees.mrg"
    path.write_text(text)
    with pytest.raises(UserError, match=f"trees.mrg:{said}"):
        read_trees(path)


@pytest.mark.parametrize(
    "text, words",
    [
        (
            "(S (NP (DT the) (JJ old) dog) (VP (VBD saw) it))",
            "the old dog saw it",
        ),  # some words without a tag
        ("(S (NP the dog) (VP barked loudly))", "the dog barked loudly"),  # no tags at all
        ("(S (NP 3 dogs) (VP barked) .)", "3 dogs barked"),
        ("(S (NP (CD 10\u00a0000) (NNS dogs)) (VP (VBD barked)))", "10\u00a0000_dogs_barked"),
        ("(S (NP (CD 10 000) (NNS dogs)) (VP (VBD barked)))", "10 000_dogs_barked"),
        ("(S (NP (NN a\u3000b) (NN c)))", "a\u3000b_c"),
        (r"(S (NP (CD 1\/2) (NN dog\*) (NN x-LRB-s-RRB-)))", "1/2 dog* x(s)"),
        ("(S (NP (NN rye)) (-LRB- -LRB-) (X (SYM %) (POS ') (CC &)) (-RRB- -RRB-))", "rye % ' &"),
        ("(IP (NP (PN 我们)) (VP (VV 看见) (NP (NN 狗))) (PU 。))", "我们 看见 狗"),
        ("(SENT (NP (DET le) (NC chien)) (PONCT ,) (VN (V aboie)) (PONCT .))", "le chien aboie"),
        ("(S (sn (da el) (nc perro)) (fc ,) (gv (vm ladra)) (fp ¡))", "el perro ladra"),
        ("(S (NP (ART der) (NN Hund)) ($, ,) (VVFIN bellt) ($. .))", "der Hund bellt"),
        ("(S " * 400 + "(DT a) (NN cat)" + ")" * 400, "a cat"),
    ],
)
def test_every_word_is_read_and_punctuation_removed(tmp_path, text, words):
    path = tmp_path / "trees.mrg"
    path.write_text(text, "utf-8")
    assert read_trees(path)[0].words == words.split("_" if "_" in words else None)


def test_punctuation_removed_is_counted(tmp_path):
    path = tmp_path / "trees.mrg"
    path.write_text("(S (`` ``) (NP (DT the) (NN dog)) (VP (VBD saw) (NP (PRP it))) (. .) ('' ''))")
    assert read_trees(path)[0].removed == 3
    kept = read_trees(path, punct=True)[0]
    assert kept.removed == 0 and kept.words[0] == kept.words[-1] == '"'


@pytest.mark.parametrize("label", ["NP-SBJ-1", "NP=2", "NP_SBJ", "NP:SBJ", "NP|QP", "NP"])
def test_labels_without_their_function(tmp_path, label):
    path = tmp_path / "trees.mrg"
    path.write_text(f"(S ({label} (DT the) (NN dog)) (VP (VBD barked)))")
    assert read_trees(path)[0].spans == [(0, 1, "NP")]


def test_a_folder_of_trees(tmp_path):
    (tmp_path / "00").mkdir()
    (tmp_path / "00" / "a.mrg").write_text("(S (DT the) (NN dog))")
    (tmp_path / "b.ptb").write_text("(S (DT a) (NN cat)) (S (DT an) (NN ape))")
    (tmp_path / "c.mrg.gz").write_bytes(gzip.compress(b"(S (DT a) (NN bee))"))
    assert [t.words[1] for t in read_trees(tmp_path)] == ["dog", "cat", "ape", "bee"]


def test_every_tree_left_out_is_counted_with_its_place(tmp_path):
    (tmp_path / "00").mkdir()
    (tmp_path / "00" / "a.mrg").write_text("(S (UH Well)) (S (UH Oh)) (S (DT the) (NN dog))")
    (tmp_path / "b.mrg").write_text("(S (UH No))")
    skipped = []
    assert len(read_trees(tmp_path, skipped=skipped)) == 1
    assert [place for place, _ in skipped] == ["00/a.mrg:1", "00/a.mrg:1", "b.mrg:1"]


def test_a_byte_order_mark_is_no_tree(tmp_path):
    path = tmp_path / "trees.mrg"
    path.write_text("(S (DT the) (NN dog))", "utf-8-sig")
    assert read_trees(path)[0].words == ["the", "dog"]


def test_a_damaged_archive_is_named(tmp_path):
    path = tmp_path / "trees.mrg.gz"
    whole = gzip.compress(b"(S (DT the) (NN dog))\n(S (DT a) (NN cat))\n" * 50)
    path.write_bytes(whole[:10] + b"\xff" * 10 + whole[20:])
    with pytest.raises(UserError, match="complete UTF-8"):
        read_trees(path)


def recursive(distances, start=0):
    """Spans (first, last) of the tree that splits at the largest distance, leftmost of equals."""
    if len(distances) == 0:
        return set()
    at = int(np.argmax(distances))
    here = {(start, start + len(distances))}
    return here | recursive(distances[:at], start) | recursive(distances[at + 1 :], start + at + 1)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_spans_are_those_of_the_recursion(distances):
    first, last = split_spans(np.array([distances, distances], float))
    assert set(zip(first[1].tolist(), last[1].tolist(), strict=True)) == recursive(distances)


def test_baselines_are_the_trees_they_are_called():
    spans = lambda d: set(zip(*(x.tolist() for x in split_spans(d)), strict=True))  # noqa: E731
    draw = np.random.default_rng(0)
    assert spans(baseline_distances("right", 4, draw)) == {(0, 3), (1, 3), (2, 3)}
    assert spans(baseline_distances("left", 4, draw)) == {(0, 3), (0, 2), (0, 1)}
    assert spans(balanced(5)) == {(0, 4), (0, 1), (2, 4), (3, 4)}
    seen = {frozenset(spans(baseline_distances("random", 3, draw))) for _ in range(50)}
    assert seen == {frozenset({(0, 2), (0, 1)}), frozenset({(0, 2), (1, 2)})}


def test_sentence_f1_and_recall_by_hand():
    gold = GoldSpans(Tree(["a", "b", "c", "d", "e"], [(0, 1, "NP"), (2, 4, "VP"), (3, 4, "NP")], 1))
    f1, hits = gold.judge(np.array([[1.0, 4, 3, 2], [4, 3, 2, 1]]))
    assert f1[0] == 1 and list(hits[:, 0]) == [0, 2, 1, 0, 0, 0]  # SBAR, NP, VP, PP, ADJP, ADVP
    assert f1[1] == pytest.approx(2 / 3)  # of (1,4) (2,4) (3,4) two are gold, two of three gold found
    two = GoldSpans(Tree(["a", "b"], [], 1))
    assert two.judge(np.ones((1, 1)))[0] == 1
    flat = GoldSpans(Tree(["a", "b", "c"], [], 1))
    assert flat.judge(np.ones((1, 2)))[0] == 0
