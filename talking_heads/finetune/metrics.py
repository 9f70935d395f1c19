"""What predictions are worth: the metrics of GLUE and SuperGLUE, by scikit-learn and scipy, and their floors."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from ..training import answers
from .data import Example
from .tasks import ChoiceTask, QuestionTask, Task, TextTask

Scores = dict[str, float]


def scores(task: Task, found: Any, judged: Sequence[Any]) -> Scores:
    """{metric: value} of predictions: label numbers, similarities, or {question's id: answer}.

    Accuracy, F1 (of label 1), Matthews' and the two correlations are fractions; SQuAD's are in percent as its own program
    prints them. A correlation with a constant is NaN.
    """
    if isinstance(task, QuestionTask):
        return answers.squad_scores(found, judged)
    wanted = [row.label for row in judged]
    return {name: _METRICS[name](wanted, list(found)) for name in task.metrics}


def _accuracy(wanted: list[float], found: list[float]) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(wanted, found))


def _f1(wanted: list[float], found: list[float]) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(wanted, found, zero_division=0.0))


def _matthews(wanted: list[float], found: list[float]) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(wanted, found))


def _pearson(wanted: list[float], found: list[float]) -> float:
    from scipy.stats import pearsonr

    return _defined(pearsonr, wanted, found)


def _spearman(wanted: list[float], found: list[float]) -> float:
    from scipy.stats import spearmanr

    return _defined(spearmanr, wanted, found)


def _defined(measure: Any, wanted: list[float], found: list[float]) -> float:
    if len(set(wanted)) < 2 or len(set(found)) < 2:
        return math.nan
    return float(measure(wanted, found).statistic)


_METRICS = {
    "accuracy": _accuracy,
    "f1": _f1,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}


def floors(task: Task, train: Sequence[Any], judged: Sequence[Any]) -> dict[str, Scores]:
    """{"majority", "bag_of_words"}: what trivial methods reach on the judged examples.

    The most frequent label (of similarities the mean); logistic regression on word counts, of pairs also on the words that
    both texts have (of similarities ridge regression). For SQuAD see `answers.floors`.
    """
    if isinstance(task, QuestionTask):
        return answers.floors(train, judged)
    labels = [row.label for row in train]
    common = fmean(labels) if _is_regression(task) else Counter(labels).most_common(1)[0][0]
    return {
        "majority": scores(task, [common] * len(judged), judged),
        "bag_of_words": scores(task, _by_words(task, train, judged), judged),
    }


def _is_regression(task: Task) -> bool:
    return isinstance(task, TextTask) and task.is_regression


def _by_words(task: Task, train: Sequence[Example], judged: Sequence[Example]) -> list[float]:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    counter = CountVectorizer(analyzer=_words)
    if isinstance(task, ChoiceTask):
        return _choices_by_words(counter, train, judged)
    known, new = counter.fit_transform(train), counter.transform(judged)
    labels = [row.label for row in train]
    if _is_regression(task):
        return [float(x) for x in Ridge().fit(known, labels).predict(new)]
    if len(set(labels)) < 2:
        return [float(labels[0] or 0)] * len(judged)
    model = LogisticRegression(max_iter=1000, random_state=0)
    return [float(x) for x in model.fit(known, labels).predict(new)]


def _words(row: Example) -> list[str]:
    first = row.text.lower().split()
    if row.pair is None:
        return first
    second = row.pair.lower().split()
    return [
        *(f"1 {x}" for x in first),
        *(f"2 {x}" for x in second),
        *(f"both {x}" for x in {*first} & {*second}),
    ]


def _choices_by_words(counter: Any, train: Sequence[Example], judged: Sequence[Example]) -> list[float]:
    """Logistic regression on the difference of the two alternatives' counts."""
    from sklearn.linear_model import LogisticRegression

    def alternatives(rows: Sequence[Example], place: int) -> list[Example]:
        return [Example(f"{row.asks} {row.text}", (row.choices or ("", ""))[place]) for row in rows]

    counter.fit([*alternatives(train, 0), *alternatives(train, 1)])
    known, new = (
        counter.transform(alternatives(rows, 1)) - counter.transform(alternatives(rows, 0))
        for rows in (train, judged)
    )
    model = LogisticRegression(max_iter=1000, random_state=0, fit_intercept=False)
    return [float(x) for x in model.fit(known, [row.label for row in train]).predict(new)]
