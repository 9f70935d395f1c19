"""Each instruction set that this machine has, forced through the contract's cases."""

from dataclasses import replace

import pytest
import torch

from talking_heads.kernels.cpu import binding
from tests.cases import DYNAMIC, Case, check
from tests.kernels.cpu.common import child, needs_kernel
from tests.kernels.test_contract import CASES

pytestmark = needs_kernel

SETS = [*binding.installed()] or ["none"]
MATRIX = CASES | {
    "no multiple of anything": Case(b=2, i=5, h=7, j=3, n=67, m=131, k=19, v=13, is_causal=True),
    "more heads than a tile holds": Case(b=1, i=6, h=26, j=5, n=34, m=70, k=8, v=8),
    "whole vectors": Case(b=2, i=4, h=4, j=4, n=64, m=128, k=16, v=32),
    "float mask": Case(n=35, m=66, mask="float", mask_shape=(1, 1, 1, 1)),
    "float mask broadcast": Case(n=35, m=66, mask="float", mask_shape=(0, 1, 0, 1)),
    "everything": Case(n=37, m=66, mask="float", dynamic=DYNAMIC, is_causal=True, dropout_p=0.2),
}


class Spy:
    """A library that notes which of its functions are called."""

    def __init__(self, library):
        self.library, self.calls = library, []

    def __getattr__(self, name):
        self.calls.append(name)
        return getattr(self.library, name)


@pytest.fixture(params=SETS)
def forced(request, monkeypatch):
    """(name, spy) of the forced library; the calls must have been its own."""
    with binding.using(binding.path_of(request.param)):
        assert binding._library._name == str(binding.path_of(request.param))
        spy = Spy(binding._library)
        monkeypatch.setattr(binding, "_library", spy)
        yield request.param, spy
        monkeypatch.undo()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_every_case_with_the_set_forced(forced, dtype):
    _, spy = forced
    number = "double" if dtype == torch.float64 else "float"
    for case in MATRIX.values():
        spy.calls.clear()
        check(replace(case, dtype=dtype), "cpu")
        assert spy.calls == [f"forward_{number}", f"backward_{number}"]


def test_using_puts_the_former_library_back():
    before = binding._library
    with pytest.raises(KeyError), binding.using(binding.path_of(SETS[-1])):
        assert binding._library is not before
        raise KeyError
    assert binding._library is before


@pytest.mark.parametrize(
    "capability, wanted",
    [("AVX512", ("avx512", "avx2", "plain")), ("AVX2", ("avx2", "plain")), ("DEFAULT", ("plain",))],
)
def test_the_best_set_that_the_processor_has_is_chosen_at_run_time(capability, wanted, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    built = [name for name in wanted if binding.path_of(name) is not None]
    assert list(binding.installed()) == built
    monkeypatch.setattr(binding, "load", lambda path: path)  # this processor may not be able to run it
    assert binding._best() == (binding.path_of(built[0]), None)


def test_a_processor_without_avx2_uses_the_plain_library():
    code = """
import torch
from talking_heads import talking_heads_attention
from talking_heads.kernels.cpu import binding
assert torch.backends.cpu.get_cpu_capability() == "DEFAULT" and binding.installed() == ("plain",)
assert binding._library.talking_heads_set() == b"plain"
x = torch.randn(1, 3, 40, 8)
maps = torch.randn(3, 3), torch.randn(3, 3)
found = [talking_heads_attention(x, x, x, *maps, backend=name) for name in ("cpu", "reference")]
torch.testing.assert_close(*found)
"""
    done = child(code, ATEN_CPU_CAPABILITY="default")
    assert done.returncode == 0, done.stderr
