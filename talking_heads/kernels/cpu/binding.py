"""Finds, checks and calls the compiled library.

A library is used only if its file is complete, it was built from the sources here with the same call
structure, and its self-test passes. If a check fails, a warning is issued and the next best library is tried.
Importing the package never fails because of a library.
"""

import ctypes
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import UserError
from ..problem import Problem
from . import call, install, selftest, sources

# torch's name for the instruction set -> libraries that the processor can run, best first.
_LIBRARIES = {"AVX512": ("avx512", "avx2", "plain"), "AVX2": ("avx2", "plain")}
_NOT_FINITE, _NO_MEMORY, _OTHER_VERSION = 1, 2, 3


class Unusable(Exception):
    """Why a library cannot be used."""


def installed() -> tuple[str, ...]:
    """The libraries that are built and that this processor can run, best first."""
    usable = _LIBRARIES.get(torch.backends.cpu.get_cpu_capability(), ("plain",))
    return tuple(name for name in usable if path_of(name) is not None)


def path_of(name: str) -> Path | None:
    """The file that setuptools builds for this version of Python; those for other versions are ignored."""
    paths = (Path(__file__).parent / (name + suffix) for suffix in EXTENSION_SUFFIXES)
    return next((path for path in paths if path.exists()), None)


def load(path: Path) -> ctypes.CDLL:
    """Loads a library and checks it.

    Raises:
        Unusable: the file is damaged, or was built for another version of this package.
    """
    _check_complete(path)
    try:
        library = _open(path)
        for name in ("sources", "set", "tensors"):
            getattr(library, f"talking_heads_{name}").restype = ctypes.c_char_p
        for name in ("version", "size"):
            getattr(library, f"talking_heads_{name}").restype = ctypes.c_int64
        functions = [
            getattr(library, f"{a}_{b}") for a in ("forward", "backward") for b in ("float", "double")
        ]
    except OSError as problem:
        raise Unusable(f"it cannot be loaded ({problem})") from None
    except AttributeError:
        raise Unusable("it was built for another version of this package") from None
    _check_build(library, path)
    for function in functions:
        function.argtypes, function.restype = [call.POINTER_TO_CALL], ctypes.c_int
    if not selftest.passes(library):
        raise Unusable("its self-test gives wrong numbers")
    return library


def _open(path: Path) -> ctypes.CDLL:
    """Opens the library with the OpenMP runtime that torch has loaded. If that fails, loads libgomp first."""
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        with suppress(OSError):
            ctypes.CDLL("libgomp.so.1", ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(path))


def _check_complete(path: Path) -> None:
    """A truncated ELF file may still load, and kill the process on the first access to a missing page."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(64)
            if head[:6] == b"\x7fELF\x02\x01" and len(head) == 64:  # 64 bits, little-endian
                (programs, sections), (step, count, section, number) = (
                    struct.unpack_from("<QQ", head, 32),
                    struct.unpack_from("<4H", head, 54),
                )
                file.seek(programs)
                table = file.read(step * count)
                ends = [sections + section * number, programs + step * count]
                for at in range(0, len(table) - 39, step or 1):
                    offset, _, _, length = struct.unpack_from("<4Q", table, at + 8)
                    ends.append(offset + length)
                if max(ends) > size:
                    raise Unusable("the file is cut off")
    except OSError as problem:
        raise Unusable(f"it cannot be read ({problem})") from None
    if size == 0:
        raise Unusable("the file is empty")


def _check_build(library: ctypes.CDLL, path: Path) -> None:
    """Checks the call structure, the digest of the sources and the instruction set of the library."""
    ours = (call.VERSION, call.SIZE, "".join(f"{name}," for name in call.NAMES))
    theirs = (
        library.talking_heads_version(),
        library.talking_heads_size(),
        library.talking_heads_tensors().decode(),
    )
    if theirs != ours:
        raise Unusable(
            f"its call structure has version {theirs[0]} and {theirs[1]} bytes, "
            f"this package's has version {ours[0]} and {ours[1]} bytes"
        )
    built, found = library.talking_heads_sources().decode(), sources.digest()
    if found is not None and built != found:
        raise Unusable(f"it was built from other sources ({built}, here {found})")
    kind = library.talking_heads_set().decode()
    if kind != path.name.split(".")[0]:
        raise Unusable(f"it was built for the instruction set {kind}")


def _best() -> tuple[ctypes.CDLL | None, str | None]:
    """(the best usable library, None), or (None, why there is none)."""
    reasons = []
    compile_again = install.command()
    for name in installed():
        path = path_of(name)
        assert path is not None
        try:
            return load(path), None
        except Unusable as problem:
            reasons.append(f"{path.name}: {problem}")
            with suppress(Warning):  # an import must not fail, even if warnings are errors
                warnings.warn(
                    f"talking_heads: skipped the compiled kernel {path}: {problem}; run: {compile_again}",
                    stacklevel=2,
                )
    if reasons:
        return None, f"no compiled library can be used ({'; '.join(reasons)}): run: {compile_again}"
    return None, f"it was not compiled: install a C++ compiler (g++ or clang++), then run: {compile_again}"


_library, MISSING = _best()  # MISSING: why there is no kernel, or None


@contextmanager
def using(path: Path) -> Iterator[None]:
    """Uses another library inside the context. Tests run every library that the processor supports."""
    global _library
    before, _library = _library, load(path)
    try:
        yield
    finally:
        _library = before


_threaded = False  # whether a call has started OpenMP threads
_alone = (
    False  # in a child forked after that: it has no OpenMP threads, and a call would wait for them forever
)


def _forked() -> None:
    global _alone
    _alone = _threaded


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def threads() -> int:
    """The number of threads that a call may use."""
    global _threaded
    count = 1 if _alone else torch.get_num_threads()
    _threaded = _threaded or count > 1
    return count


def library() -> Any:
    return _library


def run(direction: str, p: Problem, **arguments: Any) -> None:
    """Calls the kernel in p's dtype (float32 or float64).

    An input that is not finite must reach exactly the outputs that attend to it. This is rare and costs time,
    so it is handled in a second call, made only if the kernel reports such an input.

    Args:
        arguments: those of `call.of`.

    Raises:
        torch.OutOfMemoryError: not enough memory for the workspace.
    """
    if _library is None:
        raise UserError(
            "the operator talking_heads::cpu needs the compiled kernel", MISSING, 'pass backend="chunked"'
        )
    function = getattr(_library, f"{direction}_{'double' if p.query.dtype == torch.float64 else 'float'}")
    count = threads()
    made = call.of(p, threads=count, **arguments)
    status = function(ctypes.byref(made))
    if status == _NOT_FINITE:
        finite, bad = _without_infinities(p)
        made = call.of(finite, threads=count, **arguments)
        made.bad_query, made.bad_key, made.bad_value = (x.data_ptr() for x in bad)
        status = function(ctypes.byref(made))
    if status == _NO_MEMORY:
        raise torch.OutOfMemoryError(
            f"talking_heads_attention: the {direction} needs workspace that this machine has not free"
        )
    if status == _OTHER_VERSION:  # the check at load time passed: memory is corrupt
        raise SystemError("talking_heads_attention: the compiled kernel refuses the structure of the call")


def _without_infinities(p: Problem) -> tuple[Problem, tuple[Tensor, Tensor, Tensor]]:
    """The call with 0 for what is not finite, and masks of it: rows of query and key, elements of value."""
    bad = [~x.isfinite() for x in (p.query, p.key, p.value)]
    query, key, value = (x.masked_fill(y, 0) for x, y in zip((p.query, p.key, p.value), bad, strict=True))
    found = bad[0].any(-1).contiguous(), bad[1].any(-1).contiguous(), bad[2].contiguous()
    return p._replace(query=query, key=key, value=value), found
