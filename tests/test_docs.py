"""The documentation: its links lead somewhere, its site has every page, its notebooks run."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
NOTEBOOKS = sorted(DOCS.glob("tutorials/*.ipynb"))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
MADE = {"index.md", "reference/cli.md"}  # by docs/hooks.py


def cells(path, kind):
    return ["".join(x["source"]) for x in json.loads(path.read_text())["cells"] if x["cell_type"] == kind]


def anchors(text):
    """The anchors of headings, as GitHub and MkDocs name them."""
    titles = re.findall(r"^#+ (.*)", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = "\n".join(cells(page, "markdown")) if page.suffix == ".ipynb" else page.read_text()
    text = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    dead = []
    for link in LINK.findall(text):
        name, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        target = page.parent / name if name else page
        if target.resolve().is_relative_to(DOCS) and str(target.resolve().relative_to(DOCS)) in MADE:
            continue
        known = target.exists() and (
            not anchor or target.suffix != ".md" or anchor in anchors(target.read_text())
        )
        dead += [] if known else [link]
    assert not dead


def test_the_sites_order_names_pages_that_are_there_once():
    nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    named = re.findall(r"[\w./-]+\.(?:md|ipynb)", nav)
    there = {str(path.relative_to(DOCS)) for path in [*DOCS.rglob("*.md"), *NOTEBOOKS]} | MADE
    assert len(named) == len(set(named)) and set(named) <= there
    # docs/hooks.py adds others, of two folders, by itself
    assert {Path(name).parent.as_posix() for name in there - set(named)} <= {".", "evidence"}
    assert re.findall(r"^  - (\w+):$", nav, re.MULTILINE) == [
        "Start", "Tutorials", "Guides", "Reference", "Results",
    ]  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_the_outputs_of_one_run(path):
    code = [x for x in json.loads(path.read_text())["cells"] if x["cell_type"] == "code"]
    assert [x["execution_count"] for x in code] == list(range(1, len(code) + 1))
    outputs = [output for x in code for output in x["outputs"]]
    assert not [x for x in outputs if x["output_type"] == "error" or x.get("name") == "stderr"]
    assert len(outputs) >= 4 and "/work" not in path.read_text() and "site-packages" not in path.read_text()


def run_cells(path, monkeypatch, folder):
    """The notebook's cells as one script, in an empty folder."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot

    monkeypatch.chdir(folder)
    monkeypatch.setattr(matplotlib.pyplot, "show", lambda: matplotlib.pyplot.close("all"))
    found = {"__name__": "__main__"}
    for number, source in enumerate(cells(path, "code"), 1):
        exec(compile(source, f"{path.name}, cell {number}", "exec"), found)
    return found


def test_the_tutorial_on_variants_runs(monkeypatch, tmp_path, capsys):
    run_cells(DOCS / "tutorials" / "4-variant.ipynb", monkeypatch, tmp_path)
    said = capsys.readouterr().out
    assert said.count("True") == 6 and "False" not in said


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_tutorials_run(path, monkeypatch, tmp_path, capsys):
    run_cells(path, monkeypatch, tmp_path)
    assert "False" not in capsys.readouterr().out


def test_python_in_the_pages_for_newcomers_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    blocks = [
        x
        for name in ("coming-from.md", "first-steps.md")
        for x in re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)
    ]
    assert len(blocks) >= 2
    for block in blocks:
        exec(compile(block, "docs", "exec"), {})
