"""Tasks' files: the layouts people have, the hub, what is refused."""

import json

import pytest

from talking_heads.errors import UserError
from talking_heads.finetune.data import read_splits
from talking_heads.finetune.tasks import TASKS, find
from talking_heads.finetune.text_to_text import prompt

from ..data import shared_data
from .small import write_pairs

# (examples to learn from, to judge) of the files as they are: GLUE's own counts where the whole set is there
COUNTS = {
    "sst2": (67349, 872),
    "cola": (8551, 1043),
    "mrpc": (4076, 1725),
    "stsb": (5749, 1500),
    "rte": (2490, 277),
    "wnli": (634, 71),
    "copa": (500, 500),
}
DIVIDED = {"qnli": 5463, "qqp": 23497, "mnli": 10071, "mnlimm": 10071, "squad": 10570, "squad2": 11873}


@pytest.mark.parametrize("name", TASKS)
def test_layouts_that_people_have(name):
    splits = read_splits(
        find(name), str(shared_data() / ("glue" if name in COUNTS and name != "copa" else ""))
    )
    sizes = len(splits.train), len(splits.judged)
    if name in COUNTS:
        assert sizes == COUNTS[name]
    else:
        assert sum(sizes) == DIVIDED[name] and 0.12 < sizes[1] / sum(sizes) < 0.3
        key = "title" if name.startswith("squad") else "text"
        seen = {getattr(x, key) for x in splits.train}
        assert not seen & {getattr(x, key) for x in splits.judged}
    assert splits.digests()["train"]["examples"] == sizes[0]
    again = read_splits(find(name), str(shared_data()))  # the folder that holds it by name
    assert again.digests()["judged"]["sha256"] == splits.digests()["judged"]["sha256"]


def test_names_of_tasks():
    assert find("SST-2") is TASKS["sst2"] and find("squad_v2") is find("SQuAD-2.0") is TASKS["squad2"]
    assert find("SQuAD1.1") is TASKS["squad"] and find("STS-B") is TASKS["stsb"]
    with pytest.raises(UserError, match="a task must be one of sst2, cola"):
        find("race")


def test_a_test_file_is_read_without_labels(tmp_path):
    folder = write_pairs(tmp_path / "RTE")
    (folder / "test.tsv").write_text("index\tsentence1\tsentence2\n0\tOne.\tTwo.\n1\tThree.\tFour.\n")
    splits = read_splits(find("rte"), str(tmp_path))
    assert [(x.text, x.pair, x.label) for x in splits.test] == [
        ("One.", "Two.", None),
        ("Three.", "Four.", None),
    ]
    (folder / "test.tsv").write_text("index\tsentence\n0\tOne.\n")
    with pytest.raises(UserError, match=r"header with sentence1 and sentence2.*got index, sentence"):
        read_splits(find("rte"), str(tmp_path))


def test_mnli_has_two_parts_to_judge(tmp_path):
    row = "index\tsentence1\tsentence2\tgold_label\n0\t{} a\tb c\tneutral\n"
    for name in ("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched"):
        (tmp_path / f"{name}.tsv").write_text(row.format(name))
    for task, part in (("mnli", "matched"), ("MNLI-mm", "mismatched")):
        splits = read_splits(find(task), str(tmp_path))
        assert splits.judged[0].text == f"dev_{part} a" and splits.test[0].text == f"test_{part} a"
        assert prompt(find(task), splits.train[0]) == "mnli hypothesis: b c premise: train a"


def test_a_digest_names_the_exact_examples(tmp_path):
    folder = write_pairs(tmp_path / "RTE")
    before = read_splits(find("rte"), str(tmp_path)).digests()
    text = (folder / "dev.tsv").read_text()
    (folder / "dev.tsv").write_text(text.replace("number 3", "number 4"))
    after = read_splits(find("rte"), str(tmp_path)).digests()
    assert before["train"] == after["train"] and before["judged"]["sha256"] != after["judged"]["sha256"]


REFUSED = {
    "labels outside the set": ("rte", "sentence1\tsentence2\tlabel\na b\tc d\tmaybe\n", r"labels of rte must be entailment.*'maybe' in .*dev.tsv:2"),
    "a number outside the set": ("wnli", "sentence1\tsentence2\tlabel\na b\tc d\t2\n", "labels of wnli must be"),
    "similarity outside": ("stsb", "sentence1\tsentence2\tscore\na b\tc d\t7.5\n", "numbers from 0 to 5; got '7.5'"),
    "single texts for pairs": ("rte", "sentence\tlabel\na b c\t1\n", "rte must have columns sentence1 and sentence2; got single texts"),
    "pairs for single texts": ("sst2", "sentence1\tsentence2\tlabel\na b\tc d\t1\n", "sst2 must have one column sentence; got pairs"),
    "wrong columns": ("sst2", "alpha\tbeta\na\tb\n", "header|columns|label"),
    "a row cut off": ("rte", "sentence1\tsentence2\tlabel\na b\tc d\n", "3 columns; got 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_files_of_another_kind(name, tmp_path):
    task, text, said = REFUSED[name]
    for file in ("train.tsv", "dev.tsv"):
        (tmp_path / file).write_text(text)
    (tmp_path / "train.tsv").write_text(
        text if name != "labels outside the set" else text.replace("maybe", "entailment")
    )
    with pytest.raises(UserError, match=said) as refusal:
        read_splits(find(task), str(tmp_path))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no json", "no JSON"),
        ('{"data": 1}', "no list 'data'"),
        ('{"data": [{"paragraphs": [{"context": "a"}]}]}', "no list 'qas'"),
        ('{"data": []}', "no question"),
        (
            '{"data": [{"paragraphs": [{"context": "abc def", "qas": [{"id": 1, "question": "q",'
            ' "answers": [{"text": "def", "answer_start": 2}]}]}]}]}',
            "must stand in its context at answer_start",
        ),
        (
            '{"data": [{"paragraphs": [{"context": "abc", "qas": [{"id": 1, "question": "q", "is_impossible": true}]}]}]}',
            "name the task squad2",
        ),
    ],
)
def test_files_that_are_no_squad(text, said, tmp_path):
    (tmp_path / "dev-v1.1.json").write_text(text)
    with pytest.raises(UserError, match=said):
        read_splits(find("squad"), str(tmp_path))


def test_no_data(tmp_path, monkeypatch):
    (tmp_path / "a.md").write_text("x")
    with pytest.raises(UserError, match="must hold its files"):
        read_splits(find("rte"), str(tmp_path))
    with pytest.raises(UserError, match="got the file"):
        read_splits(find("rte"), str(tmp_path / "a.md"))


def test_the_hub(monkeypatch):
    """Columns and label numbers as the hub's data sets have them; -1: no label."""
    import datasets

    asked = []
    rows = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [0, 1], "idx": [0, 1]}
    held = {"train": rows, "validation": rows, "test": rows | {"label": [-1, -1]}}

    def load(name, config=None):
        asked.append((name, config))
        return datasets.DatasetDict({split: datasets.Dataset.from_dict(x) for split, x in held.items()})

    monkeypatch.setattr(datasets, "load_dataset", load)
    splits = read_splits(find("rte"), "nyu-mll/glue")
    assert asked == [("nyu-mll/glue", "rte")] and [x.label for x in splits.train] == [0, 1]
    assert [x.label for x in splits.test] == [None, None] and splits.sources[
        "judged"
    ] == "nyu-mll/glue, judged"
    with pytest.raises(UserError, match="sst2 must have columns sentence; got sentence1, sentence2"):
        read_splits(find("sst2"), "somebody/rte")
    held["train"] = rows | {"label": [0, 2]}
    with pytest.raises(UserError, match=r"labels of rte.*'2' in nyu-mll/glue:rte, train:1"):
        read_splits(find("rte"), "nyu-mll/glue:rte")
    monkeypatch.undo()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="must name a folder or a data set that can be read"):
        read_splits(find("rte"), "nobody/nothing-here")


def test_copa_as_superglue_has_it(tmp_path):
    row = {"premise": "It rained.", "choice1": "Wet.", "choice2": "Dry.", "question": "effect", "idx": 0}
    for name in ("train.jsonl", "val.jsonl"):
        (tmp_path / name).write_text(json.dumps(row | {"label": 1}) + "\n")
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    splits = read_splits(find("copa"), str(tmp_path))
    assert splits.train[0].choices == ("Wet.", "Dry.") and (splits.train[0].label, splits.test[0].label) == (
        1,
        None,
    )
    (tmp_path / "val.jsonl").write_text(json.dumps(row | {"question": "why", "label": 1}) + "\n")
    with pytest.raises(UserError, match="cause or effect"):
        read_splits(find("copa"), str(tmp_path))
