"""Real text: what a word tells, what is attended to, and the order in which words are."""

import json

import pytest
import torch

from talking_heads.dynamics import text as real_text
from talking_heads.dynamics.report import write_report
from talking_heads.dynamics.text import OnText
from talking_heads.dynamics.words import attended, holding, read, words_of
from talking_heads.errors import UserError

from ..data import shared_data

TRAIN = """1 a good , GOOD film
0 a bad film
1 good
0 it 's dull ; a film !
1 a film
"""


def lines(tmp_path, name: str, text: str):
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.fixture
def small(tmp_path):
    return read(
        lines(tmp_path, "train", TRAIN),
        lines(tmp_path, "dev", "1 good\n"),
        lines(tmp_path, "test", "0 unseen\n0 bad stuff\n"),
    )


def test_words_of_a_sentence():
    assert words_of("It 's n't  Crème-brûlée , 3 !") == ["it", "s", "nt", "crèmebrûlée", "3"]


def test_vocabulary_is_trainings_alone(small):
    assert small.vocabulary == ["a", "good", "film", "bad", "it", "s", "dull"]
    assert small.unknown == {"dev": 0, "test": 1}
    assert small.test.counts.to_dense().tolist() == [[0, 0, 0, 1, 0, 0, 0]]
    assert small.train.counts.to_dense()[0].tolist() == [1, 2, 1, 0, 0, 0, 0]  # no padding, repeats count


def test_occurrence_purity_and_others(small):
    place = {word: i for i, word in enumerate(small.vocabulary)}
    assert small.occurrence[place["a"]] == 4 and small.occurrence[place["good"]] == 2
    assert small.purity[place["good"]] == small.purity[place["bad"]] == 1
    assert small.purity[place["a"]] == 0 and small.purity[place["film"]] == 0
    assert small.others[place["good"]] == (4 + 1) / 2 - 1
    assert small.others[place["a"]] == (4 + 3 + 5 + 2) / 4 - 1


@pytest.mark.parametrize("part", ["train", "dev", "test"])
@pytest.mark.parametrize("change", [("1 good", "0 good"), ("1 good", "1 fine")])
def test_changed_data_are_not_answered_with_old_results(tmp_path, part, change):
    held = {"train": TRAIN, "dev": "1 good\n0 bad\n", "test": "1 good\n0 film\n"}

    def ask():
        paths = [lines(tmp_path, name, text) for name, text in held.items()]
        return real_text.run(OnText(classifiers=("fixed",), epochs=1), *paths, tmp_path / "out")

    assert ask()["text"] == ask()["text"]
    held[part] = held[part].replace(*change)
    with pytest.raises(UserError, match="differ in text"):
        ask()


def test_a_scarce_label_stays_in_training(tmp_path):
    rows = [f"{i % 2} word number {i}" for i in range(40)]
    for place in range(0, 40, 3):
        path = lines(tmp_path, "train", "\n".join([*rows[:place], "rare word", *rows[place:]]))
        text = read(path, None, None)
        assert text.classes == ["0", "1", "rare"] and 2 in text.train.labels
        assert [len(part.labels) for part in (text.train, text.dev, text.test)] == [35, 3, 3]


def test_a_text_too_small_to_hold_lines_out_is_said(tmp_path):
    path = lines(tmp_path, "train", "0 a\n1 a\n1 b\n")
    with pytest.raises(UserError, match=r"hold out .* 3 lines with 2 labels"):
        read(path, None, None)


def test_a_text_without_frequent_words_has_a_report(tmp_path):
    path = lines(tmp_path, "train", "1 a good film\n0 a bad film\n" * 4)
    settings = OnText(classifiers=("fixed",), epochs=3, embedding_size=4)
    results = real_text.run(settings, path, None, None, tmp_path / "out")
    assert results["curves"][0]["rank"]["words"] < 2
    write_report(tmp_path / "out", results)
    assert (tmp_path / "out" / "report.html").exists() and not (tmp_path / "out" / "ranks.png").exists()


def test_purity_of_three_classes(tmp_path):
    text = read(lines(tmp_path, "train", "a x y\nb x\nc x y\nc y y\n" * 5), None, None)
    for word in ("x", "y"):
        place = text.vocabulary.index(word)
        rows = holding(text.train, place)
        counts = text.train.labels[rows].bincount(minlength=3)
        assert text.purity[place] == pytest.approx((3 * counts.max() / counts.sum() - 1) / 2)


def test_the_most_attended_word_of_each_sentence(small):
    score = torch.tensor([0.0, 2.0, 1.0, 5.0, -1.0, -2.0, 0.5])
    words = [small.vocabulary[word] for word in attended(small.train, score)]
    assert words == ["good", "bad", "good", "film", "film"]


@pytest.mark.parametrize(
    ("train", "dev", "said"),
    [
        ("1 good\n1 fine\n0\n", "1 good\n", "train:3"),
        ("1 good\n1 fine\n", "1 good\n", "two labels"),
        ("1 good\n0 bad\n", "2 good\n", "labels of dev"),
        ("1 good\n0 bad\n", "1 other\n", "dev must have words"),
    ],
)
def test_mistakes_are_said_in_one_line(tmp_path, train, dev, said):
    with pytest.raises(UserError, match=said):
        read(
            lines(tmp_path, "train", train), lines(tmp_path, "dev", dev), lines(tmp_path, "test", "1 good\n")
        )


@pytest.fixture(scope="module")
def sst(tmp_path_factory):
    """A first stretch of training on real sentences: 1,500 of SST-2."""
    import gzip

    folder = shared_data() / "cls"
    out = tmp_path_factory.mktemp("sst")
    rows = gzip.decompress((folder / "stsa.binary.train.gz").read_bytes()).decode().splitlines()
    train = out / "train"
    train.write_text("\n".join(rows[::4][:1500]))
    settings = OnText(
        classifiers=("fixed",), epochs=300, rate=0.5, embedding_size=50, trace=("bad", "performances")
    )
    return real_text.run(
        settings, train, folder / "stsa.binary.dev", folder / "stsa.binary.test", out / "out"
    ), out


def test_frequent_words_first_then_pure_ones(sst):
    (run,) = sst[0]["curves"]
    occurrence, purity = run["attended"]["occurrence"][1:], run["attended"]["purity"][1:]
    peak = max(range(len(occurrence)), key=lambda point: occurrence[point])
    assert peak < len(occurrence) / 3
    assert occurrence[-1] < occurrence[peak] / 3 and purity[-1] > 1.5 * purity[peak]
    assert run["test_accuracy"][-1] > 0.6 > run["test_accuracy"][0]
    ranks = [x for x in run["rank"]["purity"] if x is not None]
    assert ranks[-1] > ranks[0] + 0.1


def test_traced_words_come_first_and_are_followed(sst):
    (run,) = sst[0]["curves"]
    assert run["words"][:2] == ["bad", "performances"] and set(run["traced"]) == {"bad", "performances"}
    points = len(run["epoch"])
    assert len(run["score"]) == len(run["embedding_norm"]) == points == len(run["traced"]["bad"]["itself"])
    assert all(len(row) == len(run["words"]) for row in run["score"])
    sentences = [words_of(line.partition(" ")[2]) for line in (sst[1] / "train").read_text().splitlines()]
    assert run["m"] == pytest.approx(sum(map(len, sentences)) / len(sentences) - 1, rel=1e-3)


def test_its_report(sst, tmp_path):
    write_report(tmp_path, sst[0])
    drawn = {path.stem for path in tmp_path.glob("*.png")}
    assert drawn >= {"attended", "traced", "ranks", "scores", "identity", "losses"}
    json.dumps(sst[0], allow_nan=False)
