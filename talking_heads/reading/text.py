"""Text files of a user's own: read whole, refused in one line where they are not text."""

import gzip
import io
import zlib
from pathlib import Path

from ..errors import UserError


def read_text(path: Path) -> str:
    """The file's text, gzip or plain; refuses what is not UTF-8 text or has none."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        raise UserError("a text file must exist", path, "check its name") from None
    except IsADirectoryError:
        raise UserError("text must be a file", f"the folder {path}", "name the files in it") from None
    except (UnicodeDecodeError, gzip.BadGzipFile, zlib.error, EOFError):
        raise UserError(
            "text must be UTF-8 (plain or gzip)", f"other bytes in {path}", "convert it"
        ) from None
    if "\0" in text:
        raise UserError("text must be text", f"zero bytes in {path}", "name a text file") from None
    if not text.strip():
        raise UserError("a text file must have text", f"nothing in {path}", "name another file")
    return text


def labelled_lines(path: Path) -> list[tuple[str, str]]:
    """(label, text) of each line "label text", a space or tab between; empty lines left out."""
    rows = []
    for count, line in enumerate(io.StringIO(read_text(path), newline=None), 1):
        if not line.strip():
            continue
        label, _, text = line.strip().partition("\t" if "\t" in line else " ")
        if not text.strip():
            raise UserError(
                "each line must be a label, a space or tab, and text", f"{path}:{count}", "mend that line"
            )
        rows.append((label, text.strip()))
    return rows
