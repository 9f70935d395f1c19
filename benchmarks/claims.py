"""The claims of two abstracts on heads, one row each: what the paper says, what the figures here show.

    python benchmarks/claims.py > docs/evidence/claims.md

Runs nothing: reads docs/results/heads/*.json, whose commands docs/results.md names; those of fine-tuned models are
written by benchmarks/tuned.py.
"""

import json
import math
from pathlib import Path
from statistics import NormalDist, fmean
from typing import Any

from talking_heads.results.statistics import holm, paired_difference, rank_correlation, summary
from talking_heads.results.table import Row, Table, show

FOLDER = Path(__file__).parents[1] / "docs" / "results" / "heads"
LEAST = 100  # edges or phrases of a kind that is counted
HEADS = 72  # of MiniLM
LEVEL = 0.05
UPPER = ("encoder.4", "encoder.5")  # the upper third of 6 layers
SIMILARITY, INFERENCE = ("qqp", "stsb", "mrpc"), ("mnli", "rte")


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def p_of(difference: float, interval: list[float]) -> float:
    """Two-sided p of no difference, taking the bootstrap's 95 % interval for a normal one."""
    deviation = (interval[1] - interval[0]) / (2 * NormalDist().inv_cdf(0.975))
    return 2 * NormalDist().cdf(-abs(difference) / deviation) if deviation else float(difference == 0)


def above_baselines(best: list[Row], key: str, whole: str, among: int) -> tuple[list[Row], list[Row], Row]:
    """(kinds tested, those above their baseline by Holm, the row of the largest difference).

    among: hypotheses that each kind stands for (heads), of which only the head chosen on other sentences is tested; the
    others count as failed, so that the correction is for all of them.
    """
    tested = [row for row in best if row[key] != whole and row.get("count", LEAST) >= LEAST]
    raw = [p_of(row["difference"], row["difference interval"]) for row in tested]
    corrected = holm(raw + [1.0] * (len(tested) * (among - 1)))[: len(tested)]
    above = [row for row, p in zip(tested, corrected, strict=True) if p < LEVEL and row["difference"] > 0]
    return tested, above, max(tested, key=lambda row: row["difference"])


def shown(row: Row) -> str:
    low, high = row["difference interval"]
    return f"{row['difference']:+.3f} [{low:+.3f}, {high:+.3f}]"


def dependencies() -> list[Row]:
    minilm = read("dependencies-minilm")
    best = {row["relation"]: row for row in minilm["best"]}
    tested, above, largest = above_baselines(minilm["best"], "relation", "UUAS", HEADS)
    either = [x for x in above if x["interval"][0] > max(x["offset, either way"], x["chain"])]
    changes = [_changes(task) for task in ("cola", "mnli")]
    differ = sum(x["differ"] for x in changes), sum(x["of"] for x in changes)
    tree = best["UUAS"]
    beats = tree["difference interval"][0] > 0
    return [
        {
            "the paper says": "for some relations a head recovers them significantly better than baselines",
            "here": "shown" if above else "not shown",
            "figure": f"{len(above)} of {len(tested)} relations above the offset (Holm over {len(tested)} relations x {HEADS} "
            f"heads), {len(either)} of them above the offset used either way and the chain, too; most: "
            f"{largest['relation']} {shown(largest)}",
            "seeds": "one model",
        },
        {
            "the paper says": "fine-tuning on CoLA and MNLI changes dependency relations not substantially",
            "here": _few(differ),
            "figure": "; ".join(x["said"] for x in changes),
            "seeds": ", ".join(str(x["seeds"]) for x in changes),
        },
        {
            "the paper says": "no generalist head parses significantly better than a trivial baseline",
            "here": "not so here: one is above the chain" if beats else "agrees",
            "figure": f"UUAS of {tree['head']} {tree['score']:.3f}, chain {tree['chain']:.3f}: {shown(tree)}",
            "seeds": "one model",
        },
    ]  # fmt: skip


def _few(differ: tuple[int, int]) -> str:
    count, of = differ
    return f"{'agrees' if count < of / 4 else 'not so here'}: {count} of {of} relations differ"


def _changes(task: str) -> Row:
    """What fine-tuning changes in the best head of each relation: over seeds, t tests corrected by Holm over relations."""
    models = list(read(f"dependencies-{task}")["against"].values())
    kinds = [row["relation"] for row in models[0] if row["count"] >= LEAST]
    over = {kind: _over_seeds(models, "relation", kind) for kind in kinds}
    tree = over.pop("UUAS")
    differ = sum(p < LEVEL for p in holm([x["p"] for x in over.values()]))
    middle = sorted(abs(x["mean"]) for x in over.values())[len(over) // 2]
    most = max(over, key=lambda kind: abs(over[kind]["mean"]))
    said = (
        f"{task}: UUAS {_told(tree)}; median |change| of {len(over)} relations {middle:.3f}, most {most} "
        f"{_told(over[most])}; {differ} differ by Holm"
    )
    return {"said": said, "differ": differ, "of": len(over), "seeds": tree["pairs"]}


def _over_seeds(models: list[list[Row]], key: str, kind: str) -> dict[str, Any]:
    """The mean difference from the base model, with its t interval and p over seeds."""
    found = [next(row["difference"] for row in rows if row[key] == kind) for rows in models]
    return paired_difference(found, [0.0] * len(found))


def _told(over: dict[str, Any]) -> str:
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(over["mean"], *over["interval"])


def constituency() -> list[Row]:
    minilm = read("constituency-minilm")
    tested, above, largest = above_baselines(minilm["best"], "label", "S-F1", HEADS)
    tasks = {task: _layers(task) for task in (*SIMILARITY, *INFERENCE, "cola")}
    every = [p for found in tasks.values() for _, p in found.values()]
    corrected = iter(holm(every))
    moved = {
        task: {layer: (x, next(corrected)) for layer, (x, _) in found.items()}
        for task, found in tasks.items()
    }
    masked = {task: _masked(task) for task in ("qqp", "mnli")}
    return [
        {
            "the paper says": "some heads induce some grammar types much better than baselines",
            "here": f"shown for {', '.join(row['label'] for row in above)}" if above else "not shown",
            "figure": f"{len(above)} of {len(tested)} labels above the best of four trees without a model (Holm over "
            f"{len(tested)} labels x {HEADS} heads); most: {largest['label']} {shown(largest)}",
            "seeds": "one model",
        },
        {
            "the paper says": "similarity tasks lower the upper layers' ability",
            "here": _moved(moved, SIMILARITY, -1),
            "figure": "; ".join(_layers_told(task, moved[task]) for task in SIMILARITY),
            "seeds": _seeds(SIMILARITY),
        },
        {
            "the paper says": "inference tasks raise it",
            "here": _moved(moved, INFERENCE, 1) + ("; but similarity raises it, too" if _count(moved, SIMILARITY, 1) else ""),
            "figure": "; ".join(_layers_told(task, moved[task]) for task in INFERENCE),
            "seeds": _seeds(INFERENCE),
        },
        {
            "the paper says": "(nothing of acceptability)",
            "here": "",
            "figure": _layers_told("cola", moved["cola"]),
            "seeds": _seeds(("cola",)),
        },
        {
            "the paper says": "the ability goes with understanding on QQP and MNLI",
            "here": "; ".join(f"{task.upper()} {x['here']}" for task, x in masked.items()),
            "figure": "; ".join(x["said"] for x in masked.values()),
            "seeds": ", ".join(str(x["seeds"]) for x in masked.values()),
        },
    ]  # fmt: skip


Moves = dict[str, dict[str, tuple[dict[str, Any], float]]]


def _layers(task: str) -> dict[str, tuple[dict[str, Any], float]]:
    """{upper layer: (its change over seeds, p)} of the mean S-F1 over the layer's heads."""
    models = list(read(f"constituency-{task}")["against"].values())
    return {layer: (x := _over_seeds(models, "layer", layer), x["p"]) for layer in UPPER}


def _moved(moves: Moves, tasks: tuple[str, ...], sign: int) -> str:
    """How many of the tasks' upper layers moved to this side, and to the other, by Holm."""
    right, wrong = (_count(moves, tasks, way) for way in (sign, -sign))
    verdict = "shown" if right and not wrong else "not so here" if wrong > right else "not shown"
    return f"{verdict}: of {len(tasks) * len(UPPER)} layers {right} so, {wrong} the other way"


def _count(moves: Moves, tasks: tuple[str, ...], sign: int) -> int:
    return sum(x["mean"] * sign > 0 and p < LEVEL for task in tasks for x, p in moves[task].values())


def _layers_told(task: str, layers: dict[str, tuple[dict[str, Any], float]]) -> str:
    return f"{task}: " + ", ".join(f"{layer} {_told(x)}" for layer, (x, _) in layers.items())


def _seeds(tasks: tuple[str, ...]) -> str:
    return ", ".join(str(len(read(f"constituency-{task}")["against"])) for task in tasks)


def _masked(task: str) -> dict[str, Any]:
    """Heads' S-F1 and what masking each of them costs the task: the rank correlation of their means over seeds."""
    models = [json.loads(path.read_text()) for path in sorted(FOLDER.glob(f"masked-{task}-*.json"))]
    scores = [{x["head"]: x["score"] for x in found["rows"] if x["label"] == "S-F1"} for found in models]
    costs = [{x["head"]: x["cost"] for x in found["ablate"]["costs"]} for found in models]
    heads = sorted(scores[0])
    means = ([fmean(x[head] for x in part) for head in heads] for part in (scores, costs))
    related = rank_correlation(*means)
    assert related is not None, "72 heads have different scores and costs"
    rho, p = related
    each = [found["ablate"]["relation"] for found in models]
    single = [next(row["rho"] for row in rows if row["label"] == "S-F1") for rows in each]
    said = (
        f"{task}: Spearman of S-F1 and the cost of masking, means over seeds, {rho:+.3f} {_fisher(rho, len(heads))}, p {p:.3f}; "
        f"seed by seed {', '.join(f'{x:+.2f}' for x in single)}"
    )
    return {"said": said, "here": "shown" if p < LEVEL and rho > 0 else "not shown", "seeds": len(models)}


def _fisher(rho: float, count: int) -> str:
    """The 95 % interval of a rank correlation, by Fisher's transformation with Bonett and Wright's variance."""
    half = NormalDist().inv_cdf(0.975) * math.sqrt((1 + rho * rho / 2) / (count - 3))
    low, high = (math.tanh(math.atanh(rho) + sign * half) for sign in (-1, 1))
    return f"[{low:+.3f}, {high:+.3f}]"


def causal() -> list[Row]:
    """SmolLM2's heads by the same two instruments."""
    found = read("dependencies-smollm2")
    heads = len({row["head"] for row in found["rows"]})
    tested, above, largest = above_baselines(found["best"], "relation", "UUAS", heads)
    tree = next(row for row in found["best"] if row["relation"] == "UUAS")
    phrases = read("constituency-smollm2")
    labels, better, most = above_baselines(phrases["best"], "label", "S-F1", heads)
    return [
        {
            "question": "relations that a head tracks",
            "figure": f"{len(above)} of {len(tested)} above the offset (Holm over {len(tested)} relations x {heads} heads); most: "
            f"{largest['relation']} {shown(largest)}",
        },
        {
            "question": "a head that parses",
            "figure": f"UUAS of {tree['head']} {tree['score']:.3f}, chain {tree['chain']:.3f}: {shown(tree)}",
        },
        {
            "question": "phrases that a head groups",
            "figure": f"{len(better)} of {len(labels)} labels above the best of four trees without a model (Holm over "
            f"{len(labels)} labels x {heads} heads); most: {most['label']} {shown(most)}",
        },
    ]  # fmt: skip


def tuned() -> list[Row]:
    """How well the fine-tuned models do their task: the mean over seeds and its spread, and what trivial methods reach."""
    rows = []
    for task in (*SIMILARITY, *INFERENCE, "cola"):
        found = [row for row in read("tuned")["rows"] if row["task"] == task]
        metric = found[0]["metric"]
        over = summary([row["scores"][metric] for row in found])
        floors = found[0]["floors"]  # the same for every seed; a constant has no correlation
        reached = f"{over['mean']:.3f} ± {over['spread']:.3f}"
        row = {"task": task, "seeds": len(found), "metric": metric, "MiniLM": reached}
        rows.append(row | {name.replace("_", " "): show(x[metric]) for name, x in floors.items()})
    return rows


def _weak(task: str) -> bool:
    """Whether the fine-tuned models are on average no better than a floor."""
    found = [row for row in read("tuned")["rows"] if row["task"] == task]
    metric = found[0]["metric"]
    floors = [x[metric] for x in found[0]["floors"].values() if x[metric] is not None]
    return fmean(row["scores"][metric] for row in found) <= max(floors)


def page() -> str:
    recipe = read("tuned")["recipe"]
    parts = [
        "# The claims of two abstracts on heads",
        "",
        "Written by `python benchmarks/claims.py > docs/evidence/claims.md` from `docs/results/heads/*.json`, whose commands are in",
        "[results.md](../results.md). The model is MiniLM (6 layers, 12 heads), a sentence encoder, not the papers' BERT and RoBERTa;",
        "trees are EWT's and GUM's. Heads are chosen on the dev part and judged on the test part. Intervals are of 95 %, bootstrap over",
        "sentences, or t over fine-tuning seeds; p-values of the first kind are taken from them as if they were normal; all are",
        "corrected by Holm's method. Kinds with fewer than 100 cases are left out where they are counted.",
    ]
    for title, rows, last in (
        (
            "Do heads track syntactic dependencies? (Htut, Phang, Bordia, Bowman 2019)",
            dependencies(),
            "figure",
        ),
        ("Have heads learned constituency grammar? (Luo 2021)", constituency(), "figure"),
        ("A causal model, SmolLM2-135M, which neither paper looked at", causal(), "figure"),
        ("What the fine-tuned models reach", tuned(), "MiniLM"),
    ):
        parts += ["", f"## {title}", "", Table(rows, tuple(rows[0])[:1], last).to_markdown()]
    parts += [
        "",
        f"Fine-tuned on the first {recipe['limit']:,} examples of a task, {recipe['epochs']} epochs, batch {recipe['batch']}, rate "
        f"{recipe['learning_rate']:g}, mixed precision",
        "(`benchmarks/tuned.py`): far fewer examples than the papers'. QQP and MNLI are samples of their training parts, a fifth of which",
        "is judged: no leaderboard's figures.",
    ]
    weak = [task for task in (*SIMILARITY, *INFERENCE, "cola") if _weak(task)]
    if weak:
        parts += [
            "",
            f"No better than a bag of words or the majority: {', '.join(weak)}. What changes there is not due to the task.",
        ]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    print(page(), end="")
