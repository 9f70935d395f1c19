"""The survey of instruments: a sample here, all architectures in docs/results/instruments.json."""

import json
from pathlib import Path

import pytest

from talking_heads.heads.survey import CHECKS, counts, examine, markdown
from talking_heads.hf.survey.folders import folders

ROOT = Path(__file__).parents[2]
RESULT = json.loads((ROOT / "docs/results/instruments.json").read_text())
SAMPLE = {  # folder: what does not work
    "bert": {},
    "clip": {},
    "mllama": {"prune": "refused"},
    "vit": {"view": "refused", "dependencies": "refused"},
    "whisper": {},
}


@pytest.mark.parametrize("folder", SAMPLE)
def test_a_sample(folder):
    row = examine(folder)
    for name in CHECKS:
        assert row[name].partition(":")[0] == SAMPLE[folder].get(name, "works"), row[name]
        assert row[name] == "works" or "; got " in row[name]


@pytest.mark.slow
@pytest.mark.parametrize("folder", sorted(set(folders()) - set(SAMPLE)))
def test_the_others(folder):
    row = examine(folder)
    assert not [row[name] for name in CHECKS if row.get(name, "").startswith(("wrong", "fault"))]


def test_what_the_documents_say():
    rows = [row for row in RESULT["rows"] if "class" in row]
    assert {row["folder"] for row in RESULT["rows"]} <= set(folders()) and len(rows) >= 250
    for name in CHECKS:
        found = counts(rows, name)
        assert not found["wrong"] and not found["fault"], name
    assert (ROOT / "docs/instruments.md").read_text() == markdown(RESULT)
