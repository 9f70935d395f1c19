"""Metrics against values worked by hand, and SQuAD's against another statement of its definition."""

import json
import math
import random
import re
import string

import pytest

from talking_heads.finetune.data import Example
from talking_heads.finetune.metrics import floors, scores
from talking_heads.finetune.submission import submission
from talking_heads.finetune.tasks import find
from talking_heads.training.answers import (
    Question,
    answers_of,
    exact_match,
    f1,
    normalised,
    squad_scores,
    windows,
)

from .small import tokenizer


def rows(*labels):
    return [Example("a", label=x) for x in labels]


def test_worked_values():
    """Wanted 1 1 0 0, found 1 0 0 0: one right of two positives, no false one."""
    judged, found = rows(1, 1, 0, 0), [1, 0, 0, 0]
    assert scores(find("sst2"), found, judged) == {"accuracy": 0.75}
    assert scores(find("mrpc"), found, judged) == pytest.approx({"f1": 2 / 3, "accuracy": 0.75})
    # (tp tn - fp fn) / sqrt((tp+fp)(tp+fn)(tn+fp)(tn+fn)) = (1*2 - 0*1) / sqrt(1*2*2*3)
    assert scores(find("cola"), found, judged) == pytest.approx({"matthews": 2 / math.sqrt(12)})
    # means 2 and 7/3; covariance 7, variances 14 and 26/3 (sums): 1, 5 -> by hand
    similar = scores(find("stsb"), [1.0, 2.0, 4.0], rows(0.0, 1.0, 5.0))
    x, y = [-2.0, -1.0, 3.0], [1 - 7 / 3, 2 - 7 / 3, 4 - 7 / 3]
    by_hand = sum(a * b for a, b in zip(x, y, strict=True)) / math.sqrt(
        sum(a * a for a in x) * sum(b * b for b in y)
    )
    assert similar == pytest.approx({"pearson": by_hand, "spearman": 1.0})
    # ranks 1 2 3 and 2 1 3: 1 - 6 * 2 / (3 * 8)
    assert scores(find("stsb"), [2.0, 1.0, 4.0], rows(0.0, 1.0, 5.0))["spearman"] == pytest.approx(0.5)
    assert all(map(math.isnan, scores(find("stsb"), [1.0, 1.0], rows(0.0, 1.0)).values()))
    assert scores(find("mnli"), [0, 1, 2, 2], rows(0, 1, 2, 0)) == {"accuracy": 0.75}


def test_floors_of_a_task_that_words_tell():
    train = [Example(f"{('bad', 'good')[i % 3 > 0]} film", label=int(i % 3 > 0)) for i in range(30)]
    found = floors(find("sst2"), train, train[:9])
    assert found == {"majority": {"accuracy": 6 / 9}, "bag_of_words": {"accuracy": 1.0}}
    choices = [
        Example("It fell.", None, ("wind blew", "sun shone")[:: (1, -1)[i % 2]], "cause", i % 2)
        for i in range(8)
    ]
    assert floors(find("copa"), choices, choices)["bag_of_words"] == {"accuracy": 1.0}


WORKED = [  # (answer, wanted, exact match, F1)
    ("the Denver Broncos", ["Denver Broncos"], 1, 1),
    ("Denver", ["Denver Broncos", "The Broncos of Denver"], 0, 2 / 3),
    ("in  1,066.", ["In 1066"], 1, 1),
    ("a an the", ["the"], 1, 1),  # both are nothing: as no answer
    ("", [], 1, 1),
    ("something", [], 0, 0),
    ("", ["something"], 0, 0),
    ("red red wine", ["red wine wine"], 0, 2 / 3),  # words count as often as they stand in both
    ("theatre", ["the atre"], 0, 0),
]


@pytest.mark.parametrize(("answer", "wanted", "exact", "overlap"), WORKED)
def test_squad_by_hand(answer, wanted, exact, overlap):
    assert exact_match(answer, wanted) == exact and f1(answer, wanted) == pytest.approx(overlap)


def stated_again(answer, wanted):
    """SQuAD's definition, word by word from its paper and not from this package."""

    def words(text):
        text = "".join(x.lower() for x in text)
        text = text.translate(str.maketrans("", "", string.punctuation))
        return [x for x in re.sub(r"(^|\b)(a|an|the)(\b|$)", " ", text).split() if x]

    wanted = [x for x in wanted if words(x)] or [""]
    exact = max(float(" ".join(words(answer)) == " ".join(words(x))) for x in wanted)
    best = 0.0
    for x in wanted:
        given, right = words(answer), words(x)
        if not given or not right:
            best = max(best, 1.0 if given == right else 0.0)
            continue
        left, shared = list(right), 0
        for word in given:
            if word in left:
                left.remove(word)
                shared += 1
        if shared:
            precision, recall = shared / len(given), shared / len(right)
            best = max(best, 2 * precision * recall / (precision + recall))
    return exact, best


def test_squad_is_its_definition_stated_again():
    draw = random.Random(0)
    pieces = ["the", "A", "an", "cat", "Cat's", "sat", ",", "mat.", "1,066", "—", "théâtre", " ", "an apple"]
    for _ in range(3000):
        text = lambda: " ".join(draw.choices(pieces, k=draw.randrange(5)))  # noqa: E731
        answer, wanted = text(), [text() for _ in range(draw.randrange(4))]
        assert (exact_match(answer, wanted), f1(answer, wanted)) == pytest.approx(
            stated_again(answer, wanted)
        )


def question(i, *answers, context="The cat sat on the mat. It was a red mat, the cat said. Dogs bark."):
    return Question(str(i), "t", "What sat?", context, answers, tuple(context.index(x) for x in answers))


def test_squad_scores_are_means_in_percent_and_say_what_has_no_answer():
    judged = [question(0, "cat"), question(1, "mat", "red mat"), question(2)]
    found = squad_scores({"0": "cat", "1": "the red mat, indeed", "2": "cat"}, judged)
    assert found["exact_match"] == pytest.approx(100 / 3) and found["f1"] == pytest.approx(
        100 * (1 + 0.8) / 3
    )
    assert found["answered_f1"] == pytest.approx(90) and found["unanswerable_accuracy"] == 0
    assert squad_scores({"0": "cat"}, judged[:2]) == {"exact_match": 50, "f1": 50}  # one was not answered


def test_windows_keep_every_answer_and_perfect_scores_give_it_back():
    long = " ".join(f"Sentence {i} tells of thing{i} and more." for i in range(30))
    asked = [question(0, "cat"), question(1, "red mat"), question(2), question(3, "thing27", context=long)]
    made = windows(tokenizer(), asked, 64)
    assert len(made.rows) > 6 and max(len(x["input_ids"]) for x in made.rows) <= 64
    starts, ends = ([[0.0] * len(x["input_ids"]) for x in made.rows] for _ in range(2))
    for row, (a, b) in enumerate(made.spans):
        starts[row][a], ends[row][b] = 5.0, 5.0
    found = answers_of(asked, made, starts, ends, may_be_empty=True)
    assert {x: y.strip() for x, y in found.items()} == {"0": "cat", "1": "red mat", "2": "", "3": "thing27"}
    assert answers_of(asked, made, starts, ends, may_be_empty=False)["2"]  # always something


def test_answers_end_behind_their_start_and_are_short():
    (asked,) = [question(0, "cat")]
    made = windows(tokenizer(), [asked], 64)
    count = len(made.rows[0]["input_ids"])
    inside = [i for i, x in enumerate(made.offsets[0]) if x]
    starts, ends = [0.0] * count, [0.0] * count
    starts[inside[-1]], ends[inside[0]] = 9.0, 9.0  # an end before its start
    found = answers_of([asked], made, [starts], [ends], False)["0"]
    assert found and len(normalised(found)) < len(asked.context)


def test_submissions_have_the_format_that_glue_takes():
    assert submission(find("sst2"), [1, 0]) == "index\tprediction\n0\t1\n1\t0\n"
    assert submission(find("rte"), [1, 0]) == "index\tprediction\n0\tnot_entailment\n1\tentailment\n"
    assert submission(find("mnli"), [2]) == "index\tprediction\n0\tcontradiction\n"
    assert submission(find("stsb"), [5.7, -1, 2.34567]) == "index\tprediction\n0\t5.000\n1\t0.000\n2\t2.346\n"
    assert submission(find("wnli"), [1]) == "index\tprediction\n0\t1\n"
    assert [json.loads(x) for x in submission(find("copa"), [1, 0]).splitlines()] == [
        {"idx": 0, "label": 1},
        {"idx": 1, "label": 0},
    ]
    assert json.loads(submission(find("squad"), {"a": "é"})) == {"a": "é"}
