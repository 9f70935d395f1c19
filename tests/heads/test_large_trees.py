"""Treebanks with numbers and sentences beyond measure: left out or refused by their place."""

import pytest

from talking_heads.errors import UserError
from talking_heads.heads import read_treebank, read_trees


def conllu(heads):
    rows = [f"{i}\tw\t_\tX\t_\t_\t{head}\tdep\t_\t_" for i, head in enumerate(heads, 1)]
    return "\n".join(rows) + "\n\n"


def test_a_head_with_many_digits_is_refused_by_its_line(tmp_path):
    path = tmp_path / "x.conllu"
    path.write_text(conllu([0, 1]) + conllu([0, "9" * 23]))
    with pytest.raises(UserError, match=r"x.conllu:4"):
        read_treebank(path)


def test_sentences_of_thousands_of_words_are_left_out(tmp_path):
    skipped = {}
    (tmp_path / "x.conllu").write_text(conllu([0] + [1] * 2000) + conllu([0, 1]))
    assert len(read_treebank(tmp_path / "x.conllu", skipped)) == 1
    assert skipped == {1: "more than 1,000 words"}
    left = []
    (tmp_path / "x.mrg").write_text("(S " + "(N w) " * 2000 + ")\n(S (N a) (N b))\n")
    assert len(read_trees(tmp_path / "x.mrg", skipped=left)) == 1
    assert left == [("x.mrg:1", "more than 1,000 words")]


def test_brackets_nested_thousands_deep_are_refused_by_their_line(tmp_path):
    (tmp_path / "x.mrg").write_text("(S " * 5_000 + "(N a) (N b)" + ")" * 5_000 + "\n")
    with pytest.raises(UserError, match=r"x.mrg:1"):
        read_trees(tmp_path / "x.mrg")
