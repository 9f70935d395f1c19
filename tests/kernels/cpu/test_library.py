"""A library is used only if it is complete, this package's own and right; else the next backend is."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from talking_heads import talking_heads_attention
from talking_heads.kernels.cpu import binding, call, selftest, sources
from tests.kernels.cpu.common import ROOT, child, needs_kernel

pytestmark = needs_kernel

FUNCTIONS = [
    f"{direction}_{number}" for direction in ("forward", "backward") for number in ("float", "double")
]
OWN = {
    "sources": f'const char* talking_heads_sources() {{ return "{sources.digest()}"; }}',
    "set": 'const char* talking_heads_set() { return "plain"; }',
    "tensors": f'const char* talking_heads_tensors() {{ return "{"".join(f"{x}," for x in call.NAMES)}"; }}',
    "version": f"long talking_heads_version() {{ return {call.VERSION}; }}",
    "size": f"long talking_heads_size() {{ return {call.SIZE}; }}",
    **{name: f"int {name}(void*) {{ return 0; }}" for name in FUNCTIONS},
}


def stub(folder: Path, **changes: str) -> Path:
    """A library that says it is this package's own, but for the changes, and computes nothing."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    (folder / "stub.cpp").write_text('extern "C" {\n' + "\n".join((OWN | changes).values()) + "\n}\n")
    path = folder / "plain.so"
    subprocess.run([compiler, "-shared", "-fPIC", folder / "stub.cpp", "-o", path], check=True)
    return path


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"sources": "", "version": "", "size": ""}, "built for another version of this package"),
        ({"backward_double": ""}, "built for another version of this package"),
        ({"version": "long talking_heads_version() { return 1; }"}, "has version 1"),
        ({"size": "long talking_heads_size() { return 8; }"}, "and 8 bytes"),
        ({"tensors": OWN["tensors"].replace("query,key", "key,query")}, "its call structure"),
        ({"sources": OWN["sources"].replace(str(sources.digest()), "0" * 16)}, "from other sources"),
        ({"set": OWN["set"].replace("plain", "avx512")}, "for the instruction set avx512"),
        ({}, "its self-test gives wrong numbers"),
    ],
    ids=["older", "function missing", "version", "size", "order", "sources", "set", "numbers"],
)
def test_a_library_that_is_not_this_packages_own_is_refused(changes, reason, tmp_path):
    with pytest.raises(binding.Unusable, match=reason):
        binding.load(stub(tmp_path, **changes))


def test_a_damaged_library_is_refused_wherever_it_ends(tmp_path):
    """In a child: a page beyond the end of a mapped file kills the process."""
    code = f"""
from pathlib import Path
from talking_heads.kernels.cpu import binding
whole = binding.path_of(binding.installed()[0])
data, path = whole.read_bytes(), Path({str(tmp_path)!r}) / whole.name
sizes = [0, 1, 40, 64, 5000, *(len(data) * k // 17 for k in range(1, 17)), len(data) - 1]
for wrong in (*(data[:size] for size in sizes), b"text" * 999, bytes(len(data))):
    path.unlink(missing_ok=True)  # a new file: the old one may still be mapped
    path.write_bytes(wrong)
    try:
        binding.load(path)
    except binding.Unusable as reason:
        continue
    raise SystemExit(f"loaded {{len(wrong)}} bytes")
path.unlink()
path.mkdir()
try:
    binding.load(path)
except binding.Unusable:
    print("refused", len(sizes))
"""
    done = child(code)
    assert done.stdout == "refused 22\n", done.stdout + done.stderr


FALLS_BACK = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import torch, talking_heads
    from talking_heads import explain, talking_heads_attention
told = [str(x.message) for x in caught if "compiled kernel" in str(x.message)]
assert len(told) == {count} and all("pip install --no-cache-dir --force-reinstall" in x for x in told), told
x = torch.randn(1, 2, 5, 4, requires_grad=True)
found = explain(x, x, x)
assert found.backend == {backend!r}, found
assert {backend!r} == "cpu" or {reason!r} in found.reasons["cpu"], found
want = talking_heads_attention(x, x, x, backend="reference")
torch.testing.assert_close(talking_heads_attention(x, x, x), want)
print(talking_heads.__file__)
"""


@pytest.fixture
def package(tmp_path):
    """A copy of the package without libraries, and the place of one by name."""
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(ROOT / "talking_heads", tmp_path / "talking_heads", ignore=ignored)
    suffix = next(iter(binding.EXTENSION_SUFFIXES))
    return tmp_path, lambda name: tmp_path / "talking_heads/kernels/cpu" / f"{name}{suffix}"


def test_a_package_whose_libraries_are_damaged_uses_chunked_and_says_why(package):
    folder, place = package
    names = binding.installed()
    for name in names:
        place(name).touch()
    code = FALLS_BACK.format(count=len(names), backend="chunked", reason="the file is empty")
    done = child(code, folder=folder)
    assert done.returncode == 0 and done.stdout.startswith(str(folder)), done.stderr
    done = child("import warnings; warnings.simplefilter('error'); import talking_heads", folder=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(len(binding.installed()) < 2, reason="needs two libraries that this processor can run")
def test_the_next_best_library_is_used(package):
    folder, place = package
    best, second = binding.installed()[:2]
    place(best).write_bytes(b"")
    shutil.copy(binding.path_of(second), place(second))
    done = child(FALLS_BACK.format(count=1, backend="cpu", reason=""), folder=folder)
    assert done.returncode == 0, done.stderr


def test_a_library_of_another_python_is_left_alone(package):
    folder, place = package
    (place("x").parent / "avx2.cpython-310-x86_64-linux-gnu.so").touch()
    done = child(FALLS_BACK.format(count=0, backend="chunked", reason="was not compiled"), folder=folder)
    assert done.returncode == 0, done.stderr


def test_a_call_of_another_version_is_refused_by_the_library():
    made = call.Call(call.SIZE, call.VERSION + 1)
    assert binding._library.forward_float(made) == binding._OTHER_VERSION


def test_the_self_test_expects_what_the_reference_gives():
    inputs = {
        name: torch.tensor(selftest.numbers(name), dtype=torch.float64).view(shape).requires_grad_()
        for name, shape in selftest.SHAPES.items()
    }
    grad_output, mask = inputs.pop("grad_output"), inputs.pop("mask")
    options = {"attn_mask": mask, "scale": selftest.SCALE, "is_causal": True, "backend": "reference"}
    output = talking_heads_attention(**inputs, **options)
    inputs["mask"] = mask
    gradients = torch.autograd.grad(output, list(inputs.values()), grad_output)
    found = {"output": output, **dict(zip(inputs, gradients, strict=True))}
    for name, wanted in selftest.EXPECTED.items():
        assert selftest.checksum(found[name].flatten().tolist()) == pytest.approx(wanted, abs=1e-12), name
    assert set(found) == set(selftest.EXPECTED)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_after_use_computes_with_one_thread():
    """OpenMP's threads do not exist in the child, and waiting for them would never end."""
    code = """
import os, torch
from talking_heads import talking_heads_attention
x = torch.randn(1, 2, 400, 8)
torch.set_num_threads(2)
want = talking_heads_attention(x, x, x, backend="cpu")
worker = os.fork()
if worker == 0:
    os._exit(not torch.equal(talking_heads_attention(x, x, x, backend="cpu"), want))
assert os.waitpid(worker, 0)[1] == 0
"""
    assert (done := child(code, timeout=60)).returncode == 0, done.stderr
