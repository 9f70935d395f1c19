"""The survey of instruments: a sample here, all architectures in docs/results/instruments.json."""

import pytest

from talking_heads.heads.survey import CHECKS, examine
from talking_heads.hf.survey.folders import folders

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
