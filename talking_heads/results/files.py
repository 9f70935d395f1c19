"""Write files so that a kill, a full disk or an error at any moment leaves either the old file or the new one.

A file is written under a temporary name next to its place, then renamed. The temporary file is locked while its
process lives, so a later process can tell and remove what a killed one has left.
"""

import contextlib
import errno
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PREFIX, _SUFFIX = ".talking-heads-", ".tmp"
_CREATE = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text; what UTF-8 cannot hold (parts of odd file names) becomes "?"."""
    write_bytes(path, text.encode("utf-8", "replace"))


def write_json(path: Path | str, value: Any) -> None:
    """Write indented JSON; see `json_text`."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """Indented JSON. NaN and infinities become null, which every reader understands; paths become strings."""
    return json.dumps(_plain(value), indent=1, allow_nan=False) + "\n"


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write a file of a results folder, and the folder if needed.

    A symbolic link at `path` is replaced, never followed: a folder that somebody sent may hold links to files of the
    user's. An existing file's access rights are kept.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with reserved(path.parent) as (aside, descriptor):
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        _keep_rights(descriptor, path)
        os.fsync(descriptor)
        os.replace(aside, path)


def _keep_rights(descriptor: int, path: Path) -> None:
    try:
        held = path.lstat()
    except OSError:
        held = None
    if held is None or not stat.S_ISREG(held.st_mode):
        os.fchmod(descriptor, 0o666 & ~umask())
        return
    with contextlib.suppress(PermissionError):
        os.fchown(descriptor, held.st_uid, held.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(held.st_mode))


@contextlib.contextmanager
def reserved(folder: Path) -> Iterator[tuple[Path, int]]:
    """A new temporary file in a folder: (its path, its descriptor). It is removed unless it was renamed."""
    while True:
        path = folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
        descriptor = os.open(path, _CREATE | os.O_EXCL, 0o600)
        try_lock(descriptor)
        if os.fstat(descriptor).st_nlink:  # else `sweep` was between the two calls
            break
        os.close(descriptor)
    try:
        yield path, descriptor
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        os.close(descriptor)


def folder_of(reservation: Path) -> Path:
    """The temporary folder that belongs to a reserved file, and that `sweep` removes with it."""
    return reservation.with_suffix(".folder")


def sweep(folder: Path) -> None:
    """Remove the temporary files and folders that killed processes of this package left in a folder."""
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        try:
            descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            continue
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode) and try_lock(descriptor):
                shutil.rmtree(folder_of(path), ignore_errors=True)
                path.unlink(missing_ok=True)
        except OSError:
            pass
        finally:
            os.close(descriptor)


def set_aside(path: Path) -> Path:
    """Rename what is damaged, so that it is made again and nothing is deleted; the new name is one that is free.

    A file `result.json` becomes `result.damaged`, a folder `checkpoint-5` becomes `damaged-checkpoint-5`.
    """
    name = f"damaged-{path.name}" if path.is_dir() else path.with_suffix(".damaged").name
    place, number = path.with_name(name), 1
    while os.path.lexists(place):
        number += 1
        place = path.with_name(f"{name}-{number}")
    path.rename(place)
    return place


def is_temporary(path: Path) -> bool:
    """Whether a name is that of a temporary file or folder of this package."""
    return path.name.startswith(_PREFIX) and path.suffix in (_SUFFIX, ".folder")


def try_lock(descriptor: int, *, wait: bool = False) -> bool | None:
    """Lock an open file against other processes until it is closed.

    Returns:
        Whether this process now has it; None where the system or file system has no locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as problem:
        if problem.errno in _NO_LOCKS:
            return None
        raise
    return True


def umask() -> int:
    """The process's mask of access rights."""
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
