"""docs/results.md says what the runs kept next to it say."""

import re
import shutil
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def test_the_section_on_experiments_is_made_of_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(DOCS.parent / "benchmarks")
    monkeypatch.chdir(DOCS.parent)
    import experiments

    page = tmp_path / "results.md"
    page.write_text((DOCS / "results.md").read_text().replace("not run", "run"))
    experiments.write(page)
    said = "run python benchmarks/experiments.py write"
    assert (
        page.read_text().partition(experiments.END)[0]
        == (DOCS / "results.md").read_text().partition(experiments.END)[0]
    ), said


def test_the_tables_of_the_evidence_are_made_of_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(DOCS.parent / "benchmarks")
    import evidence_page

    for name in ("evidence", "recall"):
        shutil.copytree(DOCS / "results" / name, tmp_path / "results" / name)
    page = (DOCS / "evidence.md").read_text()
    emptied, tables = re.subn(f"({evidence_page.BY} -->).*?(<!-- )", r"\1\2", page, flags=re.DOTALL)
    assert tables == 5
    (tmp_path / "evidence.md").write_text(emptied)
    evidence_page.main(tmp_path)
    assert (tmp_path / "evidence.md").read_text() == page, "run python benchmarks/evidence_page.py"


def test_every_label_that_the_evidence_names_is_a_row():
    page = (DOCS / "evidence.md").read_text()
    rows = set(re.findall(r"^\| ([A-Z]+\d+) \|", page, flags=re.MULTILINE))
    named = {x for given in re.findall(r"\(([A-Z]+\d+(?:, [A-Z]+\d+)*)\)", page) for x in given.split(", ")}
    assert named and named <= rows, named - rows


def test_the_claims_on_heads_are_made_of_their_results(monkeypatch):
    monkeypatch.syspath_prepend(DOCS.parent / "benchmarks")
    import claims

    page = (DOCS / "evidence" / "claims.md").read_text()
    assert page == claims.page(), "run python benchmarks/claims.py > docs/evidence/claims.md"
    above = [row for row in claims.dependencies() + claims.constituency() if row["here"].startswith("shown")]
    assert len(above) == 3
    assert claims.p_of(1.0, [1 - 1.96, 1 + 1.96]) == pytest.approx(0.3173, abs=1e-3)
