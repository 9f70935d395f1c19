"""Writing so that a kill at any moment leaves either the old file or the new one, whole."""

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any


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
        os.chmod(name, 0o666 & ~umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path | str, value: Any) -> None:
    """Indented JSON; NaN and infinities become null, which every reader understands."""
    write_text(path, json.dumps(_plain(value), indent=1, allow_nan=False) + "\n")


def umask() -> int:
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
