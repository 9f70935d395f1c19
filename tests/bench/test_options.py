"""Options of bench that nothing can be measured with, and shapes that cannot be."""

import pytest

from talking_heads.bench import Options, bench, run
from talking_heads.errors import UserError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit_gib", float("nan")),
        ("limit_gib", -1.0),
        ("minutes", float("nan")),
        ("seconds", float("inf")),
        ("seconds", -1.0),
        ("threads", -1),
        ("rounds", 0),
        ("seed", 10**30),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_name(name, value):
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} must be from"):
        bench(Options(shapes=("2x8x16",), **{name: value}))


def test_a_shape_that_cannot_be_allocated_does_not_end_the_others(monkeypatch):
    def in_child(function, arguments, **given):
        if "999" in str(arguments[0]):
            raise RuntimeError("RuntimeError: can't allocate memory")
        return {"shape": str(arguments[0]), "peak_gflops": 1.0, "forms": {"sdpa": {"status": "ok"}}}, None

    monkeypatch.setattr(run, "in_child", in_child)
    found = bench(Options(shapes=("2x8x16", "2x8x999", "2x8x32"), forms=("sdpa",)))["shapes"]
    assert [part.get("status", "measured") for part in found] == ["measured", "failed", "measured"]
    assert "allocate" in found[1]["why"]
