"""Writing so that a kill at any moment leaves either the old file or the new one, whole."""

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UserError


def write_text(path: Path | str, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: Path | str, data: bytes) -> None:
    """Writes beside the file and renames; creates the folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path | str, value: Any) -> None:
    """Indented JSON; NaN and infinities become null, which every reader understands."""
    write_text(path, json.dumps(_plain(value), indent=1, allow_nan=False) + "\n")


@contextmanager
def new_folder(
    path: Path | str, *, mend: str = "name another folder or move that one away"
) -> Iterator[Path]:
    """A folder filled aside and renamed at the end; refuses to replace one that exists and is not empty."""
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError("the folder to write must be new or empty", path, mend)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield aside
        os.chmod(aside, 0o777 & ~_umask())
        os.replace(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def lock(path: Path | str, *, wait: bool = True) -> Iterator[bool]:
    """Holds the file `path` against other processes; False where another has it and `wait` is not asked for.

    The system lets go of it when a process ends, however it ends. Where there are no such locks: True.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield True
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value
