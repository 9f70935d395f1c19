"""The tests of the CPU kernel on a build with AddressSanitizer and UndefinedBehaviorSanitizer.

    python -m tests.kernels.cpu.sanitized [--set avx2] [pytest's arguments]

builds the set (the best that this processor has) into a folder of its own and runs the tests in a child
process. The sanitizers see every access outside a tensor, since torch allocates through the posix_memalign
that they replace, and outside a part of the kernel's workspace, since call.h marks the gaps between them.
"""

import argparse
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from talking_heads.kernels.cpu import binding
from tests.kernels.cpu.common import ROOT

# All but the tests that load another library or start a process of their own.
LEFT_OUT = ("sets", "sanitized", "install", "memory", "fewer_threads", "forked", "as_many_threads")
MATRIX = [
    *("tests/kernels/test_contract.py", "tests/kernels/cpu", "tests/test_functional.py", "-m", "not slow"),
    *("-k", " and not ".join(["cpu", *LEFT_OUT])),
]
FLAGS = ["-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def missing() -> str | None:
    """Why there can be no sanitized build here; None where there can."""
    if binding.MISSING:
        return binding.MISSING
    if not (ROOT / "setup.py").exists():
        return "not a checkout: no sources"
    if _compiler() is None:
        return "no g++"
    absent = [path for path in _runtimes() if not Path(path).is_absolute()]
    return f"g++ lacks {', '.join(absent)}" if absent else None


def build(folder: Path, name: str) -> Path:
    """The library of one instruction set with sanitizers; as setup.py builds it but for the optimisation."""
    recipe = runpy.run_path(str(ROOT / "setup.py"))
    library = folder / f"{name}.so"
    flags = [flag for flag in recipe["FLAGS"] if flag != "-O3"] + recipe["SETS"][name] + FLAGS
    source = str(ROOT / recipe["SOURCES"] / "kernel.cpp")
    command = [str(_compiler()), *flags, "-fopenmp", "-fPIC", "-shared", source, "-o", str(library)]
    subprocess.run(command, check=True)
    return library


def python(library: Path, *arguments: str, timeout: float | None = None) -> subprocess.CompletedProcess:
    """Python with the sanitizers' runtimes in front of everything; its code loads the library itself."""
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(_runtimes()),
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter's own
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def tests(library: Path, *arguments: str, timeout: float | None = None) -> subprocess.CompletedProcess:
    """pytest with the library in the kernel's place."""
    code = f"""
import sys, pytest
from pathlib import Path
from talking_heads.kernels.cpu import binding
with binding.using(Path({str(library)!r})):
    sys.exit(pytest.main({["-q", "-s", "-p", "no:cacheprovider", *arguments]!r}))
"""
    return python(library, "-c", code, timeout=timeout)


def _compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++"))


def _runtimes() -> list[str]:
    """libstdc++, too: AddressSanitizer looks for its __cxa_throw before torch brings it."""
    ask = lambda name: subprocess.run(  # noqa: E731
        [str(_compiler()), f"-print-file-name={name}"], capture_output=True, text=True
    ).stdout.strip()
    return [ask(name) for name in ("libasan.so", "libubsan.so", "libstdc++.so")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--set", default=next(iter(binding.installed()), None), help="instruction set")
    arguments, rest = parser.parse_known_args()
    if reason := missing():
        print(f"no sanitized build: {reason}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        print(f"building {arguments.set} with sanitizers", file=sys.stderr)
        done = tests(build(Path(folder), arguments.set), *(rest or MATRIX))
    print(done.stdout, done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
