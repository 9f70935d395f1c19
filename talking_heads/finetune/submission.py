"""Predictions in the format that GLUE, SuperGLUE and SQuAD take."""

import json
from typing import Any

from .tasks import ChoiceTask, QuestionTask, Task


def submission(task: Task, found: Any) -> str:
    """GLUE: lines "index<tab>prediction" below a header; labels by name or number as GLUE has them for the task,
    similarities with three digits. SuperGLUE: JSON lines {"idx", "label"}. SQuAD: JSON {question's id: answer}."""
    if isinstance(task, QuestionTask):
        return json.dumps(found, ensure_ascii=False, indent=1) + "\n"
    if isinstance(task, ChoiceTask):
        return "".join(json.dumps({"idx": i, "label": int(x)}) + "\n" for i, x in enumerate(found))
    if task.is_regression:
        values = [f"{min(5.0, max(0.0, x)):.3f}" for x in found]
    else:
        values = [task.labels[int(x)] if task.names else str(int(x)) for x in found]
    return "".join(f"{a}\t{b}\n" for a, b in (("index", "prediction"), *enumerate(values)))
