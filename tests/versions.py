"""Run the tests with the lowest versions that pyproject.toml promises, or with the newest of every package.

    python tests/versions.py lowest        # or newest; other arguments go to pytest

Makes the environment .venv-lowest or .venv-newest, runs the tests that CI runs, and writes the outcome to
docs/results/versions.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results" / "versions.json"
FACTS = (
    "import importlib.metadata as m, json, sys; from talking_heads.results.provenance import provenance; "
    "found = provenance(); found['versions'] |= {name: m.version(name) for name in sys.argv[1:]}; print(json.dumps(found))"
)


def requirements(project: dict[str, Any]) -> list[Requirement]:
    """Every package that the project or one of its extras names."""
    extras = project["optional-dependencies"].values()
    texts = {*project["dependencies"], *(text for extra in extras for text in extra)}
    found = [Requirement(text) for text in sorted(texts)]
    return [x for x in found if x.name != project["name"] and (x.marker is None or x.marker.evaluate())]


def lowest(requirement: Requirement) -> str:
    """The requirement with its lower bound as the only version."""
    bounds = [x.version for x in requirement.specifier if x.operator in (">=", "==")]
    return f"{requirement.name}=={bounds[0]}" if bounds else requirement.name


def install(end: str, needed: list[Requirement], venv: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = [venv / "bin" / "python", "-m", "pip", "install", "--quiet"]
    wanted = [lowest(x) for x in needed] if end == "lowest" else ["--upgrade", *map(str, needed)]
    subprocess.run([*pip, *wanted], check=True)
    subprocess.run([*pip, "--no-deps", "--editable", ROOT], check=True)


def test(venv: Path, arguments: list[str]) -> dict[str, Any]:
    """The counts, and the names of the tests that failed."""
    report = venv / "report.xml"
    command = [venv / "bin" / "python", "-m", "pytest", "-q", "-n", "2", f"--junitxml={report}"]
    environment = os.environ | {"CI": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *(arguments or ["-m", "not slow"])], cwd=ROOT, env=environment)
    cases = [*ElementTree.parse(report).iter("testcase")]
    failed = [x for x in cases if x.find("failure") is not None or x.find("error") is not None]
    skipped = sum(x.find("skipped") is not None for x in cases)
    return {
        "passed": len(cases) - len(failed) - skipped,
        "failed": sorted({f"{x.get('classname')}::{x.get('name')}" for x in failed}),
        "skipped": skipped,
        "pytest": " ".join(arguments) or "-m 'not slow'",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("end", choices=["lowest", "newest"])
    parser.add_argument("--venv", type=Path, help="the environment to use as it is; default: a new one")
    known, arguments = parser.parse_known_args()
    needed = requirements(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])
    venv = known.venv or ROOT / f".venv-{known.end}"
    if known.venv is None:
        install(known.end, needed, venv)
    outcome = test(venv, arguments)
    names = [x.name for x in needed]
    facts = subprocess.run(
        [venv / "bin" / "python", "-c", FACTS, *names], cwd=ROOT, check=True, capture_output=True, text=True
    )
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    results[known.end] = outcome | json.loads(facts.stdout)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(
        f"{known.end}: {outcome['passed']} passed, {len(outcome['failed'])} failed, {outcome['skipped']} skipped"
    )
    sys.exit(bool(outcome["failed"]))


if __name__ == "__main__":
    main()
