"""CoNLL-U: what is read, what is left out, which line is named."""

import gzip

import pytest

from talking_heads.errors import UserError
from talking_heads.heads import read_treebank

from .small import DATA

SAMPLE = (DATA / "sample.conllu").read_text()


def test_multiword_and_empty_tokens_are_left_out():
    first, second, third = read_treebank(DATA / "sample.conllu")
    assert second.words == ["She", "does", "n't", "sing", "and", "he", "whistles", "."]
    assert list(second.heads) == [3, 3, 3, -1, 6, 6, 3, 3] and second.root == 3
    assert third.relations[:2] == ["nsubj:pass", "aux:pass"]
    assert [s.line for s in (first, second, third)] == [1, 13, 26]


@pytest.mark.parametrize(
    "old, new, why",
    [
        (
            "4	chased	chase	VERB	VBD	_	0	root",
            "4	chased	chase	VERB	VBD	_	3	root",
            "no root",
        ),
        (
            "8	ball	ball	NOUN	NN	_	4	obj",
            "8	ball	ball	NOUN	NN	_	0	obj",
            "several roots",
        ),
        (
            "8	ball	ball	NOUN	NN	_	4	obj",
            "8	ball	ball	NOUN	NN	_	7	obj",
            "a cycle",
        ),
        (
            "8	ball	ball	NOUN	NN	_	4	obj",
            "8	ball	ball	NOUN	NN	_	14	obj",
            "a head that is not there",
        ),
    ],
)
def test_what_is_no_tree_is_skipped_and_said(tmp_path, old, new, why):
    path = tmp_path / "bad.conllu"
    path.write_text(SAMPLE.replace(old, new))
    skipped = {}
    assert len(read_treebank(path, skipped)) == 2
    assert skipped == {1: why}


@pytest.mark.parametrize(
    "cut, line",
    [("village	village	NO", 33), ("4	in	in	ADP	IN	_	6	case	_	_", 31)],
)
def test_a_truncated_file_names_its_line(tmp_path, cut, line):
    path = tmp_path / "cut.conllu"
    path.write_text(SAMPLE[: SAMPLE.index(cut) + len(cut)])
    with pytest.raises(UserError, match=f"cut.conllu:{line}"):
        read_treebank(path)


def test_a_truncated_gzip_names_the_line_reached(tmp_path):
    path = tmp_path / "cut.conllu.gz"
    path.write_bytes(gzip.compress(SAMPLE.encode() * 200)[:-200])
    with pytest.raises(UserError, match=r"after line \d+"):
        read_treebank(path)


def test_a_damaged_archive_is_named(tmp_path):
    path = tmp_path / "cut.conllu.gz"
    whole = gzip.compress(SAMPLE.encode())
    path.write_bytes(whole[:10] + b"\xff" * 10 + whole[20:])
    with pytest.raises(UserError, match="complete UTF-8"):
        read_treebank(path)


def test_a_byte_order_mark_is_no_column(tmp_path):
    path = tmp_path / "marked.conllu"
    path.write_text(SAMPLE, "utf-8-sig")
    assert len(read_treebank(path)) == 3


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "text.conllu"
    path.write_text("The old dog.\n")
    with pytest.raises(UserError, match=r"text.conllu:1: 1 columns of 10"):
        read_treebank(path)
    path.write_text("")
    with pytest.raises(UserError, match="must hold trees"):
        read_treebank(path)
    path.write_text(SAMPLE.rstrip("\n"))  # no empty line at the end, yet whole
    assert len(read_treebank(path)) == 3
