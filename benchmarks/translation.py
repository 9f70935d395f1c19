"""Multi30k with and without HeadMask, in translation models with and without talking heads: every arm and seed.

    python benchmarks/translation.py baseline --data DIR --out runs/translation
    python benchmarks/translation.py arms --data DIR --out runs/translation
    python benchmarks/translation.py second --data DIR --out runs/translation
    python benchmarks/translation.py tables
    python benchmarks/translation.py step --data DIR

DIR holds train, val and test_2016_flickr with the endings .en, .de and .fr (gzip allowed). `baseline` trains and judges one
run, and refuses the further stages where its lower-case tokenized BLEU is not above 38. Every stage goes on where it
stopped. After each run its result, its scores and the measures of its heads are kept in docs/results/translation (of each
translated sentence the counts that BLEU is made of, not its text); what is kept there is not run again, on any machine.
`tables` compares arms from there, with a paired bootstrap over sentences. `step` times the parts of an update.
"""

import sys
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from talking_heads.cli.progress import Screen
from talking_heads.errors import UserError
from talking_heads.results.files import write_bytes, write_json
from talking_heads.results.output import Output
from talking_heads.results.provenance import provenance
from talking_heads.results.schema import read_json
from talking_heads.training import devices
from talking_heads.translation.parallel import Parallel, read_files
from talking_heads.translation.settings import Settings

KEPT = Path(__file__).parents[1] / "docs" / "results" / "translation"
OUT, UPDATES = Path("runs/translation"), 10_000
# 19 million target tokens, about 90 minutes on one core. With the defaults' rate (0.005), dropout (0.3) and larger batches the loss
# falls too slowly for so few: 3.80 nats a piece on the validation text after 4 million.
RECIPE: dict[str, Any] = {"tokens": 2000, "rate": 0.003, "warmup": 1000, "dropout": 0.2, "every": 200}
RESPECTABLE = 38.0  # lower-case tokenized BLEU on test2016 below which arms are not compared
SEEDS = (0, 1, 2)
# multi-head attention by this package's operator, as talking heads are: one kernel for all arms
PLAIN, TALKING = "multi-head:4:fused", "talking-heads:4"
RAND, IMPT = "random:6", "importance:6"  # of 48 heads, an eighth, as 18 of 144 in the paper
BASELINE = (("en-de", PLAIN, "", 0),)
ARMS = [("en-de", PLAIN, mask, seed) for seed in SEEDS for mask in ("", RAND, IMPT)]
ARMS += [("en-de", TALKING, mask, seed) for seed in SEEDS for mask in ("", RAND)]
SECOND = [("en-fr", PLAIN, mask, seed) for seed in SEEDS for mask in ("", RAND, IMPT)]
TEST = "test_2016_flickr"
MEASURED = {
    "limit": 250,
    "points": 8,
}  # sentences on which BLEU is taken while heads are removed, and points of a curve

app = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
Data = Annotated[Path, typer.Option(help="Folder of the data set's files.")]
Out = Annotated[Path, typer.Option(help="Folder for the runs.")]
Keep = Annotated[Path, typer.Option(help="Folder for the results that are committed.")]
Updates = Annotated[int, typer.Option(help="Updates of a run; fewer only to try the commands.")]


def _file(data: Path, name: str) -> Path:
    found = next((x for x in (data / name, data / f"{name}.gz") if x.exists()), None)
    if found is None:
        raise UserError("the data set's files must be there", f"no {name} in {data}", "name its folder")
    return found


def _text(data: Path, part: str, pair: str) -> Parallel:
    first, second = pair.split("-")
    return read_files(_file(data, f"{part}.{first}"), _file(data, f"{part}.{second}"))


def _name(pair: str, arm: str, mask: str, seed: int) -> str:
    return "-".join(
        [pair, arm.replace(":", "-"), *([mask.replace(":", "-")] if mask else []), f"seed-{seed}"]
    )


def _without_text(found: dict[str, Any]) -> dict[str, Any]:
    """Scores without the data set's text and without paths of this machine."""
    return {
        name: Path(x).name if name in ("source", "reference") else x
        for name, x in found.items()
        if name not in ("translations", "model", "words")
    }


def _run(data: Path, out: Path, keep: Path, updates: int, runs: Any) -> None:
    """Trains, judges and measures what is not kept yet."""
    from talking_heads.translation.evaluate import evaluate
    from talking_heads.translation.measures import measure
    from talking_heads.translation.score import statistics
    from talking_heads.translation.train import train

    devices.choose(dtype="bfloat16")
    due = [run for run in runs if not (keep / _name(*run) / "heads.json").exists()]
    with Screen(Output(None)) as screen:
        screen.expect(len(due))
        for pair, arm, mask, seed in due:
            name = _name(pair, arm, mask, seed)
            folder, kept = out / name, keep / name
            settings = Settings(arm=arm, head_mask=mask, seed=seed, updates=updates, patience=0, **RECIPE)
            result = train(settings, _text(data, "train", pair), _text(data, "val", pair), folder, screen)
            write_json(kept / "result.json", _without_text(result))
            write_bytes(kept / "bleu.png", (folder / "bleu.png").read_bytes())
            files = [_file(data, f"{TEST}.{language}") for language in pair.split("-")]
            if not (kept / "test2016.json").exists():
                scored = evaluate(folder, *files)
                counts = statistics(scored["translations"], _text(data, TEST, pair).target)
                write_json(kept / "test2016.json", _without_text(scored) | {"statistics": counts})
            write_json(kept / "heads.json", _without_text(measure(folder, *files, **MEASURED)))


@app.command()
def baseline(data: Data, out: Out = OUT, keep: Keep = KEPT, updates: Updates = UPDATES) -> None:
    """One run of the recipe with multi-head attention; whether it is respectable."""
    _run(data, out, keep, updates, BASELINE)
    print(f"lower-case tokenized BLEU on test2016: {_reached(keep):.2f}; arms need more than {RESPECTABLE:g}")


def _reached(keep: Path) -> float:
    path = keep / _name(*BASELINE[0]) / "test2016.json"
    if not path.exists():
        raise UserError("the baseline must be run first", f"no {path}", "run `translation.py baseline`")
    found: float = read_json(path, {"lowercase_tokenized_bleu": float})["lowercase_tokenized_bleu"]
    return found


def _refuse_weak(keep: Path) -> None:
    if _reached(keep) <= RESPECTABLE:
        raise UserError(
            f"the baseline must have a lower-case tokenized BLEU above {RESPECTABLE:g}",
            f"{_reached(keep):.2f}",
            "find out why before arms are compared",
        )


@app.command()
def arms(data: Data, out: Out = OUT, keep: Keep = KEPT, updates: Updates = UPDATES) -> None:
    """English to German: baseline, Mask-Rand, Mask-Impt; talking heads with and without Mask-Rand; three seeds."""
    _refuse_weak(keep)
    _run(data, out, keep, updates, ARMS)


@app.command()
def second(data: Data, out: Out = OUT, keep: Keep = KEPT, updates: Updates = UPDATES) -> None:
    """English to French: baseline, Mask-Rand, Mask-Impt; three seeds."""
    _refuse_weak(keep)
    _run(data, out, keep, updates, SECOND)


@app.command()
def tables(keep: Keep = KEPT) -> None:
    """BLEU of arms with intervals over seeds and sentences; inequality and ablation curves; from what is kept."""
    from talking_heads.translation.measures import arms as arms_of
    from talking_heads.translation.report import COUNTED, arms_table

    for pair, runs in (("en-de", ARMS), ("en-fr", SECOND)):
        there = [keep / _name(*run) for run in runs if (keep / _name(*run) / "test2016.json").exists()]
        if there:
            found = [read_json(folder / "test2016.json", COUNTED) for folder in there]
            table = arms_table(found)
            print(table.to_markdown())
            write_json(
                keep / f"{pair}.json", table.to_dict() | {"signature": found[0]["signature"]} | provenance()
            )
            table = arms_of([read_json(x / "heads.json") for x in there if (x / "heads.json").exists()])
            print(table.to_markdown())
            write_json(keep / f"{pair}-heads.json", table.to_dict() | provenance())


@app.command()
def step(data: Data, keep: Keep = KEPT) -> None:
    """Seconds of an update of the recipe, and of its output layer, by arm and precision; median of three in turns."""
    import torch

    from talking_heads.translation.model import batch_loss, build
    from talking_heads.translation.pieces import Batches, encode, joint_bpe

    text = _text(data, "train", "en-de")
    tokenizer = joint_bpe([*text.source, *text.target], Settings().vocabulary)
    ids = encode(tokenizer, text.source), encode(tokenizer, text.target)
    batch = Batches(*ids, Settings().tokens, 0, 1)[0]
    tokens = int((batch["labels"] != -100).sum())

    def update(model: Any, mixed: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = batch_loss(model, batch, 0.1)
        loss.backward()
        model.zero_grad()

    def output_layer(fused: bool) -> None:
        from talking_heads.translation.loss import smoothed_loss

        hidden, weight = (torch.randn(n, 128, requires_grad=True) for n in (tokens, len(tokenizer)))
        labels = torch.randint(0, len(tokenizer), (tokens,))
        if fused:
            smoothed_loss(hidden, weight, labels, 0.1).backward()
        else:
            torch.nn.functional.cross_entropy(hidden @ weight.T, labels, label_smoothing=0.1).backward()

    models = {
        arm: build(Settings(arm=arm), len(tokenizer)).train() for arm in ("multi-head:4", PLAIN, TALKING)
    }
    forms: dict[str, Any] = {
        f"{arm}, {'bfloat16' if mixed else 'float32'}": lambda m=model, x=mixed: update(m, x)
        for arm, model in models.items()
        for mixed in (False, True)
    }
    forms |= {
        "output layer, logits kept": lambda: output_layer(False),
        "output layer": lambda: output_layer(True),
    }
    times: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(4):
        for name, form in forms.items():
            start = time.process_time()
            form()
            if turn:
                times[name].append(time.process_time() - start)
    rows = [
        {"form": name, "processor seconds": median(x), "target tokens a second": tokens / median(x)}
        for name, x in times.items()
    ]
    for row in rows:
        print(
            f"{row['form']:32} {row['processor seconds']:.2f} s {row['target tokens a second']:.0f} tokens/s"
        )
    write_json(keep / "step.json", {"tokens": tokens, "rows": rows} | provenance())


if __name__ == "__main__":
    try:
        app()
    except UserError as mistake:
        sys.exit(f"translation.py: {mistake}")
