"""A comparison goes on after any call of the file system that fails: see `failing`."""

import json
import shutil
import sys

import pytest

from tests.cases import in_ci

from . import failing


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="LD_PRELOAD is Linux's")
@pytest.mark.parametrize("every", in_ci([1, 150], 150))
def test_the_nth_call_of_a_comparison_fails(every):
    """In CI for three n spread over the run, at full length for every n."""
    if not shutil.which("g++"):
        pytest.skip("no g++")
    done = failing.start("--every", str(every), "--first", str(min(every, 60)))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["calls"] > 200 and found["failed"] >= (3 if every > 1 else 200)
