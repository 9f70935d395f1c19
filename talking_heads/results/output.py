"""The place that a user names for results in one file: `--json FILE`.

It may be a file (links are followed, access rights kept), "-" for standard output, a pipe or a device.
"""

import contextlib
import os
import re
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

from ..errors import UserError
from .files import json_text, reserved, write_bytes


class Output:
    """A place to write to, checked when it is made: before any work.

    Args:
        name: the file; "-" for standard output; None for nowhere. option: what the user calls it.

    Raises:
        UserError: a folder, a place that cannot be written.
    """

    def __init__(self, name: Path | str | None, option: str = "--json") -> None:
        self.option = option
        self.descriptor = _descriptor(Path(name)) if name is not None else None
        self.path = None if name is None or self.descriptor is not None else Path(os.path.realpath(name))
        if self.descriptor is not None:
            self._check_descriptor(self.descriptor)
        elif self.path is not None:
            self._check(self.path)

    @property
    def is_stdout(self) -> bool:
        """Whether standard output is taken: messages to people go to standard error then."""
        return self.descriptor == 1

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file, or will be: one that may be written several times."""
        return self.path is not None and (not self.path.exists() or self.path.is_file())

    @property
    def width(self) -> int:
        """Columns of the terminal that `say` prints to; sys.maxsize where it is none."""
        stream = sys.stderr if self.is_stdout else sys.stdout
        return shutil.get_terminal_size().columns if stream.isatty() else sys.maxsize

    def say(self, text: object = "") -> None:
        """Print for people: on standard output unless the results go there."""
        print(text, file=sys.stderr if self.is_stdout else sys.stdout)

    def show(self, table: Any) -> None:
        """Print a table for people: aligned to the width of a terminal, else in Markdown."""
        is_terminal = self.width < sys.maxsize
        self.say(table.to_text(self.width) if is_terminal else table.to_markdown())

    def write_json(self, value: Any) -> None:
        """Write a result as JSON."""
        self.write(json_text(value))

    def write(self, text: str) -> None:
        """Write a text: at once and whole to a file; as it is to anything else."""
        data = text.encode("utf-8", "replace")
        if self.descriptor is not None:
            if self.is_stdout:
                sys.stdout.flush()
                with contextlib.suppress(AttributeError):  # under a test's capture there is no buffer
                    sys.stdout.buffer.write(data)
                    sys.stdout.buffer.flush()
                    return
                sys.stdout.write(text)
                return
            with open(os.dup(self.descriptor), "wb") as file:
                file.write(data)
        elif self.path is not None:
            if self.is_file and _may_rename(self.path.parent):
                write_bytes(self.path, data)
            else:
                with self.path.open("wb") as file:
                    file.write(data)

    def _check_descriptor(self, number: int) -> None:
        import fcntl

        try:
            access = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
        except OSError:
            access = os.O_RDONLY
        if access == os.O_RDONLY:
            raise UserError(f"{self.option} must be open for writing", f"descriptor {number}", "name a file")

    def _check(self, path: Path) -> None:
        try:
            kind = path.stat().st_mode
        except FileNotFoundError:
            self._check_parent(path.parent)
            return
        except NotADirectoryError:
            raise UserError(
                f"{self.option} must name a file in a folder", f"{path}, below a file", "name another"
            ) from None
        if stat.S_ISDIR(kind):
            raise UserError(f"{self.option} must name a file", f"the folder {path}", "add a file's name")
        if stat.S_ISBLK(kind) or stat.S_ISSOCK(kind):
            raise UserError(f"{self.option} must name a file, a pipe or a terminal", path, "name another")
        if not os.access(path, os.W_OK):
            raise UserError(f"{self.option} must name a file that can be written", path, "name another")
        if self.is_file and _may_rename(path.parent):
            self._check_parent(path.parent)

    def _check_parent(self, folder: Path) -> None:
        """Try a temporary file in the folder, or in the nearest one that exists."""
        while not os.path.lexists(folder):
            folder = folder.parent
        try:
            with reserved(folder):
                pass
        except OSError as problem:
            raise UserError(
                f"{self.option} must be in a folder that can be written",
                f"{os.strerror(problem.errno or 0)} in {folder}",
                "name another place",
            ) from None


def _may_rename(folder: Path) -> bool:
    return not folder.exists() or os.access(folder, os.W_OK | os.X_OK)


def _descriptor(path: Path) -> int | None:
    """The number of an open file of this process that a name stands for: "-", /dev/stdout, /dev/fd/63."""
    if str(path) == "-":
        return 1
    for _ in range(40):  # as many links as the system follows
        folder = os.path.realpath(path.parent)
        if path.name.isdigit() and re.fullmatch(rf"/dev/fd|/proc/(self|{os.getpid()})/fd", folder):
            return int(path.name)
        if not path.is_symlink():
            return None
        path = Path(folder) / os.readlink(path)
    return None
