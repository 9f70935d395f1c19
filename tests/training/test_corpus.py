"""Where text comes from, and that nothing judged was seen in pre-training."""

import dataclasses
import gzip
import json
from collections import Counter

import pytest

from talking_heads.errors import UserError
from talking_heads.training import corpus as corpora
from talking_heads.training.corpus import (
    LEAST_WORDS,
    Corpus,
    Document,
    choose_corpus,
    divide,
    from_files,
    from_hub,
    state_of_the_union,
)
from talking_heads.training.tasks.classification import paragraph_task

from .small import addresses, write_texts


def parts(corpus: Corpus) -> list[list[Document]]:
    return [corpus.pretrain, corpus.held_out, corpus.transfer_train, corpus.transfer_test, corpus.test]


def numbered(count: int) -> list[Document]:
    return [Document(f"{i} " + "word " * (LEAST_WORDS // 100)) for i in range(count)]


def test_division_keeps_whole_documents_each_for_one_purpose():
    documents = numbered(200)
    corpus = divide("x", documents)
    assert [len(part) for part in parts(corpus)] == [130, 10, 30, 20, 10]
    assert Counter(x.text for part in parts(corpus) for x in part) == Counter(x.text for x in documents)
    for part in parts(corpus):  # each spans the corpus
        numbers = [int(x.text.split()[0]) for x in part]
        assert numbers == sorted(numbers) and numbers[0] < 20 and numbers[-1] >= 180
    assert divide("x", numbered(200)) == corpus  # and every time alike


def test_digest_names_the_text_and_its_division():
    corpus = divide("x", numbered(100))
    assert divide("another name", numbered(100)).digest == corpus.digest
    changed = numbered(100)
    changed[7] = Document(changed[7].text + "!")
    assert divide("x", changed).digest != corpus.digest
    moved = Corpus("x", corpus.pretrain[:-1], [corpus.pretrain[-1], *corpus.held_out], *parts(corpus)[2:])
    assert moved.digest != corpus.digest
    other = dataclasses.replace(corpus, other={"y": [Document("another text")]})
    assert other.digest != corpus.digest


def test_the_default_corpus():
    corpus = state_of_the_union()
    documents = [x for part in parts(corpus) for x in part]
    assert len(documents) == 249 and 1_200_000 < corpus.words < 1_450_000
    assert not {x.text for x in corpus.pretrain} & {x.text for part in parts(corpus)[1:] for x in part}
    assert {x.labels.get("party") for x in documents} == {"Democratic", "Republican", None}
    eras = Counter(x.labels["era"] for x in documents)
    assert len(eras) == 2 and min(eras.values()) > 110
    assert all({x.labels["era"] for x in part} == eras.keys() for part in parts(corpus))


def test_paragraphs_are_of_a_size_to_judge():
    text = "too short\n" + "a " * 12 + "\n\n" + "b " * 500
    assert Document(text).paragraphs == ["a " * 11 + "a", "b " * 199 + "b"]


def test_files_are_cut_into_labelled_sections(tmp_path):
    paths = write_texts(tmp_path)
    corpus = from_files(paths)
    documents = [x for part in parts(corpus) for x in part]
    assert corpus.name == "early.txt, late.txt" and len(documents) == 120
    assert {tuple(x.labels.values()) for x in documents} == {
        (half, name) for half in ("first", "second") for name in ("early.txt", "late.txt")
    }
    lines = [line for x in documents for line in x.text.split("\n")]
    assert Counter(lines) == Counter(line for path in paths for line in path.read_text().split("\n"))
    alone = from_files([joined(tmp_path)])
    assert {key for x in alone.pretrain for key in x.labels} == {"half"}


def joined(folder):
    path = folder / "joined.txt"
    path.write_text(addresses(True) + "\n" + addresses(False))
    return path


def test_a_large_file_is_read_in_sections_when_they_are_needed(tmp_path, monkeypatch):
    path = joined(tmp_path)
    whole = from_files([path])
    monkeypatch.setattr(corpora, "LARGE", 1000)
    monkeypatch.setattr(corpora, "_LARGEST_SECTION", 1000)
    read = []
    monkeypatch.setattr(corpora, "read_text", lambda path: read.append(path))
    corpus = from_files([path])
    documents = [x for part in parts(corpus) for x in part]
    assert not read and len(documents) > 100 and all(isinstance(x, corpora.Section) for x in documents)
    lines = [line for x in documents for line in x.text.removesuffix("\n").split("\n")]
    assert Counter(lines) == Counter(path.read_text().split("\n"))
    assert paragraph_task(corpus, "half", 50) and whole.words == pytest.approx(corpus.words, rel=0.1)
    path.write_bytes(path.read_bytes()[:5000] + b"\xff\xfe" + path.read_bytes()[5000:])
    with pytest.raises(UserError, match="text must be UTF-8"):
        from_files([path])


def test_texts_of_another_kind_are_judged_apart(tmp_path):
    first, second = tmp_path / "one.txt", tmp_path / "two.txt.gz"
    first.write_text("a line\n" * 3)
    second.write_bytes(gzip.compress(b"another\n" * 3))
    corpus = choose_corpus([joined(tmp_path)], None, [first, second])
    assert corpus.other.keys() == {"one", "two"}
    assert "\n".join(x.text for x in corpus.other["one"]).split() == ["a", "line"] * 3
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "one.txt").write_text("more")
    with pytest.raises(UserError, match="must differ in name"):
        choose_corpus([], None, [first, tmp_path / "below" / "one.txt"])


def test_gzip_is_the_same_text(tmp_path):
    path = joined(tmp_path)
    packed = tmp_path / "joined.txt.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert from_files([packed]).digest == from_files([path]).digest


SPOILT = {
    "missing": (None, "a text file must exist"),
    "empty": (b"", "a text file must have text"),
    "blank": (b" \n\n\t", "a text file must have text"),
    "binary": (bytes(range(256)) * 9, "text must be UTF-8"),
    "zero bytes": (b"words\0words", "zero bytes"),
    "half a gzip file": (gzip.compress(b"words " * 9000)[:40], "text must be UTF-8 (plain or gzip)"),
    "short": (b"a few words\n" * 30, f"at least {LEAST_WORDS:,} words"),
    "one line": (b"word " * LEAST_WORDS, "at least 20 different lines"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_cannot_be_read_is_refused_in_one_line(name, tmp_path):
    data, said = SPOILT[name]
    path = tmp_path / "given.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError) as refusal:
        from_files([path])
    message = str(refusal.value)
    assert said in message and "; got " in message and "\n" not in message


def test_a_folder_is_not_a_text(tmp_path):
    with pytest.raises(UserError, match="text must be a file"):
        from_files([tmp_path])


def test_one_source_at_a_time(tmp_path):
    with pytest.raises(UserError, match="both --text and --hub"):
        choose_corpus([tmp_path], "name")


@pytest.fixture
def data_set(tmp_path):
    """Writes rows as a local data set; returns its folder."""

    def write(rows):
        folder = tmp_path / "set"
        folder.mkdir()
        (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(folder)

    return write


def test_a_local_data_set(data_set):
    lines = [line for first in (True, False) for line in addresses(first).split("\n") if line.strip()]
    lines = list(dict.fromkeys(lines))
    rows = [{"sentence": line, "label": i % 2} for i, line in enumerate(lines)]
    rows = [
        {"sentence": "", "label": 0},
        *rows,
        {"sentence": None, "label": 1},
        *rows[:9],
    ]  # without text, and twice
    corpus = choose_corpus([], data_set(rows))
    texts = Counter(x.text for part in parts(corpus) for x in part)
    assert texts == Counter(lines)
    assert {x.labels["label"] for x in corpus.transfer_train} == {"0", "1"}


def test_a_data_set_is_read_no_further_than_asked(data_set):
    folder = data_set([{"text": f"{i:04} " + "word " * 199} for i in range(400)])
    corpus = from_hub(folder, megabytes=0.2)
    size = sum(len(x.text) for part in parts(corpus) for x in part)
    assert 0.2 * 2**20 <= size < 0.2 * 2**20 + 1001


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"words": "a"}], "columns words in"),
        ([{"text": 3}], "columns text in"),
        ([{"text": "a few"}], "at least 20,000 words"),
    ],
    ids=["no text", "numbers", "short"],
)
def test_data_sets_that_are_refused(rows, said, data_set):
    with pytest.raises(UserError) as refusal:
        from_hub(data_set(rows))
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_data_set_that_is_not_there(tmp_path):
    with pytest.raises(UserError) as refusal:
        from_hub(str(tmp_path / "nowhere"))
    assert "must be readable" in str(refusal.value) and "\n" not in str(refusal.value)
