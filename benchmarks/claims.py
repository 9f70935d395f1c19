"""The claims of two abstracts on heads, one row each: what the paper says, what the figures here show.

    python benchmarks/claims.py > docs/evidence/claims.md

Runs nothing: reads docs/results/heads/*.json, whose commands docs/results.md names.
"""

import json
import math
from pathlib import Path
from statistics import NormalDist, fmean
from typing import Any

from talking_heads.results.statistics import holm
from talking_heads.results.table import Row, Table

FOLDER = Path(__file__).parents[1] / "docs" / "results" / "heads"
LEAST = 100  # edges or phrases of a kind that is counted
HEADS = 72  # of MiniLM
LEVEL = 0.05
UPPER = ("encoder.4", "encoder.5")  # the upper third of 6 layers


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
    tuned = read("dependencies-finetuned")["against"]
    changes = [_changes(Path(name).name, rows) for name, rows in tuned.items()]
    differ = sum(count for _, count, _ in changes), sum(of for _, _, of in changes)
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
            "figure": "; ".join(said for said, _, _ in changes),
            "seeds": "1 each",
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


def _changes(name: str, rows: list[Row]) -> tuple[str, int, int]:
    """(what is said of a fine-tuned model, relations that differ by Holm, relations tested)."""
    kinds = [row for row in rows if row["relation"] != "UUAS" and row["count"] >= LEAST]
    tree = next(row for row in rows if row["relation"] == "UUAS")
    corrected = holm([p_of(row["difference"], row["difference interval"]) for row in kinds])
    count = sum(p < LEVEL for p in corrected)
    middle = sorted(abs(row["difference"]) for row in kinds)[len(kinds) // 2]
    most = max(kinds, key=lambda row: abs(row["difference"]))
    said = (
        f"{name}: UUAS {shown(tree)}; median |change| of {len(kinds)} relations {middle:.3f}, most {most['relation']} "
        f"{shown(most)}; {count} differ by Holm"
    )
    return said, count, len(kinds)


def constituency() -> list[Row]:
    minilm = read("constituency-minilm")
    tested, above, largest = above_baselines(minilm["best"], "label", "S-F1", HEADS)
    similarity, inference = read("constituency-qqp"), read("constituency-mnli")
    ablated = read("ablate-qqp")["ablate"]
    relation = next(row for row in ablated["relation"] if row["label"] == "S-F1")
    lowest = min(holm([row["p"] for row in ablated["relation"]]))
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
            "here": _moved(similarity, -1),
            "figure": f"QQP: {_layers(similarity)}",
            "seeds": str(len(similarity["against"])),
        },
        {
            "the paper says": "inference tasks raise it",
            "here": _moved(inference, 1),
            "figure": f"MNLI: {_layers(inference)}",
            "seeds": str(len(inference["against"])),
        },
        {
            "the paper says": "the ability goes with understanding on QQP and MNLI",
            "here": f"{'shown' if lowest < LEVEL else 'not shown'} for QQP; MNLI was not measured",
            "figure": f"Spearman of S-F1 and the cost of masking a head on QQP: {relation['rho']:+.3f} "
            f"{_fisher(relation['rho'], relation['heads'])}, p {relation['p']:.3f}; the smallest p of "
            f"{len(ablated['relation'])} scores by Holm {lowest:.3f}",
            "seeds": "1",
        },
    ]  # fmt: skip


def _moved(result: dict[str, Any], sign: int) -> str:
    """ "shown" where the interval over seeds of each upper layer lies on the side of `sign`."""
    over = [row["interval over models"] for row in result["over_models"] if row["layer"] in UPPER]
    return "shown" if all(x is not None and min(sign * x[0], sign * x[1]) > 0 for x in over) else "not shown"


def _layers(result: dict[str, Any]) -> str:
    parts = []
    for layer in UPPER:
        each = [
            next(r for r in rows if r["layer"] == layer)["difference"] for rows in result["against"].values()
        ]
        over = next(row for row in result["over_models"] if row["layer"] == layer)["interval over models"]
        tail = (
            f"[{over[0]:+.3f}, {over[1]:+.3f}]" if over else f"(seeds {', '.join(f'{x:+.3f}' for x in each)})"
        )
        parts.append(f"{layer} {fmean(each):+.3f} {tail}")
    return "; ".join(parts)


def _fisher(rho: float, count: int) -> str:
    """The 95 % interval of a rank correlation, by Fisher's transformation with Bonett and Wright's variance."""
    half = NormalDist().inv_cdf(0.975) * math.sqrt((1 + rho * rho / 2) / (count - 3))
    low, high = (math.tanh(math.atanh(rho) + sign * half) for sign in (-1, 1))
    return f"[{low:+.3f}, {high:+.3f}]"


def page() -> str:
    parts = [
        "# The claims of two abstracts on heads",
        "",
        "Written by `python benchmarks/claims.py > docs/evidence/claims.md` from `docs/results/heads/*.json`, whose commands are in",
        "[results.md](../results.md). The model is MiniLM (6 layers, 12 heads), a sentence encoder, not the papers' BERT and RoBERTa;",
        "trees are EWT's and GUM's. Heads are chosen on the dev part and judged on the test part. Intervals are of 95 %, bootstrap over",
        "sentences, or t over fine-tuning seeds; p-values are taken from them as if they were normal, and corrected by Holm's method.",
        "Kinds with fewer than 100 cases are left out where they are counted. Fine-tuning was on 4,000 (MNLI), 6,000 (QQP) examples and",
        "CoLA's training part. Not measured: five seeds, RTE, MRPC and STS-B, a causal model, the correlation on MNLI.",
    ]
    for title, rows in (
        ("Do heads track syntactic dependencies? (Htut, Phang, Bordia, Bowman 2019)", dependencies()),
        ("Have heads learned constituency grammar? (Luo 2021)", constituency()),
    ):
        parts += ["", f"## {title}", "", Table(rows, ("the paper says",), "figure").to_markdown()]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    print(page(), end="")
