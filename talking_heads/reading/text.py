"""Text files of a user's own: read within a limit, refused in one line where they are not text."""

import contextlib
import gzip
import io
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..errors import UserError

# Most bytes of text that one file may hold once inflated; a few megabytes of gzip can hold gigabytes.
limit = 2**30
_CHUNK = 2**20


def read_text(path: Path | str, *, latin: bool = False) -> str:
    """Return the text of a file, plain or gzip.

    Args:
        latin: also read Windows-1252 (of which Latin-1 text is a part), with a warning; some old data sets have it.

    Raises:
        UserError: no such file, not UTF-8, no text, or more than `limit` bytes.
    """
    path = Path(path)
    try:
        with inflated(path) as file:
            data = file.read()
        text = _decoded(data, path, latin)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError("a text file must exist", path, "check its name") from None
    except IsADirectoryError:
        raise UserError("text must be a file", f"the folder {path}", "name the files in it") from None
    except (UnicodeDecodeError, gzip.BadGzipFile, zlib.error, EOFError):
        raise UserError(
            "text must be UTF-8 (plain or gzip)", f"other bytes in {path}", "convert it"
        ) from None
    if "\0" in text:
        raise UserError("text must not hold zero bytes", f"some in {path}", "name a text file")
    if not text.strip():
        raise UserError("a text file must have text", f"nothing in {path}", "name another file")
    return text


def _decoded(data: bytes, path: Path, latin: bool) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        strange = sum(byte > 127 for byte in data)
        if not latin or strange * 10 > len(data) or 0 in data:
            raise
        text = data.decode("cp1252")
    warnings.warn(f"{path} is not UTF-8 and was read as Windows-1252", stacklevel=2)
    return text


@contextlib.contextmanager
def inflated(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of a file, plain or gzip, as a stream that ends with UserError beyond the limit."""
    with path.open("rb") as file:
        start = file.read(2)
        source: Any = _Chain(start, file)
        if start == b"\x1f\x8b":
            source = gzip.GzipFile(fileobj=source, mode="rb")
        with io.BufferedReader(_Limited(source, path), _CHUNK) as stream:
            yield stream


class _Chain:
    """A file whose first bytes were read already; pipes cannot be rewound."""

    def __init__(self, first: bytes, file: IO[bytes]) -> None:
        self.first, self.file = first, file

    def read(self, size: int = -1) -> bytes:
        first, self.first = self.first, b""
        return first or self.file.read(size)


class _Limited(io.RawIOBase):
    """A source that is read up to the limit."""

    def __init__(self, source: Any, path: Path) -> None:
        self.source, self.path, self.count = source, path, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.source.read(len(buffer))
        self.count += len(data)
        if self.count > limit:
            raise UserError(
                f"a text file may hold at most {limit / 2**30:g} GiB, inflated",
                f"more in {self.path}",
                "split it, or raise the limit: talking-heads --max-text-gib N COMMAND",
            )
        buffer[: len(data)] = data
        return len(data)
