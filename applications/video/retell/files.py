"""Files that are either complete or absent: every write goes to a temporary name first, then is renamed."""

import errno
import hashlib
import io
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from retell.errors import UserError


@contextmanager
def complete(path: Path):
    """Yield a temporary path in the same folder; rename it to `path` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise full(path) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def full(path: Path) -> UserError:
    return UserError(
        f"writing {path.name} needs free space",
        f"a full disk at {path.parent}",
        "free some space and run the same command again; finished steps are kept",
    )


def require_space(folder: Path, size: int) -> None:
    """Refuse before work starts when `size` bytes do not fit on the folder's disk."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(
            f"this step needs about {size / 1e6:.0f} MB in {folder}",
            f"{free / 1e6:.0f} MB free",
            "free some space or choose another folder",
        )


def write_bytes(path: Path, data: bytes) -> None:
    with complete(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, value) -> None:
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def read_json(path: Path):
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path} must be a JSON file", f"{error}", "restore the file or ingest again"
        ) from None


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise UserError(f"{path} must be an npz file without pickles", f"{error}", "ingest again") from None


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(*values) -> str:
    """A hash of plain values and arrays, for names of cached results."""
    h = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            h.update(f"{value.dtype}{value.shape}".encode())
            h.update(np.ascontiguousarray(value).tobytes())
        else:
            h.update(json.dumps(value, sort_keys=True).encode())
        h.update(b"\0")
    return h.hexdigest()[:32]
