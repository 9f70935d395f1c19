"""The kernel under AddressSanitizer and UndefinedBehaviorSanitizer: it stays inside its tensors."""

import pytest

from talking_heads.kernels.cpu import binding
from tests.cases import in_ci
from tests.kernels.cpu import sanitized

SETS = [*binding.installed()] or ["none"]
REASON = sanitized.missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no sanitized build: {REASON}")

SAMPLE = """
import sys
from pathlib import Path
from talking_heads.kernels.cpu import binding
from tests.cases import DYNAMIC, Case, run
from tests.kernels.cpu.random_calls import draw
from talking_heads import talking_heads_attention
cases = [draw(seed) for seed in range(1, 25)] + [
    Case(b=1, i=1, h=1, j=1, n=1, m=1, k=1, v=1),
    Case(n=131, m=257, k=17, v=5, mask="float", mask_shape=(1, 1, 1, 1), dynamic=DYNAMIC, is_causal=True),
    Case(n=20, m=150, is_causal=True, k=16, v=32),
    Case(bias=True, dropout_p=0.5, n=70, m=70),
]
with binding.using(Path(sys.argv[1])):
    for case in cases:
        run(talking_heads_attention, case, case.inputs(), backend="cpu")
    for poison in (float("nan"), float("inf")):
        inputs = {name: x.detach() for name, x in cases[-3].inputs().items()}
        inputs["key"][1, 1, 7, 2] = inputs["value"][0, 0, 3, 1] = poison
        inputs = {name: x.requires_grad_() for name, x in inputs.items()}
        run(talking_heads_attention, cases[-3], inputs, backend="cpu")
print("clean")
"""
# The kernel is told of one more key, or one more query, than the tensors have.
OVERRUN = """
import sys, torch
from pathlib import Path
from talking_heads.kernels.cpu import binding, call
from talking_heads import talking_heads_attention
honest = call.of
def lying(*arguments, **tensors):
    made = honest(*arguments, **tensors)
    setattr(made, sys.argv[2], getattr(made, sys.argv[2]) + 1)
    return made
call.of = lying
with binding.using(Path(sys.argv[1])):
    x = torch.randn(1, 1, 5, 3)
    talking_heads_attention(x, x.clone(), x.clone(), backend="cpu")
print("nothing seen")
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return sanitized.build(tmp_path_factory.mktemp("sanitized"), SETS[0])


def test_a_sample_of_the_matrix_is_clean(library):
    done = sanitized.python(library, "-c", SAMPLE, str(library), timeout=300)
    assert done.stdout == "clean\n" and done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("size", in_ci(["m", "n"], "m"))
def test_an_overrun_is_seen(library, size):
    done = sanitized.python(library, "-c", OVERRUN, str(library), size, timeout=300)
    assert done.returncode != 0 and "heap-buffer-overflow" in done.stderr, done.stderr[-4000:]
    assert "nothing seen" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_the_whole_matrix_is_clean(name, tmp_path):
    done = sanitized.tests(sanitized.build(tmp_path, name), *sanitized.MATRIX, timeout=3000)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert "passed" in done.stdout and "runtime error" not in done.stderr
