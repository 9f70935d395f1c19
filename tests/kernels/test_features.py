"""docs/features.md says what comes of each form of a call under each feature of torch."""

from pathlib import Path

import pytest

from .features import EAGER, FORMS, PROGRAMS, try_cell

PAGE = Path(__file__).parents[2] / "docs" / "features.md"
FEATURES = [*EAGER, *PROGRAMS]
QUICK = {("both maps", feature) for feature in EAGER} | {(form, "backward") for form in FORMS}
QUICK |= {
    ("causal", "compile"),
    ("groups", "compile(func.grad)"),
    ("bool mask", "export"),
    ("low-rank maps", "jit.trace"),
}
QUICK |= {
    ("float mask", "func.jvp"),
    ("maps by memory", "twice"),
    ("one query", "func.vmap"),
    ("float64", "vmap(grad)"),
}


def written() -> dict[tuple[str, str], str]:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    names = [x.strip() for x in lines[0].strip("|").split("|")][1:]
    rows = [[x.strip() for x in line.strip("|").split("|")] for line in lines[1 : len(FORMS) + 1]]
    assert names == FEATURES and [row[0] for row in rows] == list(FORMS)
    return {(row[0], name): cell for row in rows for name, cell in zip(names, row[1:], strict=True)}


def test_no_cell_is_wrong():
    assert {cell.partition(" ")[0] for cell in written().values()} <= {"fused", "torch", "refused"}


@pytest.mark.parametrize(
    ("form", "feature"),
    [
        pytest.param(form, feature, marks=() if (form, feature) in QUICK else pytest.mark.slow)
        for form in FORMS
        for feature in FEATURES
    ],
)
def test_a_cell(form, feature):
    if feature == "ONNX":
        pytest.importorskip("onnxruntime")
    found = try_cell(form, feature).partition(":")[0]
    assert written()[form, feature].partition(" ")[0] == found
