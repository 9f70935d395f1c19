"""The report of any kind of results: tables, figures, settings; and the same tables as text."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median

from ..results import page
from ..results.files import write_text
from ..results.table import Table as Aligned
from .figures import FIGURES, draw
from .runs import Results
from .summary import LOW, fall, grouped, spread

Table = tuple[str, Sequence[str], list[list[str]]]  # caption, columns, rows


def write_report(out: Path, results: Results) -> None:
    """Figures as PNG, and report.html with tables, figures and settings, from the results alone."""
    drawn = draw(out, results, FIGURES[results["kind"]])
    blocks = [page.table(columns, rows, caption) for caption, columns, rows in tables(results)]
    blocks += [page.picture(path, caption) for path, caption in drawn]
    for title, names in (
        ("Settings", ("settings", "text")),
        ("Machine and versions", ("machine", "versions", "commit")),
    ):
        held = {name: results[name] for name in names if name in results}
        blocks += [page.heading(title), page.preformatted(json.dumps(held, indent=1))]
    write_text(out / "report.html", page.page(_TITLES[results["kind"]], blocks))


def tables(results: Results) -> list[Table]:
    return _TABLES[results["kind"]](results)


def text(results: Results) -> str:
    """The tables in Markdown."""
    return "\n".join(
        f"{caption}:\n\n{Aligned.of(columns, rows).to_markdown()}\n"
        for caption, columns, rows in tables(results)
    )


def _synthetic(results: Results) -> list[Table]:
    found = results["summary"]
    common = (
        "loss at the end",
        "test accuracy",
        "attention on the topic word",
        "identity error, largest",
        "median",
    )

    def cells(row: Results) -> list[str]:
        return [
            _range(row["loss"], "{:.5f}"),
            _range(row["test_accuracy"], "{:.4f}"),
            _range(row["attention"], "{:.3f}"),
            _range(row["identity_error_largest"], "{:.2%}"),
            _range(row["identity_error_median"], "{:.2%}"),
        ]

    seeds, epochs = len(results["settings"]["seeds"]), results["settings"]["epochs"]
    made: list[Table] = [
        (
            f"The paper's classifiers, {seeds} seeds of data, {epochs:,} epochs: median [least, most]",
            ("classifier", *common, "loss half its start at epoch"),
            [[row["classifier"], *cells(row), _range(row["fall"], "{:.0f}")] for row in found["classifiers"]],
        ),
        (
            "Embeddings that start with std 0.1, all trained or some frozen: training loss",
            (
                "classifier",
                "epoch",
                "all trained",
                "keys frozen",
                "embeddings frozen",
                "lower by a factor of",
            ),
            [
                [
                    row["classifier"],
                    f"{row['epoch']:,}",
                    *(
                        _range(row[what], "{:.4f}")
                        for what in ("all trained", "keys frozen", "embeddings frozen")
                    ),
                    _range(row["factor"], "{:.1f}"),
                ]
                for row in found["frozen"]
            ],
        ),
        (
            "With the query trained, too (errors are of the law along the path)",
            ("classifier", *common, "drift of the balance"),
            [[row["classifier"], *cells(row), _range(row["balance"], "{:.3%}")] for row in found["query"]],
        ),
    ]
    if found["starts"]:
        made.append(
            (
                "Other starts on the first seed's data",
                (
                    "classifier",
                    "starts",
                    f"loss below {LOW}",
                    *common,
                    "query norm",
                    "its rank correlation with the loss",
                ),
                [
                    [
                        row["classifier"],
                        str(row["starts"]),
                        str(row["below"]),
                        *cells(row),
                        _range(row["query_norm"], "{:.2f}"),
                        "-" if row["query_norm_to_loss"] is None else f"{row['query_norm_to_loss']:+.2f}",
                    ]
                    for row in found["starts"]
                ],
            )
        )
    return made


def _mixing(results: Results) -> list[Table]:
    made: list[Table] = []
    for classifier, runs in grouped(results["runs"], "classifier").items():
        rows = []
        for arm, mine in grouped(runs, "arm").items():
            cells = [
                _range(spread(run["errors"][law]["largest"] for run in mine), "{:.2%}")
                + (" *" if mine[0]["errors"][law]["kept"] else "")
                for law in results["laws"]
            ]
            rows.append(
                [
                    arm,
                    *cells,
                    _range(spread(fall(run) for run in mine), "{:.0f}"),
                    _range(spread(run["final"]["loss"] for run in mine), "{:.5f}"),
                ]
            )
        made.append(
            (
                f"{classifier} classifier: largest error of each law, median [least, most] over seeds; *: theory says "
                "that it holds",
                ("arm", *results["laws"], "loss half its start at epoch", "loss at the end"),
                rows,
            )
        )
    made.append(("Laws", ("law", "says"), [[name, words] for name, words in results["laws"].items()]))
    return made


def _text(results: Results) -> list[Table]:
    runs = []
    for run in results["curves"]:
        best = min(range(len(run["epoch"])), key=lambda point: run["dev_loss"][point])
        most = max(range(len(run["epoch"])), key=lambda point: run["attended"]["occurrence"][point])
        known = [error for error in run["identity_error"] if error is not None]
        runs.append(
            [
                run["classifier"],
                str(run["seed"]),
                f"{run['test_accuracy'][best]:.3f} ({run['epoch'][best]:,})",
                *(
                    f"{run['attended']['occurrence'][point]:.0f}, {run['attended']['purity'][point]:.2f}"
                    for point in (most, best, -1)
                ),
                f"{run['epoch'][most]:,}",
                f"{median(known):.0%} ({len(known)})" if known else "-",
            ]
        )
    made: list[Table] = [
        (
            "Most attended words, mean occurrence and purity over training sentences",
            (
                "classifier",
                "seed",
                "test accuracy (at the epoch of least dev loss)",
                "when most frequent",
                "at least dev loss",
                "at the end",
                "most frequent at epoch",
                "identity's error, median (words)",
            ),
            runs,
        )
    ]
    for run in results["curves"]:
        rows = [
            [
                word,
                f"{run['occurrence'][place]:.0f}",
                f"{run['purity'][place]:.2f}",
                f"{run['score'][-1][place]:.2f}",
                f"{run['embedding_norm'][-1][place]:.2f}",
            ]
            for place, word in enumerate(run["words"])
        ]
        columns = ("word", "occurrence", "purity", "score", "embedding norm")
        caption = f"{run['classifier']}, seed {run['seed']}: traced words, then those of the highest score, at the end"
        made.append((caption, columns, rows))
    return made


def _transformer(results: Results) -> list[Table]:
    rows = []
    for arm, runs in grouped(results["runs"], "arm").items():
        for name in results["relations"]:
            cells = []
            for what, point in (("level", 0), ("level", -1), ("change", -1)):
                means = [_mean(run["relations"][name][what][point]) for run in runs]
                cells.append(_range(spread(means), "{:+.3f}"))
            rows.append([arm, name, *cells])
    return [
        (
            "Rank correlation over words, frequency held fixed; mean over layers and heads, median [least, most] over "
            "seeds",
            ("arm", "relation", "at the start", "at the end", "of what was gained"),
            rows,
        ),
        ("Relations", ("relation", "of"), [[name, words] for name, words in results["relations"].items()]),
    ]


def _mean(x: list[list[float | None]]) -> float | None:
    known = [value for row in x for value in row if value is not None]
    return fmean(known) if known else None


def _range(value: Results | None, form: str) -> str:
    """median [least, most]; one number where they print alike."""
    if value is None:
        return "-"
    middle, least, most = (form.format(value[name]) for name in ("median", "least", "most"))
    return middle if least == most else f"{middle} [{least}, {most}]"


_TABLES: dict[str, Callable[[Results], list[Table]]] = {
    "synthetic": _synthetic,
    "mixing": _mixing,
    "text": _text,
    "transformer": _transformer,
}
_TITLES = {
    "synthetic": "How attention learns",
    "mixing": "How attention of several heads learns",
    "text": "What training attends to",
    "transformer": "A transformer along its training",
}
