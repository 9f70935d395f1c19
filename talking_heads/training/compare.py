"""The main job: does talking help on this text, and what does it cost?

    for each arm and seed: pre-train (runs/ARM/SEED), keep the curve, fine-tune on the transfer task
    time a step of all arms, alternately
    results.json, the pictures, report.html

Every finished part is a file of its own; the same command goes on with what is missing.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from ..errors import UserError
from ..files import write_json, write_text
from ..provenance import provenance
from .corpus import Corpus
from .settings import Settings, parse_arm
from .statistics import at, paired_difference, summary
from .tasks import Task
from .tokens import blocks, load_blocks, save_blocks, train_tokenizer, unigram_entropy

Results = dict[str, Any]


def compare(
    settings: Settings,
    corpus: Corpus,
    task: Task | None,
    out: Path,
    *,
    snapshots: bool = False,
    progress: Callable[[str, int, int, str], None] = lambda run, done, total, said: None,
    show: Callable[[Results], None] = lambda results: None,
) -> Results:
    """Runs what `out` does not hold yet and writes results.json, PNG figures and report.html there.

    Args:
        snapshots: keep each run's model along pre-training, for `talking_heads.dynamics`.
        progress: called with (run, steps done, steps in all, news).
        show: called with the results so far after each run and at the end.

    Returns:
        What results.json holds: see `gather`.

    Raises:
        UserError: `out` holds another comparison, or a corpus too short for the settings.
    """
    from .report import write_report

    claim(out, settings, corpus, task)
    tokenizer, data = prepare(out, settings, corpus)
    write_json(out / "corpus.json", _about(settings, corpus, task, data))
    for seed in settings.seeds:  # seed by seed, so that an early stop leaves whole pairs
        for arm in settings.arms:
            if not _done(out, arm, seed):
                _run(out, settings, arm, seed, data, task, tokenizer, progress, snapshots)
                show(gather(out))
    _time(out, settings, data, progress)
    results = gather(out)
    write_json(out / "results.json", results)
    write_report(out, results)
    show(results)
    return results


def claim(out: Path, settings: Settings, corpus: Corpus, task: Task | None) -> None:
    """Marks the folder as this comparison's; refuses one that holds another or something else."""
    mine = {"settings": asdict(settings), "corpus": corpus.digest, "transfer": task.name if task else None}
    mine = json.loads(json.dumps(mine))
    path = out / "comparison.json"
    if path.exists():
        held = json.loads(path.read_text())
        if held != mine:
            other = {**held.pop("settings"), **held}
            now = {**mine.pop("settings"), **mine}
            differs = [name for name in now if other.get(name) != now[name]]
            raise UserError(
                "a results folder must hold the same comparison or none",
                f"one that differs in {', '.join(differs)} in {out}",
                "name another folder with --out, or repeat its settings",
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            "a results folder must be new or empty", f"other files in {out}", "name another with --out"
        )
    else:
        write_json(path, mine)


def prepare(out: Path, settings: Settings, corpus: Corpus) -> tuple[Any, dict[str, Any]]:
    """Tokenizer and blocks of tokens, made once and kept under out/data."""
    from transformers import PreTrainedTokenizerFast

    folder = out / "data"
    if not (folder / "blocks.safetensors").exists():
        tokenizer = train_tokenizer((document.text for document in corpus.pretrain), settings.vocabulary)
        tokenizer.save_pretrained(folder)
        parts = {
            name: blocks(tokenizer, (document.text for document in documents), settings.length)
            for name, documents in (("train", corpus.pretrain), ("held_out", corpus.held_out))
        }
        if min(len(x) for x in parts.values()) < 1:
            raise UserError(
                f"the corpus must fill blocks of {settings.length} tokens",
                f"too little text in {corpus.name}",
                "add text",
            )
        save_blocks(folder / "blocks.safetensors", **parts)  # last: its presence says that all is there
    return PreTrainedTokenizerFast.from_pretrained(folder), load_blocks(folder / "blocks.safetensors")


def _about(settings: Settings, corpus: Corpus, task: Task | None, data: dict[str, Any]) -> Results:
    about: Results = {
        "corpus": corpus.name,
        "words": corpus.words,
        "tokens": data["train"].numel(),
        "held_out_tokens": data["held_out"].numel(),
        "tokens_seen": settings.steps * settings.batch * settings.length,
        "unigram_entropy": unigram_entropy(data["train"], data["held_out"], settings.vocabulary),
        "transfer": None,
    }
    if task:
        about["transfer"] = {
            "name": task.name,
            "classes": task.classes,
            "train": len(task.train),
            "test": len(task.test),
            "majority": task.majority,
        }
    return about


def run_folder(out: Path, arm: str, seed: int) -> Path:
    return out / "runs" / parse_arm(arm).name.replace(":", "-").replace("=", "-") / f"seed-{seed}"


def _done(out: Path, arm: str, seed: int) -> bool:
    return (run_folder(out, arm, seed) / "result.json").exists()


def _run(
    out: Path,
    settings: Settings,
    arm: str,
    seed: int,
    data: Results,
    task: Task | None,
    tokenizer: Any,
    progress: Any,
    snapshots: bool,
) -> None:
    from .run import finish, pretrain, read_curve, transfer

    folder = run_folder(out, arm, seed)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{parse_arm(arm).name}, seed {seed}"
    report = lambda done, total, said: progress(name, done, total, said)  # noqa: E731
    model = pretrain(folder, settings, arm, seed, data, report, snapshots)
    score = transfer(folder, settings, arm, seed, model, task, tokenizer, report) if task else None
    curve = read_curve(folder / "curve.json")
    maps = {
        n: x.detach().cpu().tolist()
        for n, x in model.named_parameters()
        if n.endswith(("logits_mix", "weights_mix"))
    }
    finish(folder, model)
    tokenizer.save_pretrained(folder / "model")
    write_json(
        folder / "result.json",
        {
            "arm": parse_arm(arm).name,
            "seed": seed,
            "parameters": sum(x.numel() for x in model.parameters()),
            "loss": curve[settings.steps],
            "curve": curve,
            "transfer_accuracy": score,
            "maps": maps,
            **provenance(),
        },
    )


def _time(out: Path, settings: Settings, data: Results, progress: Any) -> None:
    from .timing import step_seconds

    path = out / "timing.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for seed in settings.seeds:
        if str(seed) not in found:
            progress("timing", len(found), len(settings.seeds), "")
            found[str(seed)] = step_seconds(settings, seed, data)
            write_json(path, found)


def gather(out: Path) -> Results:
    """The results from the folder's files alone: what every table and figure is made of.

    {"settings", "corpus", ..., "unigram_entropy" (nats a token), "transfer", "arms": [{"name", "parameters",
    "seeds", "loss", "transfer_accuracy", "step_seconds" (lists by seed), "curves", "equal_time_loss",
    "summary", "difference" (to the first arm, paired by seed)}], "machine", "versions", "commit"}
    """
    held = json.loads((out / "comparison.json").read_text())
    given: dict[str, Any] = {k: tuple(x) if isinstance(x, list) else x for k, x in held["settings"].items()}
    settings = Settings(**given)
    timing = json.loads((out / "timing.json").read_text()) if (out / "timing.json").exists() else {}
    arms: list[Results] = []
    for arm in settings.arms:
        runs = [
            json.loads((run_folder(out, arm, seed) / "result.json").read_text())
            for seed in settings.seeds
            if _done(out, arm, seed)
        ]
        if not runs:
            continue
        seeds = [run["seed"] for run in runs]
        arms.append(
            {
                "name": parse_arm(arm).name,
                "parameters": runs[0]["parameters"],
                "seeds": seeds,
                "loss": [run["loss"] for run in runs],
                "transfer_accuracy": [
                    run["transfer_accuracy"] for run in runs if run["transfer_accuracy"] is not None
                ],
                "step_seconds": [timing[str(seed)][arm] for seed in seeds if str(seed) in timing],
                "curves": [run["curve"] for run in runs],
            }
        )
    _judge(settings, arms)
    return {
        **json.loads((out / "corpus.json").read_text()),
        "settings": held["settings"],
        "corpus_digest": held["corpus"],
        "arms": arms,
        **provenance(),
    }


def _judge(settings: Settings, arms: list[Results]) -> None:
    """Adds to each arm its means and its differences to the first, at equal steps and at equal time."""
    if not arms:
        return
    timed = all(len(arm["step_seconds"]) == len(settings.seeds) == len(arm["seeds"]) for arm in arms)
    whole = min(fmean(arm["step_seconds"]) for arm in arms) * settings.steps if timed else None
    for arm in arms:
        curves = [{int(step): loss for step, loss in curve.items()} for curve in arm["curves"]]
        if whole:
            arm["equal_time_seconds"] = whole
            arm["equal_time_loss"] = [at(curve, whole / fmean(arm["step_seconds"])) for curve in curves]
        arm["summary"], arm["difference"] = {}, {}
        for name in ("loss", "equal_time_loss", "transfer_accuracy", "step_seconds"):
            values = dict(zip(arm["seeds"], arm.get(name) or [], strict=False))
            if not values:
                continue
            arm["summary"][name] = summary(list(values.values()))
            base = dict(zip(arms[0]["seeds"], arms[0].get(name) or [], strict=False))
            both = [seed for seed in values if seed in base]
            if arm is not arms[0] and both:
                pairs = [values[seed] for seed in both], [base[seed] for seed in both]
                arm["difference"][name] = paired_difference(*pairs)


def rebuild(out: Path) -> Results:
    """results.json, figures and report.html again, from the runs' files alone."""
    from .report import write_report

    if not (out / "comparison.json").exists():
        raise UserError("a results folder must hold a comparison", out, "name the folder that compare wrote")
    results = gather(out)
    if not results["arms"]:
        raise UserError(
            "a comparison must have a finished run", f"none in {out}", "run compare again: it goes on"
        )
    write_json(out / "results.json", results)
    write_report(out, results)
    write_text(out / "results.md", "\n".join(table_lines(results)) + "\n")
    return results


def table_lines(results: Results) -> list[str]:
    """The table in Markdown."""
    from .report import COLUMNS, notes, rows

    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row) + " |" for row in rows(results)]
    return [*lines, "", *notes(results)]
