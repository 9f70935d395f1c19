"""Writes the operator as a kernel for Hugging Face's package `kernels`: a folder that needs torch (and Triton) only.

    python release/hub_kernel.py runs/kernel
    python -c 'import kernels, pathlib; print(kernels.get_local_kernel(pathlib.Path("runs/kernel")))'

The folder has build.toml and its sources (torch-ext/NAME) for kernel-builder, and what that makes of a package without
compiled code: build/torch-universal. Sources are this package's own, changed as the requirements of such kernels ask:
imports are relative already; syntax is Python 3.9's; torch's operators get a namespace of their own, named by a digest
of the sources, so that several versions can be loaded side by side.
"""

import argparse
import ast
import base64
import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "talking_heads"
NAME, VERSION = "talking-heads-attention", 0
MODULE = NAME.replace("-", "_")
LEFT_OUT = {"compiled.py"}  # of kernels/triton: a tool of the developers
FILES = (
    *("functional.py", "checks.py", "operands.py", "errors.py"),
    *(
        str(path.relative_to(PACKAGE))
        for folder in ("kernels", "kernels/cpu", "kernels/triton")
        for path in sorted((PACKAGE / folder).iterdir())
        if path.suffix in (".py", ".json") and path.name not in LEFT_OUT
    ),
)
INIT = '''"""Attention whose heads exchange information (Talking-Heads Attention, Shazeer et al., 2020, arXiv:2003.02436)."""

from .functional import Explanation, explain, talking_heads_attention
from .kernels.problem import LowRankMix

__all__ = ["Explanation", "LowRankMix", "explain", "talking_heads_attention"]
'''
# Earlier versions of `kernels` import this package inside the folder.
NESTED = '''"""The same as the folder around this one, for earlier versions of the package `kernels`."""

import importlib.util
import sys
from pathlib import Path

_name = __name__ + "_flat"
_spec = importlib.util.spec_from_file_location(_name, Path(__file__).parents[1] / "__init__.py")
_module = importlib.util.module_from_spec(_spec)
sys.modules[_name] = _module
_spec.loader.exec_module(_module)
globals().update({name: getattr(_module, name) for name in _module.__all__})
__all__ = list(_module.__all__)
'''
BUILD = f"""[general]
name = "{NAME}"
version = {VERSION}
edition = 6
license = "Apache-2.0"
backends = ["cpu", "cuda"]

[torch-noarch]
pyext = ["py", "json"]
"""
CARD = f"""---
license: apache-2.0
tags: [kernels]
---
# {NAME}

`talking_heads_attention` as `torch.nn.functional.scaled_dot_product_attention`, with learned maps across heads before and
after the softmax (arXiv:2003.02436); fused in Triton on NVIDIA GPUs, in plain PyTorch elsewhere. `explain` says which
backend a call takes and why. Written by `release/hub_kernel.py` of the project talking-heads.
"""


def for_python_39(source: str, name: str) -> str:
    """The source without what Python 3.9 does not have.

    Raises:
        ValueError: something that no rule here changes.
    """
    source = re.sub(r",\s*strict=(True|False)(?=\s*,?\s*\))", "", source)
    if name == "kernels/problem.py":  # annotations are texts below, which Python 3.9 cannot evaluate
        source = _replaced(source, "get_type_hints(Problem).items()", "Problem.__annotations__.items()")
        source = _replaced(source, "{_KINDS[kind]}", "{_KINDS[getattr(kind, '__forward_arg__', kind)]}")
        source = _replaced(
            source,
            '{Tensor: "Tensor", Tensor | None: "Tensor?", bool: "bool", float: "float"}',
            '{"Tensor": "Tensor", "Tensor | None": "Tensor?", "bool": "bool", "float": "float"}',
        )
        source = _replaced(
            source, "from typing import NamedTuple, get_type_hints", "from typing import NamedTuple"
        )
    tree = ast.parse(source, feature_version=(3, 9))
    unions = _unions(tree)
    if unions["elsewhere"]:
        raise ValueError(f"{name}: a union of types outside an annotation, at lines {unions['elsewhere']}")
    if unions["annotations"] and "from __future__ import annotations" not in source:
        place = tree.body[0].end_lineno if ast.get_docstring(tree) else 0
        lines = source.splitlines(keepends=True)
        lines.insert(place or 0, "\nfrom __future__ import annotations\n")
        source = "".join(lines)
    return source


def _replaced(source: str, old: str, new: str) -> str:
    if old not in source:
        raise ValueError(f"not found: {old}")
    return source.replace(old, new)


def _unions(tree: ast.AST) -> dict[str, list[int]]:
    """Lines of `X | Y` of types, in annotations and elsewhere."""
    found: dict[str, list[int]] = {"annotations": [], "elsewhere": []}

    def visit(node: ast.AST, annotation: bool) -> None:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and _is_type(node):
            found["annotations" if annotation else "elsewhere"].append(node.lineno)
        for field, value in ast.iter_fields(node):
            inside = annotation or field in ("annotation", "returns")
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child, inside)

    visit(tree, False)
    return found


def _is_type(node: ast.BinOp) -> bool:
    """Whether a side of `|` is None or has a name like a class."""
    for side in (node.left, node.right):
        if isinstance(side, ast.Constant) and side.value is None:
            return True
        name = getattr(side, "attr", getattr(side, "id", ""))
        if name in ("str", "int", "float", "bool") or re.fullmatch(r"[A-Z][a-z]\w*", name):
            return True
    return False


def sources() -> tuple[str, dict[str, str]]:
    """(the kernel's id, {path: text}) of its files."""
    written = {"__init__.py": INIT}
    for name in FILES:
        text = (PACKAGE / name).read_text("utf-8")
        written[name] = for_python_39(text, name) if name.endswith(".py") else text
    digest = hashlib.sha256("\0".join(f"{k}\0{v}" for k, v in sorted(written.items())).encode()).hexdigest()
    identity = f"_{MODULE}_{digest[:10]}"
    place = "kernels/operator.py"
    written[place] = _replaced(written[place], 'NAMESPACE = "talking_heads"', f'NAMESPACE = "{identity}"')
    return identity, written


def write(out: Path) -> str:
    """Writes the folder (new or empty); returns the kernel's id."""
    if out.exists() and any(out.iterdir()):
        raise SystemExit(f"the folder to write must be new or empty; got {out}; name another")
    identity, written = sources()
    (out / "torch-ext").mkdir(parents=True)
    (out / "build.toml").write_text(BUILD)
    (out / "README.md").write_text(CARD)
    shutil.copy(PACKAGE.parent / "LICENSE", out)
    _files(out / "torch-ext" / MODULE, written)
    variant = out / "build" / "torch-universal"
    built = {**written, f"{MODULE}/__init__.py": NESTED}
    _files(variant, built)
    digests = {
        name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in built.items()
    }
    metadata = {
        "id": identity,
        "name": NAME,
        "version": VERSION,
        "license": "Apache-2.0",
        "python-depends": [],
        "backend": {"type": "cpu"},
        "digest": {"algorithm": "sha256", "files": dict(sorted(digests.items()))},
    }
    (variant / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n")
    return identity


def _files(folder: Path, written: dict[str, str]) -> None:
    for name, text in written.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder to write (new or empty)")
    print(write(parser.parse_args(sys.argv[1:]).out))
