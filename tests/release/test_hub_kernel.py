"""The folder for Hugging Face's package `kernels`: what it must be, and that it computes what the package does."""

import ast
import base64
import hashlib
import json
import os
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "release/hub_kernel.py"))
# Loaded as `kernels` loads it: from a file, under the id of its metadata; by `kernels` itself where that is installed.
LOAD = """
import importlib.util, json, sys
from pathlib import Path
folder = Path(sys.argv[1])
variant = folder / "build" / "torch-universal"
try:
    from kernels import get_local_kernel
    kernel = get_local_kernel(folder)
except ImportError:
    name = json.loads((variant / "metadata.json").read_text())["id"]
    spec = importlib.util.spec_from_file_location(name, variant / "__init__.py")
    kernel = importlib.util.module_from_spec(spec)
    sys.modules[name] = kernel
    spec.loader.exec_module(kernel)
import torch
import talking_heads
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernel") / "out"
    SCRIPT["write"](folder)
    return folder


def files(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def run(code, folder, **environment):
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [sys.executable, "-c", LOAD + code, str(folder)], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_layout(kernel):
    build = tomllib.loads((kernel / "build.toml").read_text())
    assert build["general"]["name"] == "talking-heads-attention" and "torch-noarch" in build
    assert (kernel / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    variant = kernel / "build" / "torch-universal"
    about = json.loads((variant / "metadata.json").read_text())
    assert about["id"].isidentifier() and about["id"].startswith("_talking_heads_attention_")
    written = files(variant)
    assert about["digest"]["files"] == {
        name: base64.b64encode(hashlib.sha256(path.read_bytes()).digest()).decode()
        for name, path in written.items()
        if name != "metadata.json"
    }
    nested = "talking_heads_attention/__init__.py"  # for earlier versions of `kernels`
    sources = files(kernel / "torch-ext" / "talking_heads_attention")
    assert {name: path.read_text() for name, path in sources.items()} == {
        name: path.read_text() for name, path in written.items() if name not in (nested, "metadata.json")
    }
    assert not [name for name in written if name.endswith((".so", ".cpp", ".h"))]


def test_the_folder_is_the_same_each_time(kernel, tmp_path):
    SCRIPT["write"](tmp_path / "again")
    assert {k: v.read_bytes() for k, v in files(kernel).items()} == {
        k: v.read_bytes() for k, v in files(tmp_path / "again").items()
    }


def test_syntax_is_python_39s_and_imports_are_relative(kernel):
    for name, path in files(kernel / "build").items():
        if not name.endswith(".py"):
            continue
        tree = ast.parse(path.read_text(), feature_version=(3, 9))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            elif isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            else:
                modules = []
            for module in modules:
                top = module.partition(".")[0]
                assert top in ("torch", "triton") or top in sys.stdlib_module_names, (name, module)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "zip":
                assert not node.keywords, (name, node.lineno)


def test_it_computes_what_the_package_does_and_has_operators_of_its_own(kernel):
    code = """
assert kernel.talking_heads_attention is not talking_heads.talking_heads_attention
torch.manual_seed(0)
query, key, value = torch.randn(3, 2, 4, 9, 8, requires_grad=True)
mix = torch.randn(4, 4, requires_grad=True)
for backend in ("auto", "chunked", "reference"):
    got = kernel.talking_heads_attention(query, key, value, mix, mix, is_causal=True, backend=backend)
    want = talking_heads.talking_heads_attention(query, key, value, mix, mix, is_causal=True)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(*(torch.autograd.grad(x.sum(), mix) for x in (got, want)))
compiled = torch.compile(kernel.talking_heads_attention, backend="eager", fullgraph=True)
torch.testing.assert_close(compiled(query, key, value, mix, mix, is_causal=True), want)
name = kernel.__name__.rpartition(".")[2]
assert hasattr(getattr(torch.ops, name), "chunked") and hasattr(torch.ops.talking_heads, "chunked")
print(kernel.explain(query, key, value, mix))
"""
    assert run(code, kernel).splitlines()[-1] == "-> chunked"


def test_the_nested_package_of_earlier_versions_is_the_same(kernel):
    code = """
spec = importlib.util.spec_from_file_location("nested", variant / "talking_heads_attention" / "__init__.py")
nested = importlib.util.module_from_spec(spec)
sys.modules["nested"] = nested
spec.loader.exec_module(nested)
assert nested.__all__ == kernel.__all__
x = torch.randn(1, 2, 5, 4)
torch.testing.assert_close(nested.talking_heads_attention(x, x, x), kernel.talking_heads_attention(x, x, x))
"""
    run(code, kernel)


def test_its_triton_kernels_run(kernel):
    code = """
x = torch.randn(1, 2, 5, 16, requires_grad=True)
mix = torch.eye(2) + 0.1
got = kernel.talking_heads_attention(x, x, x, mix, mix, backend="triton")
want = kernel.talking_heads_attention(x, x, x, mix, mix, backend="reference")
torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
torch.testing.assert_close(*(torch.autograd.grad(y.sum(), x)[0] for y in (got, want)), rtol=1e-4, atol=1e-5)
"""
    run(code, kernel, TRITON_INTERPRET="1")


def test_what_python_39_lacks_is_refused():
    with pytest.raises(ValueError, match="outside an annotation"):
        SCRIPT["for_python_39"]("Alias = int | None\n", "x.py")
    with pytest.raises(SyntaxError):
        SCRIPT["for_python_39"]("match x:\n    case 1: pass\n", "x.py")
    made = SCRIPT["for_python_39"](
        '"""Doc."""\n\ndef f(x: int | None) -> None:\n    zip(x, x, strict=True)\n', "x.py"
    )
    assert made.splitlines()[2] == "from __future__ import annotations" and "zip(x, x)" in made


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(SystemExit, match="must be new or empty"):
        SCRIPT["write"](tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
