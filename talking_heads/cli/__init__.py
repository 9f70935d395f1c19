"""The command line: one thin module for each command, without logic; an error is one line and an exit code."""

import errno
import os
import re
import sys
import warnings


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 an internal error (or a pipe closed early), 2 a user's mistake, 130 interrupted."""
    from ..errors import UserError
    from ..results import stopping

    warnings.formatwarning = lambda message, *rest, **more: f"talking-heads: {message}\n"
    for stream in (sys.stdout, sys.stderr):  # names of files may be no text in the terminal's encoding
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with stopping.signals():
            from .app import app

            app(standalone_mode=True)
    except UserError as mistake:
        _stop(str(mistake), 2)
    except (KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, SystemExit) and stop.code != 130:  # typer turns Ctrl-C into exit code 130
            raise
        kept = "what was finished is kept, the same command goes on from there"
        _stop(f"interrupted; {kept}", stopping.exit_code())
    except ImportError as missing:
        name = (missing.name or "").partition(".")[0]
        if name in ("", "talking_heads"):
            raise
        _stop(f"this command needs the package {name}; pip install 'talking-heads-attention[all]'", 2)
    except MemoryError as problem:
        came = str(problem) or "less than is needed"
        _stop(f"memory must suffice; got {came}; name a smaller file or model, or use a larger machine", 2)
    except OSError as problem:
        if problem.errno is None:
            raise
        _stop_for_file(problem.errno, f" ({problem.filename})" if problem.filename else "")
    except Exception as problem:
        number = _unwritten(problem)
        if number is None:
            raise
        _stop_for_file(number)


def _unwritten(problem: Exception) -> int | None:
    """The errno in the words of libraries that write by themselves: safetensors and tokenizers name it, torch.save
    says only that its file has another length than it should."""
    named = re.search(r"\(os error (\d+)\)", str(problem))
    if named:
        return int(named[1])
    return errno.ENOSPC if "inline_container.cc" in str(problem) else None


def _stop_for_file(number: int, where: str = "") -> None:
    todo = {
        errno.ENOSPC: "free some space and rerun the same command",
        errno.EDQUOT: "free some space and rerun the same command",
        errno.EACCES: "give access to it or name another place",
        errno.ENOENT: "check its name",
    }.get(number, "fix this and rerun the same command")
    _stop(f"files must be readable and writable; got {os.strerror(number)}{where}; {todo}", 2)


def _stop(message: str, code: int) -> None:
    print(f"talking-heads: {message}", file=sys.stderr)
    sys.exit(code)
