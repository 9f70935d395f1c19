"""docs/results.md says what the runs kept next to it say."""

import json
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


def test_stages_are_compared_by_seed_and_the_secondary_ones_corrected_together(monkeypatch):
    monkeypatch.syspath_prepend(DOCS.parent / "benchmarks")
    import evidence_page

    def stage(**losses):
        arms = [
            {
                "name": name.replace("_", "-", 1).replace("_", ":"),
                "seeds": list(range(len(x))),
                "parts": {"test": x},
            }
            for name, x in losses.items()
        ]
        return {"arms": arms, "evidence": True}

    found = evidence_page.comparisons(
        {
            "primary": stage(multi_head_4=[1.0, 1.1], talking_heads_4=[0.9, 1.0, 5.0]),
            "longer": stage(multi_head_4=[1.0, 1.1, 1.2], talking_heads_4=[0.9, 1.1, 1.1], none=[2.0]),
            "controls": stage(talking_heads_4=[1.0, 1.0, 1.0], none=[2.0, 2.1, 1.9]),
            "sizes": stage(
                multi_head_8=[1.0, 1.1, 1.2],
                talking_heads_8=[0.9, 1.2, 1.1],
                talking_heads_16=[1.0, 1.0, 1.0],
            ),
        }
    )
    rows = {(x["stage"], x["arm"], x["less"]): x for x in found}
    assert rows.keys() == {
        ("primary", "talking-heads:4", "multi-head:4"),
        ("longer", "talking-heads:4", "multi-head:4"),
        ("controls", "none", "talking-heads:4"),
        ("sizes", "talking-heads:8", "multi-head:8"),
    }
    first, longer, control, size = found
    assert longer["pairs"] == 3 and longer["p"] is not None and longer["holm"] is None
    assert first["pairs"] == 2 and first["mean"] == pytest.approx(-0.1) and first["holm"] is None
    assert control["mean"] == pytest.approx(1.0) and control["holm"] == pytest.approx(2 * control["p"])
    assert size["holm"] == size["p"] > control["holm"]


def test_a_step_is_told_in_times_of_the_first_arms(monkeypatch):
    monkeypatch.syspath_prepend(DOCS.parent / "benchmarks")
    from evidence_page import _step

    first, arm = {"step_seconds": [1.0, 2.0]}, {"step_seconds": [1.5, 2.0]}
    ratio = {"mean": 1.1, "interval": [1.0, 1.2]}
    assert _step({}, first, first) == "1.000"
    assert _step({}, arm, first) == "1.250"
    assert _step({"ratio": ratio}, arm, first) == "1.100 [1.000, 1.200]"
    assert _step({}, {"step_seconds": []}, first) == "-"


def test_what_a_pretrained_model_learned_is_compared_with_lora(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(DOCS.parent / "benchmarks")
    import evidence_page

    path = tmp_path / "pretrained.json"
    runs = [
        {"arm": arm, "seed": seed, "steps": 9, "rate": 1, "parameters": 1200, "loss": loss + seed / 10}
        for arm, loss in (("lora", 3.0), ("maps and lora", 2.5))
        for seed in range(3)
    ]
    rates = {"maps": [1e-3, 3e-3], "lora": [3e-4, 1e-3]}
    path.write_text(json.dumps({"nothing": 4.0, "rates": rates, "runs": runs}))
    *_, nothing, lora, both = evidence_page.pretrained_lines(path)
    assert "| T0 | nothing | 0 | 0 |  | 4.0000 |" in nothing
    assert "| T1 | lora | 1,200 | 9 | 0.001 | 3.1000 ± 0.1000 |  | 3 |" in lora
    assert "| 0.003, 0.001 | 2.6000 ± 0.1000 | -0.5000 [-0.5000, -0.5000] | 3 |" in both


def test_what_is_kept_of_runs_is_where_they_are_continued(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(DOCS.parent / "benchmarks")
    import kept_folders

    runs, kept, elsewhere = (tmp_path / name for name in ("runs", "kept", "elsewhere"))
    for name in ("arms.json", "runs/a/seed-0/result.json", "runs/a/seed-0/curve.json"):
        (runs / name).parent.mkdir(parents=True, exist_ok=True)
        (runs / name).write_text(json.dumps({"loss": 1, "maps": {"large": [1, 2]}}))
    kept_folders.keep(runs, kept)
    elsewhere.mkdir()
    (elsewhere / "arms.json").write_text("{}")
    kept_folders.restore(kept, elsewhere)
    assert json.loads((elsewhere / "runs/a/seed-0/result.json").read_text()) == {"loss": 1, "maps": {}}
    assert (elsewhere / "arms.json").read_text() == "{}"
    assert not (elsewhere / "runs/a/seed-0/curve.json").exists()


def test_the_claims_on_heads_are_made_of_their_results(monkeypatch):
    monkeypatch.syspath_prepend(DOCS.parent / "benchmarks")
    import claims

    page = (DOCS / "evidence" / "claims.md").read_text()
    assert page == claims.page(), "run python benchmarks/claims.py > docs/evidence/claims.md"
    above = [row for row in claims.dependencies() + claims.constituency() if row["here"].startswith("shown")]
    assert len(above) == 3
    assert claims.p_of(1.0, [1 - 1.96, 1 + 1.96]) == pytest.approx(0.3173, abs=1e-3)
