"""`talking-heads doctor`: the report is of this installation, and its reasons are the kernels' own."""

import json

import pytest
import torch

import talking_heads as package
from talking_heads import doctor, explain
from talking_heads.kernels.cpu import binding

from .running import talking_heads  # noqa: F401


@pytest.fixture(scope="module")
def found():
    return doctor.examine()


def test_versions(found):
    assert found["version"] == package.__version__ and found["versions"]["torch"] == torch.__version__
    assert {"python", "transformers"} < found["versions"].keys()


def test_the_backends_are_those_that_the_operator_takes_and_the_reasons_its_own(found):
    by_call = {(x["call"], x["device"]): x for x in found["calls"]}
    assert {device for _, device in by_call} == {"cpu", "cuda"} and len(by_call) == 2 * len(doctor.CALLS)
    for name, (queries, memory, learns) in doctor.CALLS.items():
        query, key = torch.randn(1, 12, queries, 64), torch.randn(1, 12, memory, 64)
        with torch.set_grad_enabled(learns):
            wanted = explain(query.requires_grad_(learns), key, key, torch.eye(12), torch.eye(12))
        row = by_call[name, "cpu"]
        assert (row["backend"], row["reasons"]) == (wanted.backend, wanted.reasons)
    if not torch.cuda.is_available():
        assert all("torch" in by_call[name, "cuda"]["reasons"]["triton"] for name in doctor.CALLS)


def test_the_kernel(found):
    kernel = found["kernel"]
    if binding.MISSING is not None:
        assert not kernel["used"] and kernel["why_not"] == binding.MISSING
        return
    assert kernel["used"] and kernel["instruction_set"] == binding.installed()[0]
    assert kernel["instruction_set"] in kernel["built"] and kernel["library"].endswith(".so")
    assert kernel["compiler"] and ("GCC" in kernel["compiler"] or "clang" in kernel["compiler"])


def test_without_a_kernel_it_says_why_and_the_command(monkeypatch):
    monkeypatch.setattr(binding, "_library", None)
    monkeypatch.setattr(binding, "MISSING", "it was not compiled: run: pip install x")
    found = doctor.examine()
    assert found["kernel"]["why_not"] == binding.MISSING and not found["kernel"]["used"]
    assert (
        found["calls"][0]["backend"] == "chunked" and found["calls"][0]["reasons"]["cpu"] == binding.MISSING
    )
    assert "CPU kernel: none; it was not compiled: run: pip install x" in "\n".join(doctor.lines(found))


def test_extras_that_are_missing_or_too_old_are_named_with_the_command(monkeypatch):
    lines = [
        "torch>=2.9",
        'no-such-package>=1; extra == "cli"',
        'torch>=999; extra == "gpu"',
        'pytest>=1; extra == "dev"',
        'talking-heads-attention[cli]; extra == "train"',
    ]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: lines)
    found = doctor.extras()
    assert found["cli"]["missing"] == ["no-such-package"] == found["train"]["missing"]
    assert found["gpu"]["too_old"] == [f"torch {doctor.importlib.metadata.version('torch')} (needs 999)"]
    assert not found["dev"]["missing"] and found["train"]["install"].endswith("[train]'")


def test_the_command(talking_heads, tmp_path):  # noqa: F811
    done = talking_heads("doctor", "--json", tmp_path / "doctor.json")
    found = json.loads((tmp_path / "doctor.json").read_text())
    assert done.code == 0 and not done.err and found["kernel"] and found["extras"] is not None
    assert "cpu float32, training, 512 positions: " in done.out and "GPU: " in done.out
    done = talking_heads("doctor", "--json", "-")
    assert json.loads(done.out)["version"] == package.__version__ and "training" in done.err
