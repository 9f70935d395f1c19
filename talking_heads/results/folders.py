"""Folders: new ones, and locks on those that several processes share."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UserError
from .files import umask


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
        os.chmod(aside, 0o777 & ~umask())
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
