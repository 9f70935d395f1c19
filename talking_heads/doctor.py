"""What is installed, which backend runs a typical call, and why the faster ones do not: for a bug report."""

import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from . import __version__
from .functional import explain
from .kernels.cpu import binding, install
from .results.provenance import provenance

NAME = install.NAME
PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "safetensors",
    "numpy",
    "triton",
    "typer",
    "rich",
)
VARIABLES = (
    *(
        "CUDA_VISIBLE_DEVICES",
        "TRITON_INTERPRET",
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "ATEN_CPU_CAPABILITY",
    ),
    *("HF_HOME", "HF_HUB_OFFLINE", "NO_COLOR"),
)
# {a typical call: (query positions, memory positions, whether with gradients)}; 12 heads of size 64, maps learned.
CALLS = {
    "training, 512 positions": (512, 512, True),
    "inference, 512 positions": (512, 512, False),
    "generation, 1 of 512 positions": (1, 512, False),
}


def examine() -> dict[str, Any]:
    """{"version", "folder", "versions", "machine", "kernel", "gpus", "cuda", "calls", "extras", "variables"}.

    kernel: the compiled CPU kernel, or `why_not`. calls: {"call", "device", "dtype", "backend", "reasons"}, reasons
    by the name of each faster backend, in its own words. extras: {name: {"missing", "too_old", "install"}}.
    """
    about = provenance()
    return {
        "version": __version__,
        "folder": str(Path(__file__).parent),
        "commit": about["commit"],
        "versions": {"python": platform.python_version()} | dict(_versions(PACKAGES)),
        "machine": about["machine"],
        "kernel": kernel(),
        "gpus": _gpus(),
        "cuda": torch.version.cuda,
        "calls": [*_calls("cpu", torch.float32), *_on_gpu()],
        "extras": extras(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def _versions(names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for name in names:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue


def kernel() -> dict[str, Any]:
    """The compiled CPU kernel: {"used", "instruction_set", "library", "compiler", "built", "processor", "why_not"}."""
    names = ("avx512", "avx2", "plain")
    built = {name: path for name in names if (path := binding.path_of(name)) is not None}
    library = binding.library()
    used = None if library is None else Path(library._name)
    return {
        "used": library is not None,
        "instruction_set": None if library is None else library.talking_heads_set().decode(),
        "library": used and str(used),
        "compiler": used and compiler(used),
        "built": list(built),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "why_not": binding.MISSING,
    }


def compiler(library: Path) -> str | None:
    """The compiler's own name in a library, where it wrote one (GCC and clang do on Linux)."""
    found = re.search(rb"GCC: \([^)\0]*\) [\d.]+|[\w ]*clang version [\d.]+", library.read_bytes())
    return found and found[0].decode()


def _gpus() -> list[dict[str, Any]]:
    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [
        {"name": x.name, "capability": f"{x.major}.{x.minor}", "memory_gib": round(x.total_memory / 2**30)}
        for x in found
    ]


def _on_gpu() -> list[dict[str, Any]]:
    if torch.cuda.is_available():
        return _calls("cuda", torch.bfloat16)
    why = (
        "this build of torch is for CPUs only"
        if torch.version.cuda is None
        else "torch sees no GPU or driver"
    )
    none = {"device": "cuda", "dtype": "bfloat16", "backend": None, "reasons": {"triton": why}}
    return [{"call": name, **none} for name in CALLS]


def _calls(device: str, dtype: torch.dtype) -> list[dict[str, Any]]:
    found = []
    for name, (queries, memory, learns) in CALLS.items():
        query, key = (torch.empty(1, 12, n, 64, device=device, dtype=dtype) for n in (queries, memory))
        maps = [torch.eye(12, device=device) for _ in range(2)]
        query.requires_grad_(learns)
        with torch.set_grad_enabled(learns):
            choice = explain(query, key, key, *maps)
        found.append(
            {
                "call": name,
                "device": device,
                "dtype": str(dtype).removeprefix("torch."),
                "backend": choice.backend,
                "reasons": choice.reasons,
            }
        )
    return found


def extras() -> dict[str, dict[str, Any]]:
    """{extra: {"missing": packages, "too_old": packages, "install": the command}}; empty where the package itself is
    not installed but on the path."""
    try:
        lines = importlib.metadata.requires(NAME) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    needs: dict[str, list[tuple[str, str]]] = {}
    for line in lines:
        found = re.match(r"([\w.-]+)(?:\[([\w,]+)\])?\s*([^;]*?)\s*;.*extra == ['\"](\w+)['\"]", line)
        if found:
            name, inside, bounds, extra = found.groups()
            own = [(x, "") for x in (inside or "").split(",")] if name == NAME else [(name, bounds)]
            needs.setdefault(extra, []).extend(own)
    return {extra: _state(extra, needs) for extra in needs}


def _state(extra: str, needs: dict[str, list[tuple[str, str]]]) -> dict[str, Any]:
    missing, too_old = [], []
    for name, bounds in _packages(extra, needs):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        least = re.search(r">=\s*([\d.]+)", bounds)
        if least and _numbers(version) < _numbers(least[1]):
            too_old.append(f"{name} {version} (needs {least[1]})")
    return {
        "missing": sorted(set(missing)),
        "too_old": sorted(set(too_old)),
        "install": f"pip install '{NAME}[{extra}]'",
    }


def _packages(extra: str, needs: dict[str, list[tuple[str, str]]]) -> Iterator[tuple[str, str]]:
    for name, bounds in needs.get(extra, ()):
        if name in needs and not bounds:
            yield from _packages(name, needs)
        else:
            yield name, bounds


def _numbers(version: str) -> list[int]:
    return [int(x) for x in re.findall(r"\d+", version.partition("+")[0])[:3]]


def lines(found: dict[str, Any]) -> list[str]:
    """What `examine` gives, for a person."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    machine = found["machine"]
    said = [
        f"talking-heads {found['version']}" + (f", commit {found['commit']}" if found["commit"] else ""),
        f"in {found['folder']}",
        versions,
        f"{machine['processor']}, {machine['system']}, {machine['memory_gib']} GiB, {machine['threads']} threads",
        "",
        *_kernel_lines(found["kernel"]),
        *_gpu_lines(found),
        "",
    ]
    for call in found["calls"]:
        said.append(f"{call['device']} {call['dtype']}, {call['call']}: {call['backend'] or 'cannot run'}")
        said += [f"    not {name}: {why}" for name, why in call["reasons"].items()]
    said.append("")
    for extra, state in found["extras"].items():
        lacks = [*state["missing"], *state["too_old"]]
        said.append(
            f"extra {extra}: " + (f"lacks {', '.join(lacks)}; {state['install']}" if lacks else "complete")
        )
    said += [f"{name}={value}" for name, value in found["variables"].items()]
    return said


def _kernel_lines(kernel: dict[str, Any]) -> list[str]:
    if not kernel["used"]:
        return [f"CPU kernel: none; {kernel['why_not']}"]
    built = (
        f"built by {kernel['compiler'] or 'a compiler that left no name'} for {', '.join(kernel['built'])}"
    )
    return [
        f"CPU kernel: {kernel['instruction_set']} in use ({kernel['library']})",
        f"    {built}; the processor has {kernel['processor']}",
    ]


def _gpu_lines(found: dict[str, Any]) -> list[str]:
    if not found["gpus"]:
        return [f"GPU: none ({found['calls'][-1]['reasons']['triton']})"]
    return [
        f"GPU: {gpu['name']}, compute capability {gpu['capability']}, {gpu['memory_gib']} GiB, CUDA {found['cuda']}"
        for gpu in found["gpus"]
    ]
