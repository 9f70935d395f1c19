"""Without a compiler: the package installs and works all the same, and says what it lacks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from talking_heads import explain
from talking_heads.kernels.cpu import binding
from tests.cases import Case
from tests.kernels.cpu.common import ROOT, child

WITHOUT = """
import torch, talking_heads
from talking_heads import explain, talking_heads_attention
from talking_heads.kernels.cpu import binding
assert binding.installed() == ()
x = torch.randn(1, 2, 5, 4, requires_grad=True)
found = explain(x, x, x)
assert found.backend == "chunked" and "install a C++ compiler" in found.reasons["cpu"], found
assert "not cpu: it was not compiled" in str(found) and "-> chunked" in str(found)
talking_heads_attention(x, x, x).sum().backward()
assert x.grad is not None
try:
    talking_heads_attention(x, x, x, backend="cpu")
except ValueError as refusal:
    assert "install a C++ compiler (g++ or clang++)" in str(refusal), refusal
    assert 'backend="chunked" can' in str(refusal) or 'backend="decode" can' in str(refusal), refusal
else:
    raise SystemExit("backend='cpu' did not refuse")
print(talking_heads.__file__)
"""


def works_without_the_kernel(folder: Path) -> None:
    done = child(WITHOUT, folder=folder)
    assert done.returncode == 0 and done.stdout.startswith(str(folder)), done.stdout + done.stderr


def copy_of_the_sources(folder: Path) -> Path:
    shutil.copytree(ROOT / "talking_heads", folder / "talking_heads", ignore=lambda _, names: _built(names))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def _built(names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".so") or name == "__pycache__"]


def install(sources: Path, target: Path, **environment: str) -> None:
    """pip install with the setuptools that is here, so that nothing is fetched."""
    pytest.importorskip("setuptools", minversion="77")
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*command, "--target", str(target), str(sources)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_library_auto_takes_chunked_and_cpu_says_how_to_get_it(tmp_path):
    works_without_the_kernel(copy_of_the_sources(tmp_path))


def test_the_reason_reaches_explain_as_it_stands(monkeypatch):
    monkeypatch.setattr(binding, "MISSING", "it is elsewhere")
    found = explain(**Case().inputs())
    assert found.backend == "chunked" and found.reasons["cpu"] == "it is elsewhere"


@pytest.mark.slow
def test_it_installs_with_a_broken_compiler(tmp_path):
    sources, target = copy_of_the_sources(tmp_path / "sources"), tmp_path / "site"
    install(sources, target, CC="/bin/false", CXX="/bin/false")
    assert not list(target.rglob("*.so"))
    works_without_the_kernel(target)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
@pytest.mark.parametrize("compiler", ["g++", "g++-11", "clang++"])
def test_it_installs_with_the_kernel_where_there_is_a_compiler(compiler, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    sources, target = copy_of_the_sources(tmp_path / "sources"), tmp_path / "site"
    install(sources, target, CC=compiler, CXX=compiler)
    code = """
import torch
from talking_heads import explain, talking_heads_attention
from talking_heads.kernels.cpu import binding
x = torch.randn(2, 4, 70, 16)
assert explain(x.requires_grad_(), x, x).backend == "cpu"
for name in binding.installed():
    with binding.using(binding.path_of(name)):
        got = talking_heads_attention(x, x, x, torch.eye(4), torch.eye(4), backend="cpu")
    torch.testing.assert_close(got, torch.nn.functional.scaled_dot_product_attention(x, x, x))
print(len(binding.installed()), binding.path_of("plain"))
"""
    done = child(code, folder=target)
    assert done.returncode == 0 and str(target) in done.stdout, done.stdout + done.stderr
    sets = sorted(path.name.split(".")[0] for path in target.rglob("*.so"))
    assert "plain" in sets and (len(sets) == 3 or sys.platform != "linux" or os.uname().machine != "x86_64")
