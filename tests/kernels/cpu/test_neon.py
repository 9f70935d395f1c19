"""ARM: the kernel built by a cross compiler for aarch64 (NEON), its calls replayed under qemu-user."""

import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from talking_heads.checks import prepare
from talking_heads.kernels.cpu import call, sources
from tests.cases import DYNAMIC, Case, allowed_error, arguments, exact
from tests.kernels.cpu.common import needs_kernel

COMPILER, EMULATOR = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
pytestmark = [
    needs_kernel,
    pytest.mark.slow,
    pytest.mark.skipif(not (COMPILER and EMULATOR), reason="no cross compiler for aarch64 or no qemu-user"),
]

CASES = {
    "maps": Case(n=37, m=70, k=19, v=13),
    "mask": Case(n=20, m=66, mask="dead", is_causal=True),
    "everything": Case(n=20, m=34, mask="float", dynamic=DYNAMIC, is_causal=True),
    "groups, low rank": Case(i=6, h=6, j=6, groups=2, n=18, m=35, dynamic=DYNAMIC, rank=2),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("neon") / "replay"
    here = Path(__file__).parent / "replay.cpp"
    flags = ["-std=c++17", "-O3", "-static", "-fno-math-errno", "-Wno-psabi", f"-I{sources.FOLDER}"]
    subprocess.run([COMPILER, *flags, here, "-o", path], check=True)
    return path


def replay(program: Path, is_backward: bool, made: call.Call, tensors: dict[str, torch.Tensor]) -> None:
    """The call on the emulated processor; the tensors hold its results."""
    is_double = tensors["query"].dtype == torch.float64
    data = struct.pack("<3q", is_backward, is_double, call.SIZE) + bytes(made)
    data += struct.pack("<q", len(tensors))
    for name, x in tensors.items():
        assert x.is_contiguous()
        data += struct.pack("<2q", getattr(call.Call, name).offset, x.nbytes)
        data += x.detach().view(-1).view(torch.uint8).numpy().tobytes()
    done = subprocess.run([EMULATOR, program], input=data, capture_output=True, timeout=300)
    assert done.returncode == 0, (done.returncode, done.stderr)
    at = 0
    for x in tensors.values():
        found = torch.frombuffer(bytearray(done.stdout[at : at + x.nbytes]), dtype=x.dtype)
        x.detach().copy_(found.view(x.shape))
        at += x.nbytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_neon_equals_the_reference(name, dtype, program):
    case = replace(CASES[name], dtype=dtype)
    inputs = case.inputs()
    with torch.no_grad():
        problem = prepare(**arguments(inputs), is_causal=case.is_causal)
    wanted, allowed = exact(case, inputs), allowed_error(case)
    given = {
        field: x.detach().contiguous()
        for field, x in problem._asdict().items()
        if isinstance(x, torch.Tensor)
    }
    problem = problem._replace(**given)
    output, normalizer = problem.empty_output().contiguous(), torch.empty(2, *problem.sizes[:3], dtype=dtype)
    results = {"normalizer": normalizer, "output": output}
    replay(program, False, call.of(problem, threads=1, **results), given | results)
    weight = torch.Generator().manual_seed(case.seed + 1)
    results["grad_output"] = torch.randn(output.shape, generator=weight, dtype=torch.float64).to(dtype)
    gradients = {f"grad_{field}": torch.zeros_like(x) for field, x in given.items() if x.is_floating_point()}
    made = call.of(problem, threads=1, parts=case.b, **results, **gradients)
    replay(program, True, made, given | results | gradients)
    found = {"output": output}
    for field, x in gradients.items():
        field = "grad attn_mask" if field == "grad_mask" else field.replace("_", " ", 1)
        if x.dim() == 5:
            rank = x.shape[3] // 2
            parts = x[:, :, 0, :rank], x[:, :, 0, rank : 2 * rank], x[:, :, 0, -1]
            found |= {f"{field}.{part}": y for part, y in zip(("down", "up", "diagonal"), parts, strict=True)}
        else:
            found[field] = x
    assert set(found) == set(wanted)
    for field, x in found.items():
        error = (x.double() - wanted[field]).abs().max().item()
        assert error <= allowed[field], f"{field}: error {error:.3g}, allowed {allowed[field]:.3g}"
