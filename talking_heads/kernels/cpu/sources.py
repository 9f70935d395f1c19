"""The C++ sources and their digest, which setup.py compiles into every library. Does not import torch."""

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parent / "src"


def digest() -> str | None:
    """The digest of all sources, or None if the installation does not include them."""
    files = sorted(path for path in FOLDER.glob("*") if path.suffix in (".cpp", ".h"))
    try:
        parts = [part for path in files for part in (path.name.encode(), path.read_bytes())]
    except OSError:
        return None
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16] if files else None
