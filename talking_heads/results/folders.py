"""Folders that commands write: new ones, and results folders that one or several processes share.

A folder is ours if it holds our marker. Any other must be new or empty; hidden files count.
"""

import contextlib
import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError
from .files import folder_of, is_temporary, reserved, sweep, try_lock, umask, write_json

MARKER = ".talking-heads.json"  # {"kind": what the folder holds}
LOCK = ".talking-heads.lock"
_TODO = "name another with --out"


def check(folder: Path | str, *kinds: str, known: bool = False) -> None:
    """Refuse a results folder that is not ours to write in.

    Args:
        kinds: what it may hold already: the command's own results.
        known: it was found to be ours by its content; folders of earlier versions have no marker.

    Raises:
        UserError: a file, a folder with other files, or results of another kind.
    """
    folder = Path(os.path.realpath(folder))
    if not folder.exists():
        check_place(folder)
        return
    if not folder.is_dir():
        raise UserError(
            "--out must name a folder, which must be new or empty", f"the file {folder}", "name another"
        )
    _check_lock(folder / LOCK)
    if known or _is_empty(folder):
        return
    kind = kind_of(folder)
    if kind is None:
        raise UserError("a results folder must be new or empty", f"other files in {folder}", _TODO)
    if kind not in kinds:
        raise UserError(
            "a results folder must be new or this command's own", f"the results of {kind} in {folder}", _TODO
        )


def check_place(folder: Path | str) -> None:
    """Refuse a folder that cannot be made where it is named: below a file, or where nothing may be written."""
    folder = Path(os.path.realpath(folder))
    above = next(x for x in (folder, *folder.parents) if x.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        what = "may not be written to" if above.is_dir() else "is a file"
        raise UserError(
            "--out must name a place that can be written",
            f"{folder}, where {above} {what}",
            "name another",
        )


def claim(folder: Path | str, *kinds: str, known: bool = False) -> None:
    """Make a folder this command's, marked with the first kind; refuse one that is not ours, as `check` does."""
    check(folder, *kinds, known=known)  # before a lock is left in it
    with lock(folder):
        check(folder, *kinds, known=known)
        if kind_of(folder) not in kinds:
            write_json(Path(folder) / MARKER, {"kind": kinds[0]})


def kind_of(folder: Path | str) -> str | None:
    """What a results folder holds, by its marker; None where it has none."""
    path = Path(folder) / MARKER
    try:
        held = path.lstat()
        if not stat.S_ISREG(held.st_mode) or held.st_size > 2**16:
            return None
        value = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    kind = value.get("kind") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else None


def release(folder: Path | str) -> None:
    """Take the marker away again, where a command was refused before it wrote results."""
    (Path(folder) / MARKER).unlink(missing_ok=True)


def _is_empty(folder: Path) -> bool:
    """But for what this package leaves there: a marker that is a link is somebody else's file."""
    own = (MARKER, LOCK)
    return all((x.name in own and not x.is_symlink()) or is_temporary(x) for x in folder.iterdir())


@contextlib.contextmanager
def lock(folder: Path | str, name: str = "", *, wait: bool = True) -> Iterator[bool]:
    """Hold a folder against other processes; False where another has it and `wait` is not asked for.

    With a name only that part of the folder is held, against others that name it.

    The system lets go of it when the process ends, however it ends.

    Raises:
        UserError: the file system has no locks, or the lock is a link or no file.
    """
    folder = Path(os.path.realpath(folder))
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = _open_lock(folder / (f".talking-heads-{name}.lock" if name else LOCK))
    try:
        held = try_lock(descriptor, wait=wait)
        if held is None and os.name != "nt":
            raise UserError(
                "a results folder must be on a file system with locks", folder, "name one on a local disk"
            )
        if held:
            sweep(folder)
        yield held is not False
    finally:
        os.close(descriptor)


def _check_lock(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise UserError("a folder's lock must be a plain file", path, "remove it")


def _open_lock(path: Path) -> int:
    """Open a lock, which is never written to, nor followed if it is a link."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
    _check_lock(path)
    try:
        return os.open(path, flags, 0o666)
    except OSError as problem:
        if problem.errno == errno.ELOOP:
            raise UserError("a folder's lock must be a plain file", path, "remove it") from None
        raise


def check_new(folder: Path | str, todo: str = "name another folder or move that one away") -> Path:
    """The folder itself, links followed, if it is new or empty.

    Raises:
        UserError: it has files, or is one.
    """
    path = Path(os.path.realpath(folder))
    if path.exists() and (not path.is_dir() or not all(map(is_temporary, path.iterdir()))):
        raise UserError("the folder to write must be new or empty", folder, todo)
    return path


@contextlib.contextmanager
def new_folder(folder: Path | str, **options: str) -> Iterator[Path]:
    """A temporary folder to fill, renamed to `folder` at the end; refuses one that is not new or empty.

    What a killed process left next to it is removed first.
    """
    path = check_new(folder, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    for place in (path.parent, path):
        sweep(place)
    with reserved(path.parent) as (reservation, _):
        aside = folder_of(reservation)
        aside.mkdir()
        try:
            yield aside
            aside.chmod(0o777 & ~umask())
            _put(aside, path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _put(aside: Path, path: Path) -> None:
    """Rename a folder; where `path` is a mount or the current folder, rename its files, the config last."""
    if not (path.exists() and path.samefile(os.curdir)):
        try:
            os.replace(aside, path)
            return
        except OSError as problem:
            if problem.errno != errno.EBUSY:
                raise
    check_new(path)
    for file in sorted(aside.iterdir(), key=lambda x: (x.name == "config.json", x.name)):
        os.replace(file, path / file.name)
