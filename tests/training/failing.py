"""A real comparison, with checkpoints, on a file layer whose n-th call fails, for every n.

    python -m tests.training.failing [--every 7]

Builds failing.cpp and starts itself again with it in front of libc, so that the calls of torch and safetensors are
counted, too. After each failure the same command must say one line, and run again to the same figures.
"""

import argparse
import contextlib
import ctypes
import errno
import gc
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
# One arm, three steps with a checkpoint after each, no transfer.
COMMAND = "--quiet compare --seeds 1 --steps 3 --batch 2 --length 32 --width 16 --layers 1 --vocabulary 512 --transfer none".split()  # noqa: SIM905
COMMAND += ["--arm", "talking-heads:2"]
ERRORS = (errno.ENOSPC, errno.EIO)


def build(folder: Path) -> Path:
    library = folder / "failing.so"
    source = Path(__file__).with_suffix(".cpp")
    command = ["g++", "-O1", "-shared", "-fPIC", "-D_GNU_SOURCE", str(source), "-o", str(library), "-ldl"]
    subprocess.run(command, check=True)
    return library


def command(out: Path, texts: list[str]) -> tuple[int, str]:
    """(exit code, standard error) of the comparison in this process."""
    from talking_heads.cli import main

    sys.argv = ["talking-heads", *COMMAND, "--out", str(out), *texts]
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
    return 0, said.getvalue()


def figures(out: Path) -> list[object]:
    arms = json.loads((out / "results.json").read_text())["arms"]
    return [[arm[name] for name in ("name", "parameters", "loss", "curves")] for arm in arms]


def every(where: Path, step: int, first: int = 1) -> dict[str, float]:
    """Let the n-th call fail, for n = first, first + step and so on; counts and seconds, or an AssertionError."""
    from tests.training.small import from_texts, write_texts

    layer = ctypes.CDLL(None)
    layer.calls.restype = ctypes.c_long
    texts = from_texts(write_texts(where))
    arm = lambda n, code, out: layer.fail_at(ctypes.c_long(n), code, os.fsencode(out))  # noqa: E731
    arm(0, 0, where / "whole")
    code, said = command(where / "whole", texts)
    total, begun = layer.calls(), time.perf_counter()
    assert code == 0, said
    wanted, failed, harmless = figures(where / "whole"), 0, 0
    gc.collect()
    gc.freeze()  # each Trainer collects garbage
    for n in range(first, total + 1, step):
        out = where / f"fails-{n}"
        arm(n, ERRORS[n % len(ERRORS)], out)
        code, said = command(out, texts)
        arm(0, 0, out)
        assert "Traceback" not in said and said.count("\n") == (code != 0), (n, code, said)
        assert code in (0, 2), (n, code, said)
        failed, harmless = failed + (code == 2), harmless + (code == 0)
        if code == 2:
            code, said = command(out, texts)
            assert code == 0, (n, said)
        assert figures(out) == wanted, n
        left = [
            str(x.relative_to(out))
            for x in out.rglob("*")
            if x.name.startswith((".talking-heads-", "checkpoint-"))
        ]
        assert not left, (n, left)
        shutil.rmtree(out)
    gc.unfreeze()
    return {
        "calls": total,
        "failed": failed,
        "harmless": harmless,
        "seconds": round(time.perf_counter() - begun),
    }


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    """This module in a process with the file layer in front of libc."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"LD_PRELOAD": str(build(Path(folder))), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, "-m", "tests.training.failing", "--inside", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--first", type=int, default=1, help="the first n")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.inside:
        done = start("--every", str(given.every), "--first", str(given.first))
        print(done.stdout, done.stderr, sep="", end="")
        return done.returncode
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(every(Path(folder), given.every, given.first)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
