"""`talking-heads translate`: train translation models on parallel text, judge them, use them."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Device, Dtype, Json, Seed

Folder = Annotated[Path, typer.Argument(help="A folder that `translate train` wrote.")]
Beam = Annotated[int, typer.Option(min=1, help="Beams; 1 takes the likeliest piece at each step.")]
Penalty = Annotated[float, typer.Option(help="Exponent of the length by which beams are compared.")]
Checkpoint = Annotated[
    str, typer.Option(help="model (what training kept), or the update of a kept checkpoint.")
]
_HEADS = "Heads of translation models"
Columns = Annotated[str | None, typer.Option(help="SOURCE,TARGET: columns (or languages) of --pairs.")]


def add(app: typer.Typer) -> None:
    group = typer.Typer(
        no_args_is_help=True,
        help="Train translation models on parallel text, judge them, use them.\n\n"
        "Example: talking-heads translate train --pairs train.tsv --dev-pairs dev.tsv --out runs/translation",
    )
    for command in (train, evaluate, run, measure, report):
        group.command()(command)
    app.add_typer(group, name="translate")


def train(
    out: Annotated[
        Path, typer.Option(help="Folder for the run. The same command continues where it stopped.")
    ],
    source: Annotated[
        Path | None, typer.Option(help="Source sentences, a line each (UTF-8, gzip allowed).")
    ] = None,
    target: Annotated[Path | None, typer.Option(help="Their translations, line by line.")] = None,
    dev_source: Annotated[Path | None, typer.Option(help="Source sentences to validate on.")] = None,
    dev_target: Annotated[Path | None, typer.Option(help="Their translations.")] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            help="In place of --source and --target: a table with tabs, or a data set (hub name or folder)."
        ),
    ] = None,
    dev_pairs: Annotated[
        str | None, typer.Option(help="The same for validation; of a data set its part validation.")
    ] = None,
    columns: Columns = None,
    arm: Annotated[
        str, typer.Option(help="KIND:HEADS[:OPTION]..., as in compare: multi-head:4, talking-heads:4, ...")
    ] = "multi-head:4",
    head_mask: Annotated[
        str,
        typer.Option(
            help="Mask heads in training: random:N, importance:N (the most important of each batch; two passes), or "
            "importance:N:previous (by the step before; one pass)."
        ),
    ] = "",
    seed: Seed = 0,
    layers: Annotated[int, typer.Option(help="Layers of the encoder, and of the decoder.")] = 4,
    width: Annotated[int, typer.Option(help="Width of the model.")] = 128,
    feed_forward: Annotated[int, typer.Option(help="Width of feed-forward layers.")] = 256,
    vocabulary: Annotated[
        int, typer.Option(help="Most pieces of the joint BPE; at least 259 (bytes).")
    ] = 10_000,
    dropout: Annotated[float, typer.Option(help="Dropout.")] = 0.3,
    smoothing: Annotated[float, typer.Option(help="Label smoothing.")] = 0.1,
    rate: Annotated[
        float, typer.Option("--rate", "--learning-rate", help="Peak learning rate of Adam.")
    ] = 0.005,
    warmup: Annotated[
        int | None,
        typer.Option(help="Updates to the peak. Default: 2000, or a quarter of --updates if less."),
    ] = None,
    tokens: Annotated[int, typer.Option(help="Target tokens in each update, padding counted.")] = 8000,
    updates: Annotated[int, typer.Option("--updates", "--steps", help="The most updates.")] = 8000,
    every: Annotated[
        int | None,
        typer.Option(
            help="Updates between checkpoints; every second one is validated. Default: 200, or a twentieth of --updates if less."
        ),
    ] = None,
    average: Annotated[int, typer.Option(help="Checkpoints to average at the end.")] = 10,
    patience: Annotated[
        int, typer.Option(help="End after this many validations without a better BLEU; 0: never.")
    ] = 10,
    longest: Annotated[int, typer.Option(help="Longest sentence in pieces; longer pairs are dropped.")] = 256,
    device: Device = "auto",
    dtype: Dtype = None,
    json: Json = None,
) -> None:
    """Train a translation model from scratch: a transformer of Marian's shape with the attention that --arm names.

    Joint byte-level BPE, label smoothing, inverse square-root schedule, batches by tokens. Keeps the average of the last
    checkpoints (or the last weights if they validate better). The defaults are a recipe for Multi30k. With
    more --updates the same command trains a finished model further. `--dtype bfloat16` is mixed precision (default on a
    GPU that has it); on a CPU it is fastest with an arm of this package's operator, as multi-head:4:fused.

    Example: talking-heads translate train --source train.en --target train.de --dev-source val.en --dev-target val.de
    --out runs/en-de

    Example: talking-heads translate train --source train.en --target train.de --dev-source val.en --dev-target val.de
    --arm talking-heads:4 --head-mask random:6 --seed 1 --out runs/en-de-masked
    """
    from ..results.output import Output
    from ..training import devices
    from ..translation.parallel import choose
    from ..translation.settings import Settings
    from .progress import Screen

    devices.choose(device, dtype)
    output = Output(json)
    settings = Settings(
        arm=arm, head_mask=head_mask, seed=seed, layers=layers, width=width, feed_forward=feed_forward,
        vocabulary=vocabulary, dropout=dropout, smoothing=smoothing, rate=rate, warmup=warmup, tokens=tokens,
        updates=updates, every=every, average=average, patience=patience, longest=longest, dtype=dtype,
    )  # fmt: skip
    text = choose(source, target, pairs, columns, "train")
    dev = choose(dev_source, dev_target, dev_pairs, columns, "validation", "dev-")
    from ..translation.report import notes, run_table
    from ..translation.train import train as run_training

    with Screen(output) as screen:
        result = run_training(settings, text, dev, out, screen)
    output.show(run_table(result))
    for line in notes(result):
        output.say(line)
    output.say(f"report: {out / 'report.html'}")
    output.write_json(result)


def evaluate(
    model: Folder,
    source: Annotated[Path, typer.Option(help="Source sentences, a line each.")],
    reference: Annotated[
        Path | None, typer.Option(help="Their translations. Without: translates, and gives no scores.")
    ] = None,
    checkpoint: Checkpoint = "model",
    beam: Beam = 5,
    length_penalty: Penalty = 1.0,
    device: Device = "auto",
    translations: Annotated[
        Path | None, typer.Option(help="Also write the translations there, a line each.")
    ] = None,
    json: Json = None,
) -> None:
    """Judge a model on a test set: BLEU and chrF by sacrebleu, with their signatures.

    Prints cased BLEU, and BLEU of lower-case tokenized text. Without --reference prints the translations.

    Example: talking-heads translate evaluate runs/en-de --source test.en --reference test.de --json test.json
    """
    from ..results.output import Output
    from ..training.devices import choose
    from ..translation.evaluate import evaluate as judge
    from .progress import bar

    choose(device)
    output, lines = Output(json), Output(translations, "--translations")
    with bar("sentences") as progress:
        result = judge(
            model, source, reference, checkpoint=checkpoint, beam=beam, length_penalty=length_penalty,
            progress=progress,
        )  # fmt: skip
    if reference is None:
        if translations is None:
            output.say("\n".join(result["translations"]))
    else:
        for name in ("bleu", "chrf", "lowercase_tokenized_bleu"):
            output.say(f"{name}: {result[name]:.2f}")
        output.say(f"signature: {result['signature']}")
    if translations is not None:
        lines.write("\n".join(result["translations"]) + "\n")
    output.write_json(result)


def run(
    model: Folder,
    checkpoint: Checkpoint = "model",
    beam: Beam = 5,
    length_penalty: Penalty = 1.0,
    device: Device = "auto",
) -> None:
    """Translate standard input, line by line, to standard output; an empty line stays empty.

    Example: talking-heads translate run runs/en-de < test.en > test.de
    """
    from ..errors import UserError
    from ..training.devices import choose
    from ..translation.evaluate import open_translator, translate_lines
    from ..translation.parallel import split_lines

    choose(device)
    data: Any = sys.stdin.buffer.read() if hasattr(sys.stdin, "buffer") else sys.stdin.read().encode()
    try:
        lines = split_lines(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UserError("text must be UTF-8", "other bytes on standard input", "convert it") from None
    network, tokenizer = open_translator(model, checkpoint)
    found, _ = translate_lines(
        network, tokenizer, lines, "standard input", beam=beam, length_penalty=length_penalty
    )
    sys.stdout.write("".join(f"{line}\n" for line in found))
    sys.stdout.flush()


def measure(
    models: Annotated[list[Path], typer.Argument(help="Folders of translate train, for one page.")],
    source: Annotated[Path, typer.Option(help="Source sentences, a line each.")],
    reference: Annotated[Path, typer.Option(help="Their translations.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html, results.json and pictures.")],
    limit: Annotated[
        int | None, typer.Option(min=1, help="Take BLEU on the first N sentences, rank heads on the others.")
    ] = None,
    rank_limit: Annotated[int | None, typer.Option(min=1, help="Rank heads on N sentences at most.")] = None,
    points: Annotated[int, typer.Option(min=1, help="Steps from no head removed to all.")] = 12,
    draws: Annotated[int, typer.Option(min=1, help="Random orders.")] = 3,
    singles: Annotated[
        bool, typer.Option("--singles/--no-singles", help="Also remove each head alone.")
    ] = True,
    per: Annotated[str, typer.Option(help="Importance by example, or by batch (cheaper).")] = "example",
    site: Annotated[str, typer.Option(help="output, or softmax (before heads are mixed).")] = "output",
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """How unequal the heads of translation models are, and BLEU while heads are removed.

    Variance, coefficient of variation, Gini and shares of the top heads of importance; curves of BLEU (most important
    first, least first, random) with their areas; the share of heads needed for 95 % of BLEU; the largest loss from a
    single head.

    Example: talking-heads translate measure runs/base runs/masked --source test.en --reference test.de --limit 500
    --out runs/heads
    """
    from ..results import folders
    from ..results.extras import require
    from ..results.output import Output
    from ..training.devices import choose
    from ..translation.measures import arms, summary
    from ..translation.measures import measure as one_model
    from ..translation.measures_page import notes, write_measures
    from .progress import bar

    choose(device)
    output = Output(json)
    require("matplotlib", "sacrebleu")
    folders.check(out, _HEADS)
    found = []
    for folder in models:
        with bar("") as progress:

            def tell(what: str, say: Any = progress) -> Any:
                return lambda done, total, said: say(done, total, f"{what} {said}")

            found.append(
                one_model(
                    folder, source, reference, limit=limit, rank_limit=rank_limit, points=points, draws=draws,
                    singles=singles, per=per, site=site, seed=seed, progress=tell,
                )
            )  # fmt: skip
    folders.claim(out, _HEADS)
    write_measures(out, found)
    output.show(summary(found))
    if len(found) > 1:
        output.say("\narms, over seeds\n")
        output.show(arms(found))
    for line in notes(found):
        output.say(line)
    output.say(f"report: {out / 'report.html'}")
    output.write_json({"models": found})


def report(
    evaluations: Annotated[
        list[Path], typer.Argument(help="JSON of translate evaluate; the first arm is the baseline.")
    ],
    reference: Annotated[Path, typer.Option(help="The reference that they were judged by.")],
    json: Json = None,
) -> None:
    """Compare arms: BLEU with its spread over seeds, and differences with intervals over seeds and over sentences.

    Example: talking-heads translate report base-0.json base-1.json masked-0.json masked-1.json --reference test.de
    """
    from ..results.output import Output
    from ..results.provenance import provenance
    from ..translation.parallel import read_lines
    from ..translation.report import arms_table, read_evaluations

    output = Output(json)
    found = read_evaluations(evaluations, read_lines(reference))
    table = arms_table(found)
    output.show(table)
    output.say(f"signature: {found[0]['signature']}")
    output.write_json(table.to_dict() | {"signature": found[0]["signature"]} | provenance())
