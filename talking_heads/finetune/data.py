"""A task's examples: from a local folder in one of the layouts that people have, or by a name on the hub."""

import hashlib
import json
import xml.etree.ElementTree as xml
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..reading.columns import named
from ..reading.labelled import read_examples
from ..reading.rows import read_rows
from ..reading.text import read_text
from ..training.answers import Question, read_squad
from .tasks import ChoiceTask, QuestionTask, Task, TextTask, number_of

# Names of files without .gz and in the order in which they count; several of one place are read together.
_TRAIN = (("train.tsv",), ("in_domain_train.tsv",), ("msr_paraphrase_train.txt",), ("train.jsonl",), ("copa-dev.xml",),
          ("train-v2.0.json", "train-v1.1.json"), ("train.json",), ("train.csv",))  # fmt: skip
_JUDGED = (("dev.tsv",), ("dev_matched.tsv",), ("in_domain_dev.tsv", "out_of_domain_dev.tsv"), ("msr_paraphrase_test.txt",),
           ("val.jsonl",), ("dev.jsonl",), ("validation.jsonl",), ("copa-test.xml",), ("dev-v2.0.json", "dev-v1.1.json"),
           ("dev.json",), ("dev.csv",), ("validation.csv",))  # fmt: skip
_TEST = (("test.tsv",), ("test_matched.tsv",), ("test.jsonl",), ("test.csv",))
_FIFTH = 5  # without a file of its own, every fifth group of examples is judged


@dataclass(frozen=True)
class Example:
    """One or two texts (of COPA a premise with its question, and both alternatives), and the label's number."""

    text: str
    pair: str | None = None
    choices: tuple[str, str] | None = None
    asks: str = ""  # COPA: cause or effect
    label: float | None = None


Row = Example | Question


@dataclass(frozen=True)
class Splits:
    """Examples to learn from, to judge, and (perhaps) to predict; sources: where each comes from."""

    train: list[Any]
    judged: list[Any]
    test: list[Any]
    sources: dict[str, str]

    def digests(self) -> dict[str, dict[str, Any]]:
        """{split: {"source", "examples", "sha256"}}."""
        parts = {"train": self.train, "judged": self.judged, "test": self.test}
        return {
            name: {"source": self.sources[name], "examples": len(rows), "sha256": _digest(rows)}
            for name, rows in parts.items()
            if rows
        }


def _digest(rows: Sequence[Any]) -> str:
    found = hashlib.sha256()
    for row in rows:
        found.update(json.dumps(asdict(row), sort_keys=True).encode() + b"\n")
    return found.hexdigest()


def read_splits(task: Task, data: str) -> Splits:
    """The task's examples from a folder (a task's own, or one that holds it under its GLUE name), or the hub.

    A folder with one file only is divided: examples with the same first text (questions of the same article) stay
    together, and about every fifth group is judged.

    Raises:
        UserError: no such folder or data set, files of another task.
    """
    return _local(task, Path(data)) if Path(data).exists() else _hub(task, data)


def _local(task: Task, root: Path) -> Splits:
    if not root.is_dir():
        raise UserError(
            "--data must name a folder or a data set on the hub", f"the file {root}", "name its folder"
        )
    folder = next((x for x in (root / task.folder, *_alike(task, root)) if x.is_dir()), root)
    train, judged, test = (_named(folder, names, task) for names in (_TRAIN, _JUDGED, _TEST))
    if not train or not judged:
        only = train or judged or _single(folder, task)
        rows = _read_all(task, only)
        parts = _divided(rows)
        said = ", ".join(path.name for path in only)
        sources = {"train": f"four fifths of {said}", "judged": f"a fifth of {said}"}
    else:
        parts = _read_all(task, train), _read_all(task, judged)
        sources = {
            name: ", ".join(x.name for x in paths) for name, paths in (("train", train), ("judged", judged))
        }
    unseen = [row for path in test for row in _unlabelled(task, path)]
    return Splits(*parts, unseen, sources | {"test": ", ".join(path.name for path in test)})


def _alike(task: Task, root: Path) -> list[Path]:
    """Folders under `root` that are the task's by their name: MNLI-TaxiNLI, squad, superglue/COPA."""
    inside = [x for x in sorted(root.iterdir()) if x.is_dir()]
    inside += [x for place in inside for x in sorted(place.iterdir()) if x.is_dir()]
    return [x for x in inside if x.name.lower().split("-v")[0].startswith(task.folder.lower())]


def _named(folder: Path, names: Sequence[Sequence[str]], task: Task) -> list[Path]:
    """The first group of files that the folder has, plain or gzip; of SQuAD's versions the task's own."""
    kinds = _kinds(task)
    for group in ([x for x in group if x.endswith(kinds)] for group in names):
        group = [_of(task, x) for x in group]
        if isinstance(task, QuestionTask) and len(group) == 2:
            group = group[:1] if task.may_be_empty else group[1:]
        found = [x for name in group for x in (folder / name, folder / f"{name}.gz") if x.is_file()]
        if found:
            return found
    return []


def _of(task: Task, name: str) -> str:
    """The name of a file or split of MNLI, of other genres where the task judges those."""
    is_other = isinstance(task, TextTask) and task.other_genres
    return name.replace("matched", "mismatched") if is_other else name


def _kinds(task: Task) -> tuple[str, ...]:
    """How names of the task's files end."""
    if isinstance(task, QuestionTask):
        return (".json",)
    return (
        (".xml", ".jsonl")
        if isinstance(task, ChoiceTask)
        else (".tsv", ".csv", ".jsonl", "_train.txt", "_test.txt")
    )


def _single(folder: Path, task: Task) -> list[Path]:
    """The one data file of a folder."""
    found = [x for x in sorted(folder.iterdir()) if x.name.removesuffix(".gz").endswith(_kinds(task))]
    if len(found) != 1:
        said = ", ".join(x.name for x in found) or "none"
        raise UserError(
            f"a folder of {task.name} must hold its files ({_TRAIN[0][0]} and {_JUDGED[0][0]}, or one to divide)",
            f"{said} in {folder}",
            "name another with --data",
        )
    return found


def _divided(rows: list[Any]) -> tuple[list[Any], list[Any]]:
    parts: tuple[list[Any], list[Any]] = ([], [])
    for row in rows:
        group = row.title or row.context if isinstance(row, Question) else row.text
        parts[hashlib.sha256(group.encode()).digest()[0] % _FIFTH == 0].append(row)
    if not all(parts):  # few groups
        return rows[: -max(1, len(rows) // _FIFTH)], rows[-max(1, len(rows) // _FIFTH) :]
    return parts


def _read_all(task: Task, paths: Sequence[Path]) -> list[Any]:
    return [row for path in paths for row in _read(task, path)]


def _read(task: Task, path: Path) -> list[Any]:
    if isinstance(task, QuestionTask):
        found = read_squad(path)
        if not task.may_be_empty and any(not x.answers for x in found):
            raise UserError(
                "questions of squad must have answers", f"one without in {path}", "name the task squad2"
            )
        return found
    if isinstance(task, ChoiceTask):
        return _copa_xml(path) if ".xml" in path.name else _copa_json(task, path)
    return _texts(task, path)


def _texts(task: TextTask, path: Path) -> list[Example]:
    labels = (*task.labels, *map(str, range(len(task.labels))))
    found = []
    for row in read_examples(path, classes=labels):
        if (row.pair is not None) != task.is_pair:
            have = "pairs of texts" if row.pair is not None else "single texts"
            want = f"columns {' and '.join(task.fields)}" if task.is_pair else f"one column {task.fields[0]}"
            raise UserError(
                f"{task.name} must have {want}", f"{have} in {path}", "name the task that it is of"
            )
        label = number_of(task, row.label, f"{path}:{row.line}")
        found.append(Example(row.text, row.pair, label=label))
    return found


def _unlabelled(task: Task, path: Path) -> list[Any]:
    """The texts of a file to predict, in its order; a label column is not looked at."""
    if isinstance(task, QuestionTask):
        return read_squad(path)
    if isinstance(task, ChoiceTask):
        return _copa_json(task, path, labelled=False)
    rows = read_rows(path, lambda row: named(row).text is not None)
    if rows.objects is not None:
        header = list(dict.fromkeys(name for _, row in rows.objects for name in row))
        body = [[str(row.get(name, "")) for name in header] for _, row in rows.objects]
    else:
        header, body = [x.strip() for x in rows.columns[0][1]], [row for _, row in rows.columns[1:]]
    places = named(header)
    if (
        places.text is None
        or (places.pair is not None) != task.is_pair
        or any(len(x) != len(header) for x in body)
    ):
        raise UserError(
            f"a file to predict must have a header with {' and '.join(task.fields)}, and rows of as many columns",
            f"{', '.join(header[:9])} in {path}",
            "correct its header",
        )
    pair = places.pair
    return [Example(row[places.text], None if pair is None else row[pair]) for row in body]


def _copa_xml(path: Path) -> list[Example]:
    try:
        items = xml.fromstring(read_text(path)).findall("item")
    except xml.ParseError as problem:
        raise UserError("a file of COPA must be XML", f"{problem} in {path}", "name another file") from None
    found = []
    for item in items:
        texts = [item.findtext(name) for name in ("p", "a1", "a2")]
        asks, right = item.get("asks-for", ""), item.get("most-plausible-alternative", "")
        if None in texts or asks not in ("cause", "effect") or right not in ("1", "2"):
            raise _no_copa(path, f"item {item.get('id')}")
        premise, *choices = (str(x) for x in texts)
        found.append(Example(premise, None, (choices[0], choices[1]), asks, int(right) - 1))
    if not found:
        raise _no_copa(path, "no item")
    return found


def _copa_json(task: ChoiceTask, path: Path, labelled: bool = True) -> list[Example]:
    rows = read_rows(path, lambda row: False).objects
    found = []
    for line, row in rows or []:
        texts = [row.get(name) for name in ("premise", "choice1", "choice2", "question")]
        if not all(isinstance(x, str) for x in texts) or texts[3] not in ("cause", "effect"):
            raise _no_copa(path, f"line {line}")
        label = number_of(task, str(row.get("label")), f"{path}:{line}") if labelled else None
        found.append(Example(str(texts[0]), None, (str(texts[1]), str(texts[2])), str(texts[3]), label))
    if not found:
        raise _no_copa(path, "no line of JSON")
    return found


def _no_copa(path: Path, what: str) -> UserError:
    return UserError(
        "an example of COPA must have a premise, two alternatives, cause or effect, and the right one",
        f"{what} of {path}",
        "correct the file",
    )


# The hub


def _hub(task: Task, name: str) -> Splits:
    import datasets

    repository, _, config = name.partition(":")
    config = config or (task.hub[1] if repository in (task.hub[0], task.hub[0].partition("/")[2]) else "")
    found: dict[str, list[Any]] = {}
    try:
        held = datasets.load_dataset(repository, config or None)
        for split in held:
            found[split] = _of_hub(task, list(held[split]), f"{name}, {split}", split.startswith("test"))
    except UserError:
        raise
    except Exception as problem:  # datasets raises many kinds: no network, no such name, a broken file
        raise UserError(
            "--data must name a folder or a data set that can be read",
            f"{name}: {type(problem).__name__}: {' '.join(str(problem).split())[:160]}",
            "check its name and the network",
        ) from None
    train = found.get("train", [])
    judged = next(
        (found[x] for x in ("validation", _of(task, "validation_matched"), "dev") if found.get(x)), []
    )
    test = next((found[x] for x in ("test", _of(task, "test_matched")) if found.get(x)), [])
    if not train or not judged:
        train, judged = _divided(train or judged)
    sources = {part: f"{name}, {part}" for part in ("train", "judged", "test")}
    return Splits(train, judged, test, sources)


def _of_hub(task: Task, rows: list[dict[str, Any]], where: str, unlabelled: bool) -> list[Any]:
    if isinstance(task, QuestionTask):
        columns: tuple[str, ...] = ("id", "context", "question", "answers")
    elif isinstance(task, ChoiceTask):
        columns = ("premise", "choice1", "choice2", "question")
    else:
        columns = task.fields
    lacking = [x for x in columns if rows and x not in rows[0]]
    if lacking:
        raise UserError(
            f"{task.name} must have columns {', '.join(columns)}",
            f"{', '.join(rows[0])} in {where}",
            "name another data set",
        )
    return [_hub_row(task, row, f"{where}:{i}", unlabelled) for i, row in enumerate(rows)]


def _hub_row(task: Task, row: dict[str, Any], where: str, unlabelled: bool) -> Any:
    if isinstance(task, QuestionTask):
        answers = row["answers"]
        return Question(
            row["id"], row.get("title", ""), row["question"], row["context"],
            tuple(answers["text"]), tuple(answers["answer_start"]),
        )  # fmt: skip
    given = row.get("label")
    label = None if unlabelled or given in (None, -1) else number_of(task, str(given), where)
    if label is None and not unlabelled:
        raise UserError(
            "examples to learn from must have labels", f"none in {where}", "name another data set"
        )
    if isinstance(task, ChoiceTask):
        return Example(row["premise"], None, (row["choice1"], row["choice2"]), row["question"], label)
    texts = [row[name] for name in task.fields]
    return Example(texts[0], texts[1] if len(texts) > 1 else None, label=label)
