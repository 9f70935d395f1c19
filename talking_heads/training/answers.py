"""Questions about a text: SQuAD's files, its exact match and F1, and answers as spans of tokens.

The metric is that of SQuAD 2.0 (Rajpurkar, Jia, Liang 2018), which is that of 1.1 where every question has an answer: both
texts without case, punctuation and articles; the best over a question's answers; the mean over questions, in percent.
"""

import json
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ..errors import UserError
from ..reading.text import read_text

LONGEST = 30  # tokens of an answer


@dataclass(frozen=True)
class Question:
    """A question, the text it is about, and its answers with their first characters; none: it has no answer."""

    id: str
    title: str
    question: str
    context: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]


def read_squad(path: Path) -> list[Question]:
    """The questions of a file in SQuAD's format, plain or gzip.

    Raises:
        UserError: another format; the place is named.
    """
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError):
        raise _wrong(path, "no JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("data"), list):
        raise _wrong(path, "no list 'data'")
    questions: list[Question] = []
    for article in found["data"]:
        for paragraph in _listed(article, "paragraphs", path):
            for row in _listed(paragraph, "qas", path):
                questions.append(_question(article, paragraph, row, path))
    if not questions:
        raise _wrong(path, "no question")
    return questions


def _listed(value: Any, name: str, path: Path) -> list[Any]:
    if not isinstance(value, dict) or not isinstance(value.get(name), list):
        raise _wrong(path, f"no list {name!r}")
    found: list[Any] = value[name]
    return found


def _question(article: Any, paragraph: Any, row: Any, path: Path) -> Question:
    context = paragraph.get("context")
    if not isinstance(context, str) or not isinstance(row, dict) or not isinstance(row.get("question"), str):
        raise _wrong(path, "a paragraph without 'context' or 'question'")
    name = str(row.get("id"))
    answers = [] if row.get("is_impossible") else row.get("answers", [])
    texts, starts = [], []
    for answer in answers:
        if not isinstance(answer, dict) or not isinstance(answer.get("text"), str):
            raise _wrong(path, f"an answer without 'text' to {name}")
        start = answer.get("answer_start", -1)
        if not isinstance(start, int) or context[start : start + len(answer["text"])] != answer["text"]:
            raise UserError(
                "an answer must stand in its context at answer_start",
                f"another text for question {name} in {path}",
                "correct the file",
            )
        texts.append(answer["text"])
        starts.append(start)
    return Question(
        name, str(article.get("title", "")), row["question"], context, tuple(texts), tuple(starts)
    )


def _wrong(path: Path, why: str) -> UserError:
    return UserError("a file of questions must have SQuAD's format", f"{why} in {path}", "name another file")


def normalised(text: str) -> str:
    """Lower case, without punctuation, articles and further white space."""
    kept = "".join(x for x in text.lower() if x not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def exact_match(answer: str, wanted: Sequence[str]) -> float:
    """1 if the answer is one of those wanted, else 0; no answer is ""."""
    return float(any(normalised(answer) == normalised(x) for x in _of_text(wanted)))


def f1(answer: str, wanted: Sequence[str]) -> float:
    """The best overlap in words with an answer that is wanted: harmonic mean of precision and recall."""
    return max(_overlap(normalised(answer).split(), normalised(x).split()) for x in _of_text(wanted))


def _of_text(wanted: Sequence[str]) -> list[str]:
    return [x for x in wanted if normalised(x)] or [""]


def _overlap(found: list[str], wanted: list[str]) -> float:
    if not found or not wanted:
        return float(found == wanted)
    same = sum((Counter(found) & Counter(wanted)).values())
    return 2 * same / (len(found) + len(wanted))


def squad_scores(answers: Mapping[str, str], questions: Sequence[Question]) -> dict[str, float]:
    """{"exact_match", "f1"} in percent over all questions; a question without an entry in `answers` counts 0.

    Where some questions have no answer also the two scores of those that have one, and the share of the others that were
    left unanswered.
    """
    rows = [(x, answers.get(x.id)) for x in questions]
    scored = [
        (bool(x.answers), *((exact_match(y, x.answers), f1(y, x.answers)) if y is not None else (0.0, 0.0)))
        for x, y in rows
    ]
    found = {"exact_match": 100 * fmean(x[1] for x in scored), "f1": 100 * fmean(x[2] for x in scored)}
    parts = {kind: [x for x in scored if x[0] == kind] for kind in (True, False)}
    if parts[True] and parts[False]:
        found["answered_exact_match"] = 100 * fmean(x[1] for x in parts[True])
        found["answered_f1"] = 100 * fmean(x[2] for x in parts[True])
        found["unanswerable_accuracy"] = 100 * fmean(x[1] for x in parts[False])
    return found


# Spans of tokens


@dataclass(frozen=True)
class Windows:
    """Questions with as much of their context as fits, in overlapping windows.

    rows: what a model reads. question: which question each row is of. offsets: the characters of each token of the
    context, None for other tokens. spans: first and last token of the answer, (0, 0) where the window has none.
    """

    rows: list[dict[str, list[int]]]
    question: list[int]
    offsets: list[list[tuple[int, int] | None]]
    spans: list[tuple[int, int]]


def windows(tokenizer: Any, questions: Sequence[Question], length: int, stride: int | None = None) -> Windows:
    """Args:
    tokenizer: a fast one. length: tokens of a window. stride: tokens that neighbours share; default a quarter.
    """
    found = tokenizer(
        [x.question.strip() for x in questions],
        [x.context for x in questions],
        truncation="only_second",
        max_length=length,
        stride=length // 4 if stride is None else stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    places = [int(x) for x in found.pop("overflow_to_sample_mapping")]
    characters = found.pop("offset_mapping")
    offsets, spans = [], []
    for i, place in enumerate(places):
        of = found.sequence_ids(i)
        mine = [tuple(x) if kind == 1 else None for x, kind in zip(characters[i], of, strict=True)]
        offsets.append(mine)
        spans.append(_span(mine, questions[place]))
    rows = [{name: found[name][i] for name in found} for i in range(len(places))]
    return Windows(rows, places, offsets, spans)


def _span(offsets: list[Any], question: Question) -> tuple[int, int]:
    """First and last token of the first answer; (0, 0) if it is not all in the window."""
    if not question.answers:
        return 0, 0
    start, end = question.starts[0], question.starts[0] + len(question.answers[0])
    inside = [i for i, x in enumerate(offsets) if x is not None and x[0] < end and x[1] > start]
    if not inside or offsets[inside[0]][0] > start or offsets[inside[-1]][1] < end:
        return 0, 0
    return inside[0], inside[-1]


def answers_of(
    questions: Sequence[Question],
    made: Windows,
    starts: Sequence[Sequence[float]],
    ends: Sequence[Sequence[float]],
    may_be_empty: bool,
) -> dict[str, str]:
    """{question's id: answer}: the span with the highest sum of a start's and an end's score over all windows.

    Args:
        starts, ends: scores of the tokens of each row. may_be_empty: "" where token 0 scores higher in every window
            than the best span (SQuAD 2.0).
    """
    best: dict[int, tuple[float, str]] = {}
    empty: dict[int, float] = {}
    for row, place in enumerate(made.question):
        score, first, last = _best(made.offsets[row], starts[row], ends[row])
        if first is not None and last is not None and score > best.get(place, (float("-inf"), ""))[0]:
            context = questions[place].context
            best[place] = score, context[first:last]
        none = starts[row][0] + ends[row][0]
        empty[place] = min(none, empty.get(place, float("inf")))
    found = {}
    for place, question in enumerate(questions):
        score, text = best.get(place, (float("-inf"), ""))
        found[question.id] = "" if may_be_empty and empty.get(place, float("-inf")) > score else text
    return found


def _best(offsets: list[Any], starts: Any, ends: Any) -> tuple[float, int | None, int | None]:
    """(score, first character, character behind the last) of a window's best span."""
    import numpy as np

    inside = [i for i, x in enumerate(offsets) if x is not None]
    if not inside:
        return float("-inf"), None, None
    low, high = inside[0], inside[-1] + 1
    a, b = np.asarray(starts[low:high], float), np.asarray(ends[low:high], float)
    total = a[:, None] + b[None]
    place = np.arange(high - low)
    reach = place[None] - place[:, None]
    total[(reach < 0) | (reach >= LONGEST)] = -np.inf
    i, j = np.unravel_index(int(total.argmax()), total.shape)
    return float(total[i, j]), offsets[low + int(i)][0], offsets[low + int(j)][1]


# Floors


def floors(train: Sequence[Question], judged: Sequence[Question]) -> dict[str, dict[str, float]]:
    """{"majority": scores of the answer most frequent in training ("" where that is none), "bag_of_words": of the sentence
    that shares most words with the question}."""
    common = Counter(normalised(x.answers[0]) if x.answers else "" for x in train).most_common(1)[0][0]
    return {
        "majority": squad_scores({x.id: common for x in judged}, judged),
        "bag_of_words": squad_scores({x.id: _sentence(x) for x in judged}, judged),
    }


def _sentence(question: Question) -> str:
    words = set(normalised(question.question).split())
    sentences = re.split(r"(?<=[.!?])\s+", question.context)
    return max(sentences, key=lambda x: len(words & set(normalised(x).split())))
