"""What is distributed: the source distribution has all that tests need, the wheel one file for every Python 3."""

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ABOUT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def tracked():
    """The files of a checkout; of an unpacked source distribution those that are there."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0 and done.stdout:
        return set(done.stdout.splitlines())
    return {
        path.relative_to(ROOT).as_posix()
        for folder in ("talking_heads", "tests", "docs", "benchmarks", "release", "applications")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".so")
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(names in the source distribution, those in a wheel built without a compiler, its metadata, its file name)"""
    out = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source")
    for name in tracked():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "setup.py", "-q", "sdist", "-d", str(out), "bdist_wheel", "-d", str(out)]
    environment = {**os.environ, "CC": "/bin/false", "CXX": "/bin/false"}
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (archive,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    with tarfile.open(archive) as file:
        inside = {name.partition("/")[2] for name in file.getnames()}
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        metadata = file.read(next(x for x in names if x.endswith("METADATA"))).decode()
    return inside, names, metadata, wheel.name


def test_the_source_distribution_is_complete(built):
    assert not sorted(tracked() - built[0])


def test_the_wheel_is_for_every_python_3(built):
    _, names, _, file = built
    assert re.fullmatch(r"talking_heads_attention-[\d.]+-py3-none-\w+\.whl", file)
    has = {
        "talking_heads/py.typed",
        "talking_heads/kernels/triton/tiles.json",
        "talking_heads/kernels/cpu/src/kernel.cpp",
    }
    assert has < names and any(name.endswith("licenses/LICENSE") for name in names)
    assert all(name.startswith(("talking_heads/", "talking_heads_attention-")) for name in names)


def test_metadata(built):
    metadata = built[2]
    assert "License-Expression: Apache-2.0" in metadata and "Requires-Python: >=3.11" in metadata
    for word in ("Keywords: attention", "Project-URL: Paper, https://arxiv.org/abs/2003.02436"):
        assert word in metadata
    for version in ("3.11", "3.12", "3.13", "3.14"):
        assert f"Classifier: Programming Language :: Python :: {version}" in metadata


def test_the_version_is_one(built):
    import talking_heads

    assert f"\nVersion: {talking_heads.__version__}\n" in built[2]
    assert f"## {talking_heads.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_nothing_of_others_is_bundled():
    """All that is distributed is this project's own, under one licence: no vendored code, fonts or weights."""
    suffixes = {Path(name).suffix for name in tracked() if name.startswith("talking_heads/")}
    assert suffixes <= {".py", ".typed", ".cpp", ".h", ".json"}, suffixes


def test_another_machine_gets_no_flags_of_this_one():
    """What .ci/wheel relies on when it cross-compiles."""
    code = "import runpy; print(sorted(runpy.run_path('setup.py')['SETS']))"
    for machine, sets in (("aarch64", ["plain"]), ("x86_64", ["avx2", "avx512", "plain"])):
        env = {**os.environ, "TALKING_HEADS_MACHINE": machine}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
        assert done.stdout.strip() == str(sets), done.stderr
