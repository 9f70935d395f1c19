"""The compiled kernel is there and is what a call uses: a build that failed must not pass as skipped tests."""

import importlib.util

import pytest
import torch

from talking_heads import TalkingHeadsAttention, explain, talking_heads_attention
from talking_heads.kernels.cpu import binding
from tests.kernels.cpu.common import ROOT, needs_kernel

pytestmark = needs_kernel


def test_every_instruction_set_is_built():
    spec = importlib.util.spec_from_file_location("setup_of_the_package", ROOT / "setup.py")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    missing = [name for name in setup.SETS if binding.path_of(name) is None]
    assert not missing, "not compiled; `python setup.py build_ext --inplace` says why"


@pytest.fixture
def calls(monkeypatch):
    """The directions that the kernel was called in."""
    seen, run = [], binding.run
    monkeypatch.setattr(
        binding, "run", lambda direction, *a, **k: (seen.append(direction), run(direction, *a, **k))[1]
    )
    return seen


def test_auto_calls_it(calls):
    query, key, value = torch.randn(3, 2, 4, 16, 8, requires_grad=True)
    mix = torch.eye(4).requires_grad_()
    assert explain(query, key, value, mix, mix).backend == "cpu"
    talking_heads_attention(query, key, value, mix, mix).sum().backward()
    assert calls == ["forward", "backward"]


def test_a_layer_calls_it(calls):
    TalkingHeadsAttention(16, 4)(torch.randn(2, 16, 16)).sum().backward()
    assert calls == ["forward", "backward"]


def test_a_converted_model_calls_it(calls):
    hf, models = pytest.importorskip("talking_heads.hf"), pytest.importorskip("tests.hf.models")
    made = models.model("bert")
    hf.convert(made)
    made(**models.batch("bert", made)).loss.backward()
    assert calls == ["forward"] * 2 + ["backward"] * 2
