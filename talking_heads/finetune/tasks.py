"""The tasks: their labels, where their files lie, their metrics, and the format in which GLUE takes predictions.

A text-to-text model reads T5's prompts (Raffel et al. 2020, appendix D) and writes a label's name.
"""

from dataclasses import dataclass

from ..errors import UserError


@dataclass(frozen=True)
class TextTask:
    """Texts or pairs of texts and a label of each.

    Args:
        folder: its name among GLUE's folders. hub: (repository, config). labels: in the order of their numbers; none:
            a number from 0 to 5. fields: what T5's prompt calls the texts; two where texts come in pairs.
        metrics: the first one is the task's. names: whether GLUE takes its labels by name.
        other_genres: of MNLI what is judged and predicted is the mismatched part.
    """

    name: str
    folder: str
    hub: tuple[str, str]
    labels: tuple[str, ...]
    fields: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    names: bool = False
    other_genres: bool = False

    @property
    def is_pair(self) -> bool:
        return len(self.fields) == 2

    @property
    def is_regression(self) -> bool:
        return not self.labels


@dataclass(frozen=True)
class ChoiceTask:
    """A premise and two alternatives (COPA)."""

    name: str
    folder: str
    hub: tuple[str, str]
    labels: tuple[str, ...] = ("choice1", "choice2")
    metrics: tuple[str, ...] = ("accuracy",)


@dataclass(frozen=True)
class QuestionTask:
    """Questions about a text whose answers stand in it (SQuAD). may_be_empty: some have no answer."""

    name: str
    folder: str
    hub: tuple[str, str]
    may_be_empty: bool
    metrics: tuple[str, ...] = ("f1", "exact_match")


Task = TextTask | ChoiceTask | QuestionTask

_GLUE = "nyu-mll/glue"
_ENTAILS = ("entailment", "not_entailment")
_SENTENCES = ("sentence1", "sentence2")
_THREE = ("entailment", "neutral", "contradiction")
TASKS: dict[str, Task] = {
    x.name: x
    for x in (
        TextTask("sst2", "SST-2", (_GLUE, "sst2"), ("negative", "positive"), ("sentence",)),
        TextTask("cola", "CoLA", (_GLUE, "cola"), ("unacceptable", "acceptable"), ("sentence",), ("matthews",)),
        TextTask("mrpc", "MRPC", (_GLUE, "mrpc"), ("not_equivalent", "equivalent"), _SENTENCES, ("f1", "accuracy")),
        TextTask("stsb", "STS-B", (_GLUE, "stsb"), (), _SENTENCES, ("pearson", "spearman")),
        TextTask("rte", "RTE", (_GLUE, "rte"), _ENTAILS, _SENTENCES, names=True),
        TextTask("wnli", "WNLI", (_GLUE, "wnli"), ("not_entailment", "entailment"), _SENTENCES),
        TextTask("qnli", "QNLI", (_GLUE, "qnli"), _ENTAILS, ("question", "sentence"), names=True),
        TextTask("qqp", "QQP", (_GLUE, "qqp"), ("not_duplicate", "duplicate"), ("question1", "question2"), ("f1", "accuracy")),
        TextTask("mnli", "MNLI", (_GLUE, "mnli"), _THREE, ("premise", "hypothesis"), names=True),
        TextTask("mnlimm", "MNLI", (_GLUE, "mnli"), _THREE, ("premise", "hypothesis"), names=True, other_genres=True),
        ChoiceTask("copa", "COPA", ("aps/super_glue", "copa")),
        QuestionTask("squad", "SQuAD", ("rajpurkar/squad", ""), False),
        QuestionTask("squad2", "SQuAD", ("rajpurkar/squad_v2", ""), True),
    )
}  # fmt: skip
_OTHER_NAMES = {
    "squadv2": "squad2",
    "squad20": "squad2",
    "squad11": "squad",
    "squadv1": "squad",
    "squadv11": "squad",
}


def find(name: str) -> Task:
    """The task of this name; SST-2 is sst2, squad_v2 and SQuAD-2.0 are squad2.

    Raises:
        UserError: there is none.
    """
    plain = "".join(x for x in name.lower() if x.isalnum())
    plain = _OTHER_NAMES.get(plain, plain)
    if plain not in TASKS:
        raise UserError(f"a task must be one of {', '.join(TASKS)}", repr(name), "name one of them")
    return TASKS[plain]


def number_of(task: Task, label: str, where: str) -> float:
    """The number of a label as a file writes it: its name, its number, or of STS-B the similarity.

    Raises:
        UserError: a label outside the task's.
    """
    text = label.strip()
    if isinstance(task, TextTask) and task.is_regression:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 5:
            raise UserError(
                f"labels of {task.name} must be numbers from 0 to 5", f"{label!r} in {where}", "correct it"
            )
        return value
    labels = () if isinstance(task, QuestionTask) else task.labels
    same = text.lower().replace("-", "_").replace(" ", "_")
    if same in labels:
        return labels.index(same)
    if text.isascii() and text.isdecimal() and int(text) < len(labels):
        return int(text)
    raise UserError(
        f"labels of {task.name} must be {', '.join(labels)} or 0 to {len(labels) - 1}",
        f"{label!r} in {where}",
        "correct it, or name the task that it is of",
    )
