"""Which columns of a table are the texts and which is the label: by their names, or by what they hold."""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

MOST_LABELS = 300  # a column with more distinct values holds no classes
FEW_ROWS = 20  # from here on a label that was not named must occur twice on average

# Known names, compared without case, spaces and punctuation. Of several the first counts.
_PAIRS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("prem", "hyp"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("query", "passage"),
    ("query", "document"),
    ("claim", "evidence"),
    ("text", "textpair"),
    ("sentence", "sentencepair"),
    ("text1", "text2"),
    ("text", "text2"),
    ("sentence", "sentence2"),
    ("texta", "textb"),
    ("sentencea", "sentenceb"),
    ("string1", "string2"),
    ("1string", "2string"),
    ("sent1", "sent2"),
    ("s1", "s2"),
    ("input1", "input2"),
    ("phrase1", "phrase2"),
    ("title", "description"),
    ("title", "content"),
    ("title", "text"),
    ("title", "review"),
)
_TEXTS = (
    *("sentence", "text", "source", "review", "reviewtext", "tweet", "comment", "commenttext", "content"),
    *("document", "utterance", "question", "query", "headline", "message", "sms", "phrase", "body"),
    *("abstract", "description", "passage", "premise", "title", "sentence1", "question1", "text1"),
)
_LABELS = (
    *("label", "goldlabel", "isduplicate", "target", "labels", "labeltext", "sentiment", "class"),
    *("classindex", "category", "quality", "score", "similarity", "similarityscore", "entailmentjudgment"),
    *("entailment", "relatednessscore", "rating", "stars", "polarity", "emotion", "intent", "topic"),
    *("airlinesentiment", "acceptability", "judgment", "answer", "duplicate", "y"),
)


@dataclass(frozen=True)
class Columns:
    """Places of the columns; None: there is none."""

    text: int | None
    pair: int | None
    label: int | None


def plain(name: str) -> str:
    """A column's name without case, spaces and punctuation: "#1 String" is "1string"."""
    return re.sub(r"[\W_]+", "", name.lower())


def named(header: Sequence[str]) -> Columns:
    """The columns whose names are known."""
    places: dict[str, int] = {}
    for place, name in enumerate(map(plain, header)):
        places.setdefault(name, place)
    label = next((places[x] for x in _LABELS if x in places), None)
    for first, second in _PAIRS:
        if first in places and second in places and label not in (places[first], places[second]):
            return Columns(places[first], places[second], label)
    text = next((places[x] for x in _TEXTS if x in places and places[x] != label), None)
    return Columns(text, None, label)


def partner(name: str, header: Sequence[str]) -> int | None:
    """The place of the column that makes a pair with the column `name`."""
    places = {plain(x): place for place, x in enumerate(header)}
    return next((places[b] for a, b in _PAIRS if a == plain(name) and b in places), None)


def is_header(row: Sequence[str]) -> bool:
    """Whether a first row names a text and a label."""
    found = named(row)
    return found.text is not None and found.label is not None


def names_text(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a first row is a header that names a text at least, not a row whose label happens to be such a name."""
    place = named(first).text
    if len(first) < 2 or place is None:
        return False
    again = any(row[place].strip() == first[place] for row in rows if len(row) == len(first))
    return is_header(first) or not (again or any(len(x.split()) > 3 for x in first))


def is_prose(values: Sequence[str]) -> bool:
    """Whether a column holds texts: several words each, not the same few in all rows."""
    return _words(values) >= 3 and len(set(values)) > min(len(values) / 10, MOST_LABELS)


def may_be_labels(values: Sequence[str]) -> bool:
    """Whether the values of a column that was not named can be classes: few, and they repeat."""
    counts, rows = Counter(values), len(values)
    if not all(values) or len(counts) > MOST_LABELS or _words(counts) >= 3:
        return False
    if rows < FEW_ROWS:
        return len(counts) < rows or rows <= 2
    # The first words of sentences repeat, too, but many of them occur once only.
    once = sum(count == 1 for count in counts.values())
    return 2 * len(counts) <= rows and (len(counts) <= 10 or 10 * once <= 3 * len(counts))


def by_content(rows: Sequence[Sequence[str]], classes: Collection[str] = ()) -> Columns | None:
    """Columns of rows of one length without a header; None where they cannot be told apart.

    Args:
        classes: the labels to expect, if known.
    """
    columns = [[x.strip() for x in column] for column in zip(*rows, strict=True)]
    count = len(columns)
    if count == 4 and set(columns[1]) <= {"0", "1"} and all(not re.search(r"\w", x) for x in columns[2]):
        return Columns(3, None, 1)  # CoLA: source, label, the author's mark, sentence
    known = [i for i, column in enumerate(columns) if 2 * sum(x in classes for x in column) >= len(rows)]
    found = known or [i for i, column in enumerate(columns) if may_be_labels(column)]
    if count == 2 and len(found) == 2:
        # Labels have one word and fewer values; else the documented order counts: label, text.
        spaced = [any(" " in x for x in columns[i]) for i in found]
        found = sorted(found, key=lambda i: (spaced[i], len(set(columns[i])), i))[:1]
    taken = set(found)
    texts = [i for i in range(count) if i not in taken and (count == 2 or is_prose(columns[i]))]
    taken |= set(texts)
    rest = [columns[i] for i in range(count) if i not in taken]
    if (
        len(found) != 1
        or not 1 <= len(texts) <= 2
        or not all(_is_number(x) for column in rest for x in column)
    ):
        return None
    return Columns(texts[0], texts[1] if len(texts) == 2 else None, found[0])


def may_be_header(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a first row of unknown words looks like names: no numbers, over a column of numbers or of labels."""
    if len(set(first)) < len(first) or any(len(x.split()) > 3 or _is_number(x) for x in first):
        return False
    columns = list(zip(*rows, strict=True))
    numbers = any(all(map(_is_number, column)) for column in columns)
    short = all(len(x.split()) <= 2 for x in first)
    prose = any(_words(column) >= 4 for column in columns)
    labels = any(
        x not in column and len(set(column)) * 2 <= len(column)
        for x, column in zip(first, columns, strict=True)
    )
    return numbers or (short and prose and labels)


def _words(values: Collection[str]) -> float:
    """Words of a value, on average."""
    return sum(len(x.split()) for x in values) / len(values)


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
