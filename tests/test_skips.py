"""A skip that the list in conftest.py does not hold fails where CI=true."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ALLOWED_SKIPS, allowed

FILES = {
    "test_a_skip.py": 'import pytest\ndef test_it():\n    pytest.skip("no CPU kernel: it was not compiled")\n',
    "test_a_mark.py": 'import pytest\n@pytest.mark.skipif(True, reason="why")\ndef test_it(): pass\n',
    "test_a_package.py": 'import pytest\npytest.importorskip("no_such_package")\ndef test_it(): pass\n',
    "test_no_cases.py": 'import pytest\n@pytest.mark.parametrize("x", [])\ndef test_it(x): pass\n',
    "test_data.py": 'import pytest\ndef test_it():\n    pytest.skip("no real data: set TALKING_HEADS_DATA")\n',
}


@pytest.mark.parametrize(("ci", "arguments"), [("true", ("-n", "1")), ("", ())], ids=["CI", "elsewhere"])
def test_only_what_is_listed_may_be_skipped(ci, arguments, tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text())
    for name, text in FILES.items():
        (tmp_path / "tests" / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", *arguments]
    done = subprocess.run(
        [*command, "--continue-on-collection-errors", "tests"],
        cwd=tmp_path,
        env=os.environ | {"CI": ci},
        capture_output=True,
        text=True,
    )
    if not ci:
        assert done.returncode == 0 and "5 skipped" in done.stdout, done.stdout
        return
    assert done.returncode == 1 and "1 skipped" in done.stdout, done.stdout
    failed = {name for name in FILES if f"tests/{name}" in done.stdout.partition("short test summary")[2]}
    assert failed == set(FILES) - {"test_data.py"}, done.stdout
    assert "the skip is not in tests/conftest.py: no CPU kernel: it was not compiled" in done.stdout


def test_every_allowed_skip_names_tests_that_are_there_and_says_why():
    root = Path(__file__).parents[1]
    for begin, _, why in ALLOWED_SKIPS:
        assert [*root.glob(f"{begin}*")] and why
    assert not allowed("tests/heads/test_view.py::test_it", "no Chromium here: apt-get install chromium")
    assert not allowed("tests/kernels/cpu/test_values.py::test_it", "no CPU kernel: it was not compiled")
