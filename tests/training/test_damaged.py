"""Folders of runs that something has changed: the schema names what is damaged; checkpoints are checked before use."""

import json
import zipfile

import pytest

from talking_heads.errors import UserError
from talking_heads.results.files import set_aside
from talking_heads.results.schema import NUMBER, Each, fault, read_json
from talking_heads.training.blocks import _kept
from talking_heads.training.callbacks import Metrics
from talking_heads.training.checkpoints import drop_checkpoints, last_checkpoint, read_curve, resume_from
from talking_heads.training.compare import _set_damaged_aside
from talking_heads.training.gather import CURVE, RESULT, TIMING, gather
from talking_heads.training.settings import Settings

from .test_gather import write_run


def edited(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


CHANGES = {
    "the file is no object": lambda path: path.write_text("[]"),
    "no JSON": lambda path: path.write_text('{"arm": '),
    "has no 'curve'": lambda path: edited(path, lambda x: x.pop("curve")),
    "has no 'settings'": lambda path: edited(path, lambda x: x.pop("settings")),
    "seed is 'zero'": lambda path: edited(path, lambda x: x.update(seed="zero")),
    "seed is 'True'": lambda path: edited(path, lambda x: x.update(seed=True)),
    "curve has the name 'one'": lambda path: edited(path, lambda x: x["curve"].update(one=1)),
    "a number of 401 digits": lambda path: edited(path, lambda x: x["curve"].update({"9": 10**400})),
    r"about.transfer\[0\] has no 'train'": lambda path: edited(
        path, lambda x: x["about"].update(transfer=[{"name": "era", "test": 3}])
    ),
    "about.transfer.0..majority is 'x'": lambda path: edited(
        path,
        lambda x: x["about"].update(transfer=[{"name": "era", "test": 3, "train": 3, "majority": "x"}]),
    ),
    "maps.a is no list": lambda path: edited(path, lambda x: x.update(maps={"a": 1})),
    r"about.transfer\[0\] has no 'name'": lambda path: edited(
        path, lambda x: x["about"].update(transfer=[{}])
    ),
}


@pytest.mark.parametrize("said", CHANGES)
def test_damaged_results_are_named_and_set_aside(tmp_path, said):
    write_run(tmp_path, "multi-head:2", 0, [5.0, 4.0])
    (path,) = tmp_path.glob("runs/*/seed-0/result.json")
    CHANGES[said](path)
    with pytest.raises(UserError, match=rf"{said}.*result.json"):
        gather([tmp_path])
    with pytest.warns(UserWarning, match=said):
        _set_damaged_aside(tmp_path)
    assert not path.exists() and path.with_suffix(".damaged").exists()


def test_whole_results_stay(tmp_path):
    write_run(tmp_path, "multi-head:2", 0, [5.0, 4.0])
    _set_damaged_aside(tmp_path)
    assert read_json(next(tmp_path.glob("runs/*/seed-0/result.json")), RESULT)
    (tmp_path / "timing.json").write_text("null")
    with pytest.raises(UserError, match=r"timing.json.*run compare again"):
        gather([tmp_path])
    assert fault({"a": [None, 1.5]}, Each([NUMBER])) is None and fault({"1": "x"}, CURVE) == "1 is 'x'"
    assert fault({"machine": {}, "seconds": {"0": {"a": None}}}, TIMING) == "seconds.0.a is 'None'"


def checkpoint(folder, step, weights=b"", state=True):
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    for name in ("scheduler.pt", "optimizer.bin"):  # the latter of FSDP
        with zipfile.ZipFile(path / name, "w") as archive:
            archive.writestr("data", "x" * 100)
    if weights:
        (path / "model.safetensors").write_bytes(weights)
    if state:
        (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return path


def test_only_whole_checkpoints_are_used(tmp_path):
    whole = checkpoint(tmp_path, 5)
    checkpoint(tmp_path, 10, state=False)
    checkpoint(tmp_path, 15, weights=b"no tensors")
    for step, name in ((20, "scheduler.pt"), (22, "optimizer.bin")):
        cut = checkpoint(tmp_path, step) / name
        cut.write_bytes(cut.read_bytes()[:-30])
    checkpoint(tmp_path, 30).rename(tmp_path / "checkpoint-25")
    (tmp_path / "checkpoint-old").mkdir()
    with pytest.warns(UserWarning, match="set aside as damaged-checkpoint"):
        assert last_checkpoint(tmp_path) == str(whole)
    drop_checkpoints(tmp_path)
    damaged = [f"damaged-checkpoint-{step}" for step in (10, 15, 20, 22, 25)]  # never deleted
    assert sorted(x.name for x in tmp_path.iterdir()) == ["checkpoint-old", *damaged]
    assert (tmp_path / "damaged-checkpoint-15" / "model.safetensors").read_bytes() == b"no tensors"


def test_a_run_whose_curve_is_lost_starts_again(tmp_path):
    settings = Settings(steps=100)
    every = settings.evaluate_every
    path = checkpoint(tmp_path, 2 * every + 1)
    (tmp_path / "curve.json").write_text(json.dumps({every: 3.0, 2 * every: 2.0}))
    assert resume_from(tmp_path, settings) == str(path)
    (tmp_path / "curve.json").write_text('{"5": 3.')
    assert read_curve(tmp_path / "curve.json") == {}
    assert resume_from(tmp_path, settings) is None and not path.exists()
    assert (tmp_path / "curve.damaged").read_text() == '{"5": 3.'


def test_what_is_set_aside_gets_a_name_that_is_free(tmp_path):
    for text in ("first", "second", "third"):
        (tmp_path / "result.json").write_text(text)
        set_aside(tmp_path / "result.json")
    names = ("result.damaged", "result.damaged-2", "result.damaged-3")
    assert [(tmp_path / name).read_text() for name in names] == ["first", "second", "third"]


def test_damaged_metrics_are_set_aside_when_training_begins(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"loss": 1.0}\n{"loss": ')
    with pytest.warns(UserWarning, match=r"metrics.jsonl is damaged: set aside as metrics.damaged"):
        Metrics(path).on_train_begin(None, None, None)
    assert not path.exists() and (tmp_path / "metrics.damaged").read_text().endswith('{"loss": ')


def test_damaged_blocks_are_made_again(tmp_path):
    (tmp_path / "blocks.safetensors").write_bytes(b"\0" * 5000)
    with pytest.warns(UserWarning, match="damaged"):
        assert _kept(tmp_path) is None
