"""A rate for each arm, chosen on validation text by seeds that are not used again."""

import json

import pytest

from talking_heads.errors import UserError
from talking_heads.training.corpus import Corpus
from talking_heads.training.gather import gather
from talking_heads.training.pilot import choose_rates

from .small import SMALL, run

SIZES = "--seeds 1 --steps 2 --batch 2 --length 32 --width 16 --layers 1 --transfer none".split()  # noqa: SIM905
ARMS = ["--arm", "multi-head:2:rate=0.002", "--arm", "talking-heads:2"]


def test_each_arm_trains_at_the_rate_that_its_pilot_chose(texts, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    options = ["--rate", "1e-9", "--rate", "3e-2", "--pilot-seeds", 1, "--objective", "masked-lm"]
    for _ in range(2):  # the second goes on, which is to do nothing
        assert run(monkeypatch, "compare", "--out", out, *SIZES, *ARMS, *options, *texts) == 0
    results = json.loads((out / "results.json").read_text())
    assert [arm["name"] for arm in results["arms"]] == [
        "multi-head:2:rate=0.002",
        "talking-heads:2:rate=0.03",
    ]
    assert (
        list(results["rates"]) == ["talking-heads:2"] and results["rates"]["talking-heads:2"]["at_the_edge"]
    )
    pilot = gather([out / "pilot"])
    assert pilot["settings"]["seeds"] == [1000] and not pilot["parts"]
    losses = {arm["name"].rpartition("=")[2]: arm["loss"] for arm in pilot["arms"]}
    assert results["rates"]["talking-heads:2"]["losses"] == {"1e-09": losses["1e-09"], "0.03": losses["0.03"]}
    assert losses["0.03"] < losses["1e-09"]
    assert "Learning rates, by validation loss of pilot seeds" in " ".join(capsys.readouterr().out.split())


def test_pilot_seeds_are_not_used_again(tmp_path):
    nothing = Corpus("x", [], [], [], [])
    with pytest.raises(UserError, match="must not be used again"):
        choose_rates(SMALL, nothing, tmp_path, [1e-3], [0, 7])
    with pytest.raises(UserError, match="different values"):
        choose_rates(SMALL, nothing, tmp_path, [1e-3, 1e-3], [7])
    assert not list(tmp_path.iterdir())
