"""The command that compiles the kernel again, for the way this package was installed. Does not import torch."""

import importlib.metadata
import json
import shlex
import sys
from pathlib import Path

NAME = "talking-heads-attention"
ROOT = Path(__file__).parents[3]


def command() -> str:
    """A command for the shell: of a checkout, or of an installed package from the place that it came from.

    pip takes a wheel that it built before from its cache, and leaves what is installed alone: hence the options.
    """
    if (ROOT / "setup.py").is_file():
        what = f"--editable {shlex.quote(str(ROOT))}"
    else:
        what = f"--no-binary {NAME} {shlex.quote(_source())}"
    return f"{shlex.quote(sys.executable)} -m pip install --no-cache-dir --force-reinstall --no-deps {what}"


def _source() -> str:
    """Where pip found the package: a folder, a file or a repository that it names, else the index."""
    try:
        written = importlib.metadata.distribution(NAME).read_text("direct_url.json")
        found = json.loads(written) if written else {}
    except (importlib.metadata.PackageNotFoundError, ValueError):
        found = {}
    url = str(found.get("url", NAME))
    if url.endswith(".whl"):  # has no sources
        return NAME
    version = found.get("vcs_info")
    if isinstance(version, dict):
        return f"{version.get('vcs', 'git')}+{url}@{version.get('commit_id', 'HEAD')}"
    return url.removeprefix("file://")
