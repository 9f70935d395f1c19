"""Files of labelled texts: which column is what, and what is refused because it cannot be told."""

import csv
import gzip
import json

import pytest
import transformers

from talking_heads.errors import UserError
from talking_heads.reading import text as reading_text
from talking_heads.reading.labelled import label_number, labelled_texts, read_examples
from talking_heads.reading.text import read_text

from ..data import shared_data

PAIRS = [
    ("who did the dog chase", "the dog chased a cat", "yes"),
    ("what did she eat", "she ate an apple", "yes"),
    ("where is it now", "nobody had seen the ball", "no"),
    ("why did they leave", "they left for New York", "yes"),
    ("is the old cat here", "it was not the same", "no"),
]


def written(tmp_path, rows, name="task.tsv"):
    path = tmp_path / name
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows), "utf-8")
    return path


def texts(path, **options):
    return [(x.text, x.pair, x.label) for x in read_examples(path, **options)]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("index question sentence label", lambda n, a, b, y: (n, a, b, y)),  # QNLI
        ("id qid1 qid2 question1 question2 is_duplicate", lambda n, a, b, y: (n, n, n, a, b, y)),  # QQP
        ("text text_pair label", lambda n, a, b, y: (a, b, y)),
        ("text text2 label", lambda n, a, b, y: (a, b, y)),
        ("label text1 text2", lambda n, a, b, y: (y, a, b)),
        ("Label Sentence1 Sentence2", lambda n, a, b, y: (y, a, b)),
        ("gold_label genre premise hypothesis", lambda n, a, b, y: (y, "fiction", a, b)),  # MNLI
        (
            "\ufeffQuality,#1 ID,#2 ID,#1 String,#2 String",
            lambda n, a, b, y: (y, 70 + n, 71 + n, a, b),
        ),  # MRPC
        ("pair_ID sentence_A sentence_B label", lambda n, a, b, y: (n, a, b, y)),
        (
            "pair_ID sentence_A sentence_B relatedness_score entailment_judgment",  # SICK
            lambda n, a, b, y: (n, a, b, 4.5, y),
        ),
    ],
)
def test_both_texts_of_a_pair_are_read(tmp_path, header, row):
    names = header.split("," if "," in header else " ")
    path = written(tmp_path, [names, *(row(n, *x) for n, x in enumerate(PAIRS))])
    assert texts(path) == PAIRS


def test_pairs_as_objects_and_without_a_header(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"question": a, "sentence": b, "label": y == "yes", "idx": n} for n, (a, b, y) in enumerate(PAIRS)
    ]
    for content in ("".join(json.dumps(x) + "\n" for x in rows), json.dumps(rows)):
        path.write_text(content)
        assert texts(path) == [(a, b, "true" if y == "yes" else "false") for a, b, y in PAIRS]
    assert texts(written(tmp_path, [(n, y, a, b) for n, (a, b, y) in enumerate(PAIRS)])) == PAIRS
    assert texts(written(tmp_path, [(a, b, y) for a, b, y in PAIRS])) == PAIRS
    assert labelled_texts(tmp_path / "task.tsv")[0] == ("yes", f"{PAIRS[0][0]} || {PAIRS[0][1]}")


@pytest.mark.parametrize("name", ["task.tsv", "task.csv", "task.txt"])
@pytest.mark.parametrize("header", [("review", "sentiment"), ("sentiment", "review"), None], ids=str)
@pytest.mark.parametrize("label_first", [True, False])
def test_the_order_of_columns_does_not_matter(tmp_path, header, label_first, name):
    if header:
        label_first = header[0] == "sentiment"
    rows = [(y, a) if label_first else (a, y) for a, _, y in PAIRS]
    path = tmp_path / name
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="," if name.endswith("csv") else "\t")
        writer.writerows([header, *rows] if header else rows)
    assert [(x.label, x.text) for x in read_examples(path)] == [(y, a) for a, _, y in PAIRS]


def test_commas_in_a_text_file_and_semicolons_in_a_table(tmp_path):
    (tmp_path / "a.txt").write_text('text,label\n"one, two",x\nthree,y\n')
    assert texts(tmp_path / "a.txt") == [("one, two", None, "x"), ("three", None, "y")]
    (tmp_path / "b.csv").write_text("label;sentence\nx;one, two\ny;three\n")
    assert texts(tmp_path / "b.csv") == [("one, two", None, "x"), ("three", None, "y")]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(f"a long text {n}", f"another long text {n}") for n in range(30)], "which column is the label"),
        ([(f"a long text {n}", f"label{n}") for n in range(30)], "which column is the label"),
        ([(f"a long text {n % 7}", f"label{n}") for n in range(3000)], "which column is the label"),
        ([("comment", "mood"), *((f"a long text {n}", n % 2) for n in range(30))], "known label column"),
        ([("col1", "col2"), *((f"a long text {n}", n % 2) for n in range(30))], "header must name"),
        ([("col1", "col2"), *((f"a long text {n}", "xy"[n % 2]) for n in range(30))], "header must name"),
        (
            [
                ("sentence", "reply", "label"),
                *((f"a long text {n}", f"no such thing {n}", n % 2) for n in range(9)),
            ],
            "one column of texts.*another, 'reply'.*--pair none",
        ),
        ([("sentence", "Sentence", "label"), ("one", "two", 1)], "must differ"),
        (
            [
                (f"{first} man walks by {n}",)
                for n, first in enumerate(["A", "The", "Some"] * 5 + [*"abcdefghijk"])
            ],
            "first words",
        ),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_cannot_be_told_is_refused(tmp_path, rows, said):
    with pytest.raises(UserError, match=said) as refusal:
        labelled_texts(written(tmp_path, rows))
    assert "; got " in str(refusal.value) and "\n" not in str(refusal.value)


def test_columns_named_by_the_user(tmp_path):
    rows = [(a, b, y) for a, b, y in PAIRS]
    path = written(tmp_path, [("sentence", "reply", "label"), *rows])
    assert texts(path, pair="reply") == texts(path, text="sentence", pair="Reply") == rows
    assert texts(path, pair="none") == texts(path, text="sentence") == [(a, None, y) for a, _, y in rows]
    path = written(tmp_path, [("question1", "question2", "gold"), *rows])
    assert texts(path, label="gold") == texts(path, text="question1", label="gold") == rows
    with pytest.raises(UserError, match="pair column 'other'"):
        read_examples(path, label="gold", pair="other")


def test_more_labels_than_a_classification_has(tmp_path):
    path = written(tmp_path, [("text", "label"), *((f"text {n}", f"answer {n}") for n in range(400))])
    assert len(read_examples(path)) == 400  # an encoder-decoder's target texts
    with pytest.raises(UserError, match="labels must repeat, and be at most 300"):
        labelled_texts(path)


def test_labels_of_a_second_file_tell_its_columns(tmp_path):
    path = written(tmp_path, [("one", "good"), ("two", "bad"), ("three", "fine")])
    assert labelled_texts(path, classes=["good", "bad", "fine"])[2] == ("fine", "three")


def test_label_numbers():
    config = transformers.BertConfig(num_labels=2)
    for name in ("1", "1.0", "true", "True", "LABEL_1", "label_1"):
        assert label_number(name, config) == 1
    for name in ("2", "-1", "0.5", "nan", "maybe", ""):
        with pytest.raises(UserError, match="must be the model's"):
            label_number(name, config)


def test_objects_that_lack_a_text_or_a_label(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(
        '{"text": "a", "label": 1.0}\n{"text": "b", "label": null}\n{"text": "c", "label": false}\n'
    )
    assert texts(path) == [("a", None, "1"), ("c", None, "false")]
    for line, said in (
        ('{"label": 1}', "must have a text 'text'"),
        ('{"text": "a", "label": [1]}', "word or a number"),
    ):
        path.write_text('{"text": "a", "label": 1}\n' + line + "\n")
        with pytest.raises(UserError, match=f"{said}.*x.jsonl:2"):
            read_examples(path)


LAYOUTS = {
    "glue/SST-2/dev.tsv": (872, 2, False),
    "glue/CoLA/in_domain_dev.tsv": (527, 2, False),
    "glue/MRPC/msr_paraphrase_test.txt.gz": (1725, 2, True),
    "glue/STS-B/dev.tsv.gz": (1500, 161, True),
    "glue/QNLI/dev.tsv.gz": (5463, 2, True),
    "glue/RTE/dev.tsv": (277, 2, True),
    "glue/WNLI/dev.tsv": (71, 2, True),
    "glue/MNLI-TaxiNLI/taxinli10k.tsv.gz": (10071, 3, True),
    "cls/TREC.test.all": (500, 6, False),
    "cls/stsa.fine.test": (2210, 5, False),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_common_data_sets(name):
    found = read_examples(shared_data() / name)
    labels = {x.label for x in found}
    assert (len(found), len(labels), found[0].pair is not None) == LAYOUTS[name]
    assert all(x.text and (x.pair is None or x.pair) for x in found)


def test_old_encodings_are_read_with_a_warning(tmp_path):
    path = tmp_path / "old.txt"
    path.write_bytes("1 a sister\xf0city with Los Angeles\n0 another\n1 fine\n".encode("latin-1"))
    with pytest.warns(UserWarning, match="Windows-1252"):
        assert labelled_texts(path)[0] == ("1", "a sister\xf0city with Los Angeles")
    table = tmp_path / "table.tsv"
    table.write_bytes("sentence\tlabel\nthe caf\xe9\t1\n".encode("latin-1"))
    with pytest.raises(UserError, match="must be UTF-8"):
        labelled_texts(table)
    path.write_bytes("1 \u4f60\u597d\u4e16\u754c\n".encode("gbk") * 9)
    with pytest.raises(UserError, match="must be UTF-8"):
        labelled_texts(path)


@pytest.mark.parametrize("packed", [True, False])
def test_a_file_over_the_limit_is_refused_before_memory_runs_out(tmp_path, monkeypatch, packed):
    monkeypatch.setattr(reading_text, "limit", 2**20)
    path = tmp_path / "bomb.gz"
    path.write_bytes((gzip.compress if packed else bytes)(b"word label\n" * 2**19))
    with pytest.raises(UserError, match=r"at most 0.000976562 GiB.*bomb.gz; .*--max-text-gib"):
        read_text(path)


@pytest.mark.parametrize(
    "data", [b"PK\x03\x04\x80 a\0b\t1\n", "a\t1\nb\t0\n".encode("utf-16")], ids=["archive", "UTF-16"]
)
def test_what_is_no_text_is_refused_without_a_guess_before(data, tmp_path, recwarn):
    (tmp_path / "a.tsv").write_bytes(data)
    with pytest.raises(UserError, match="text must be UTF-8"):
        read_examples(tmp_path / "a.tsv")
    assert not recwarn.list
