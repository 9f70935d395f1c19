"""The compiled library: which file, whether it is this package's own, and a call of it.

A library is used only if the file is complete, it was built from these sources for this structure of a call,
and it computes known numbers. One that fails is skipped with a warning, and the next best is tried; importing
the package never fails because of it.
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
from . import call, selftest, sources

# What torch calls a processor's instruction set -> libraries that it can run, the best first.
_LIBRARIES = {"AVX512": ("avx512", "avx2", "plain"), "AVX2": ("avx2", "plain")}
_NOT_FINITE, _NO_MEMORY, _OTHER_VERSION = 1, 2, 3
_REBUILD = "reinstall this package, or run `python setup.py build_ext --inplace` in a checkout"
_NOT_COMPILED = "it was not compiled: install a C++ compiler (g++ or clang++), then reinstall this package"


class Unusable(Exception):
    """Why a library cannot be used."""


def installed() -> tuple[str, ...]:
    """The libraries that are built and that this processor can run, the best first."""
    usable = _LIBRARIES.get(torch.backends.cpu.get_cpu_capability(), ("plain",))
    return tuple(name for name in usable if path_of(name) is not None)


def path_of(name: str) -> Path | None:
    """The file that this Python's setuptools builds; those of other Pythons are left alone."""
    paths = (Path(__file__).parent / (name + suffix) for suffix in EXTENSION_SUFFIXES)
    return next((path for path in paths if path.exists()), None)


def load(path: Path) -> ctypes.CDLL:
    """The library, checked.

    Raises:
        Unusable: it is damaged, or not this package's.
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
    """Its threads are those of the OpenMP that torch has loaded."""
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        with suppress(OSError):
            ctypes.CDLL("libgomp.so.1", ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(path))


def _check_complete(path: Path) -> None:
    """A cut-off ELF file may be mapped all the same and kill the process when a missing page is touched."""
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
    """Built from these sources, with the structure that call.py fills, for the instruction set of its name."""
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
    """The best library that can be used, and why there is none."""
    reasons = []
    for name in installed():
        path = path_of(name)
        assert path is not None
        try:
            return load(path), None
        except Unusable as problem:
            reasons.append(f"{path.name}: {problem}")
            with suppress(Warning):  # an import must not fail, even where warnings are errors
                warnings.warn(
                    f"talking_heads: skipped the compiled kernel {path}: {problem}; {_REBUILD}", stacklevel=2
                )
    return (
        None,
        f"no compiled library can be used ({'; '.join(reasons)}): {_REBUILD}" if reasons else _NOT_COMPILED,
    )


_library, MISSING = _best()  # MISSING: why there is no kernel; None where there is one


@contextmanager
def using(path: Path) -> Iterator[None]:
    """Another library in its place: for tests, which force each that the processor can run."""
    global _library
    before, _library = _library, load(path)
    try:
        yield
    finally:
        _library = before


_threaded = False  # whether a call has started OpenMP's threads
_alone = (
    False  # in a child forked after that: the threads do not exist there, and waiting for them never ends
)


def _forked() -> None:
    global _alone
    _alone = _threaded


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def threads() -> int:
    """How many a call may use."""
    global _threaded
    count = 1 if _alone else torch.get_num_threads()
    _threaded = _threaded or count > 1
    return count


def library() -> Any:
    return _library


def run(direction: str, p: Problem, **arguments: Any) -> None:
    """One call of the kernel, in p's dtype (float32 or float64).

    Inputs that are not finite are rare and costly to honour exactly (they must reach just those that attend
    to them), so they are looked for only once the kernel has met one.

    Args:
        arguments: as those of `call.of`.

    Raises:
        torch.OutOfMemoryError: no memory for the workspace.
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
    if status == _OTHER_VERSION:  # checked when it was loaded: memory was overwritten
        raise SystemError("talking_heads_attention: the compiled kernel refuses the structure of the call")


def _without_infinities(p: Problem) -> tuple[Problem, tuple[Tensor, Tensor, Tensor]]:
    """The call with zeros for what is not finite, and where that was: rows of queries and keys, values."""
    bad = [~x.isfinite() for x in (p.query, p.key, p.value)]
    query, key, value = (x.masked_fill(y, 0) for x, y in zip((p.query, p.key, p.value), bad, strict=True))
    found = bad[0].any(-1).contiguous(), bad[1].any(-1).contiguous(), bad[2].contiguous()
    return p._replace(query=query, key=key, value=value), found
