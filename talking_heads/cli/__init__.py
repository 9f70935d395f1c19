"""The command line: one thin module for each command, without logic; an error is one line and an exit code."""

import errno
import os
import re
import sys
import traceback
import warnings
from typing import Any, NoReturn


def main() -> None:
    """Entry point. Exit codes: see `EXIT_CODES` in app.py, which `talking-heads --help` prints."""
    from ..errors import UserError
    from ..results import stopping
    from . import volume

    warnings.formatwarning = lambda message, *rest, **more: f"talking-heads: {message}\n"
    for stream in (sys.stdout, sys.stderr):  # names of files may be no text in the terminal's encoding
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    volume.reset()
    try:
        with stopping.signals():
            code = _run()
            sys.stdout.flush()
    except UserError as mistake:
        _stop(str(mistake), 2)
    except KeyboardInterrupt:
        code = 130
    except ImportError as missing:
        name = (missing.name or "").partition(".")[0]
        if name in ("", "talking_heads"):
            _fault()
        _stop(f"this command needs the package {name}; pip install 'talking-heads-attention[all]'", 2)
    except MemoryError as problem:
        came = str(problem) or "less than is needed"
        _stop(f"memory must suffice; got {came}; name a smaller file or model, or use a larger machine", 2)
    except OSError as problem:
        if problem.errno == errno.EPIPE:
            _closed()
        if problem.errno is None:
            _fault()
        _stop_for_file(problem.errno, f" ({problem.filename})" if problem.filename else "")
    except Exception as problem:
        number = _unwritten(problem)
        if number is None:
            _fault()
        _stop_for_file(number)
    if code == 130:
        kept = "what was finished is kept, the same command goes on from there"
        _stop(f"interrupted; {kept}", stopping.exit_code())
    sys.exit(code)


def _run() -> int:
    """The command's exit code; what the parser refuses is a UserError."""
    import typer

    from . import usage
    from .app import app

    try:
        code: Any = app(standalone_mode=False, prog_name="talking-heads")
    except typer.Abort:  # Ctrl-C, in some versions of typer
        return 130
    except Exception as problem:
        if not hasattr(problem, "format_message"):
            raise
        if type(problem).__name__ == "NoArgsIsHelpError":  # help was printed, or is the message
            print(problem.format_message(), end="", file=sys.stderr)
            return 2
        raise usage.told(problem) from None
    return code if isinstance(code, int) else 0


def _closed() -> NoReturn:
    """The reader of a pipe has gone (`| head`): an end without a message, nor one from Python as it exits."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(null, stream.fileno())
    sys.exit(1)


def _fault() -> NoReturn:
    """Of the program, not of its user: the traceback, and where to send it."""
    traceback.print_exc()
    _stop(
        "this is a fault in talking-heads; please report it with the lines above and what `talking-heads doctor` prints",
        1,
    )


def _unwritten(problem: Exception) -> int | None:
    """The errno in the words of libraries that write by themselves: safetensors and tokenizers name it, torch.save
    says only that its file has another length than it should."""
    named = re.search(r"\(os error (\d+)\)", str(problem))
    if named:
        return int(named[1])
    if "iostream error" in str(problem):  # of torch.save's stream, which keeps no errno
        return errno.EIO
    return errno.ENOSPC if "inline_container.cc" in str(problem) else None


def _stop_for_file(number: int, where: str = "") -> NoReturn:
    todo = {
        errno.ENOSPC: "free some space and rerun the same command",
        errno.EDQUOT: "free some space and rerun the same command",
        errno.EACCES: "give access to it or name another place",
        errno.ENOENT: "check its name",
    }.get(number, "fix this and rerun the same command")
    _stop(f"files must be readable and writable; got {os.strerror(number)}{where}; {todo}", 2)


def _stop(message: str, code: int) -> NoReturn:
    print(f"talking-heads: {message}", file=sys.stderr)
    sys.exit(code)
