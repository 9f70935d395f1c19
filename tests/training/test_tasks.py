"""The classification that follows pre-training."""

import dataclasses
import gzip

import pytest

from talking_heads.errors import UserError
from talking_heads.reading.labelled import labelled_texts
from talking_heads.training.corpus import Corpus, Document, from_files, state_of_the_union
from talking_heads.training.tasks import choose_tasks
from talking_heads.training.tasks.classification import Classification, file_task, paragraph_task

from .small import write_texts


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return from_files(write_texts(tmp_path_factory.mktemp("texts")))


def test_paragraphs_come_from_documents_not_seen_in_pretraining(corpus):
    task = paragraph_task(corpus, "file", 1000)
    assert task.classes == ["early.txt", "late.txt"]
    seen = {p for part in (corpus.pretrain, corpus.held_out) for d in part for p in d.paragraphs}
    learnt, judged = {text for text, _ in task.train}, {text for text, _ in task.test}
    repeated = seen & (learnt | judged)  # a formula of the addresses may come twice
    assert len(repeated) < 0.02 * len(learnt | judged) and not learnt & judged
    label = {p: d.labels["file"] for d in corpus.transfer_test for p in d.paragraphs}
    assert all(task.classes[number] == label[text] for text, number in task.test)


def test_default_task_and_its_limits():
    corpus = state_of_the_union()
    (task,) = choose_tasks(corpus, [], 100)
    assert task.name == "era" and (len(task.train), len(task.test)) == (100, 50)
    assert choose_tasks(corpus, ["party"], 100)[0].classes == ["Democratic", "Republican"]
    assert choose_tasks(corpus, ["none"], 100) == []
    with pytest.raises(UserError, match=r"labels \(era, party\); got half"):
        choose_tasks(corpus, ["half"], 100)


def test_majority():
    assert Classification("x", ["a", "b"], [], [("", 0), ("", 1), ("", 1), ("", 1)]).majority == 0.75


def test_a_corpus_without_labels_or_with_one_class_has_no_task():
    plain = [Document("word " * 50)]
    assert choose_tasks(Corpus("x", plain, plain, plain, plain), [], 10) == []
    single = [Document("word " * 50, {"label": "only"})]
    assert paragraph_task(Corpus("x", single, single, single, single), None, 10) is None


def test_files_of_labelled_texts(tmp_path):
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    train.write_text("".join(f"{'good' if i % 2 else 'bad'} line {i}\n" for i in range(50)))
    test.write_text("bad one\n\ngood\ttwo\nunheard three\n")
    with pytest.raises(UserError, match=r"among those to learn \(bad, good\); got unheard in"):
        file_task(train, test, 30)
    test.write_text("bad one\n\ngood\ttwo\n")
    task = file_task(train, test, 30)
    assert task.classes == ["bad", "good"] and task.test == [("one", 0), ("two", 1)] and len(task.train) == 30
    assert all(int(text.split()[1]) % 2 == label for text, label in task.train)
    alone = file_task(train, None, 1000)
    assert (len(alone.train), len(alone.test)) == (40, 10)
    assert not {text for text, _ in alone.train} & {text for text, _ in alone.test}


def test_lines_end_where_an_editor_ends_them(tmp_path):
    path = tmp_path / "train.txt"
    path.write_bytes("1 a\u0085b\u2028c\r\n0 d\r1 e\n".encode("utf-8-sig"))
    assert labelled_texts(path) == [("1", "a\u0085b\u2028c"), ("0", "d"), ("1", "e")]


def test_a_damaged_archive_is_named(tmp_path):
    path = tmp_path / "train.gz"
    whole = gzip.compress(b"good one\nbad two\n" * 50)
    path.write_bytes(whole[:20] + b"\xff" * 30 + whole[50:])
    with pytest.raises(UserError, match="must be UTF-8"):
        labelled_texts(path)
    with pytest.raises(UserError, match="must exist"):
        labelled_texts(path / "below")


def test_a_task_is_named_by_its_examples(tmp_path):
    task = Classification("x", ["a", "b"], [("one", 0)], [("two", 1)])
    assert task.digest == dataclasses.replace(task, name="y").digest
    assert task.digest != dataclasses.replace(task, test=[("two", 0)]).digest


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("good one\ngood two\n", "two labels or more"),
        ("good one\nbad\n", "lines.txt:2"),
        ("", "must have text"),
    ],
    ids=["one label", "no text", "empty"],
)
def test_files_that_are_refused(text, said, tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as refusal:
        file_task(path, None, 10)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("train, test, enough", [(10, 4, True), (9, 4, False), (10, 3, False), (2, 1, False)])
def test_too_few_texts_are_refused(tmp_path, train, test, enough):
    paths = [tmp_path / "train.txt", tmp_path / "test.txt"]
    for path, count in zip(paths, (train, test), strict=True):
        path.write_text("".join(f"{'good' if i % 2 else 'bad'} line {i}\n" for i in range(count)))
    plain = [Document("word " * 50)]
    asked = Corpus("x", plain, plain, plain, plain), [",".join(map(str, paths))], 100
    if enough:
        assert [len(task.train) for task in choose_tasks(*asked)] == [train]
        return
    with pytest.raises(
        UserError, match=f"at least 10 texts to learn from and 4 to judge; got {train} and {test}"
    ):
        choose_tasks(*asked)


def test_questions_are_a_task_of_transfer(tmp_path):
    """Divided by article; a perfect model scores 1, and the floors are fractions."""
    import json

    import torch

    from talking_heads.training.objectives import find
    from talking_heads.training.settings import Settings
    from talking_heads.training.tokens import train_tokenizer

    from .small import addresses

    asked = lambda i: {"id": str(i), "question": "What sat?", "answers": [{"text": "cat", "answer_start": 4}]}  # noqa: E731
    paragraph = lambda i: {"context": f"The cat sat on mat {i}. Dogs bark.", "qas": [asked(i)]}  # noqa: E731
    squad = {"data": [{"title": f"t{i}", "paragraphs": [paragraph(i)]} for i in range(30)]}
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(squad))
    (task,) = choose_tasks(Corpus("x", [], [], [], []), [f"squad:{path}"], 100)
    assert (len(task.train), len(task.test)) == (24, 6) and not {x.title for x in task.train} & {
        x.title for x in task.test
    }
    about = task.about()
    assert about["majority"] == 1.0 and 0 < about["bag_of_words"] < 1
    tokenizer, settings = train_tokenizer([addresses(True)], 400), Settings(length=64)
    rows = task.examples(find("masked-lm"), tokenizer, settings)
    kept = rows[0]["input_ids"][rows[0]["start_positions"] : rows[0]["end_positions"] + 1]
    assert tokenizer.decode(kept).strip() == "cat"

    class Perfect(torch.nn.Linear):
        def forward(self, input_ids, attention_mask):
            answer = kept[0] == input_ids
            last = kept[-1] == input_ids

            class Found:
                start_logits, end_logits = answer.float(), last.float()

            return Found

    assert task.score(Perfect(1, 1), find("masked-lm"), tokenizer, settings) == 1.0
    one = {"data": squad["data"][:1]}
    path.write_text(json.dumps(one))
    with pytest.raises(UserError, match="two articles or more"):
        choose_tasks(Corpus("x", [], [], [], []), [f"squad:{path}"], 100)
