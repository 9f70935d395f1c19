"""The survey of instruments: a sample here, all architectures in docs/results/instruments.json."""

import json
from pathlib import Path

import pytest

from talking_heads.heads.survey import examine
from talking_heads.heads.survey_page import CHECKS, counts, markdown
from talking_heads.hf.survey.folders import folders

ROOT = Path(__file__).parents[2]
RESULT = json.loads((ROOT / "docs/results/instruments.json").read_text())
SAMPLE = {  # folder: what does not work
    "bert": {},
    "clip": {},
    "mllama": {"prune": "refused"},
    # its attention negates the mask that transformers makes additive for eager attention
    "nemotron_asr_streaming": {
        "view": "refused",
        "dependencies": "refused",
        "losses": "none",
        "importance": "none",
        "prune": "refused",
    },
    "vit": {"dependencies": "refused"},
    "whisper": {},
}


@pytest.mark.parametrize("folder", SAMPLE)
def test_a_sample(folder):
    row = examine(folder)
    for name in CHECKS:
        assert row[name].partition(":")[0] == SAMPLE[folder].get(name, "works"), row[name]
        assert row[name] == "works" or row[name].startswith("none: ") or "; got " in row[name]


@pytest.mark.slow
@pytest.mark.parametrize("folder", sorted(set(folders()) - set(SAMPLE)))
def test_the_others(folder):
    row = examine(folder)
    assert not [x for x in CHECKS if row.get(x, "").startswith(("wrong", "fault"))], row


def test_what_the_documents_say():
    rows = [row for row in RESULT["rows"] if "class" in row]
    assert {row["folder"] for row in RESULT["rows"]} <= set(folders()) and len(rows) >= 250
    assert not [row for row in rows for x in CHECKS if row[x].startswith(("wrong", "fault"))]
    assert counts(rows, "gates")["works"] >= 250 and counts(rows, "losses")["works"] >= 200
    assert (ROOT / "docs/instruments.md").read_text() == markdown(RESULT)
