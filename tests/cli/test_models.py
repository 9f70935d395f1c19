"""Every command that opens a model takes a folder, an installed package that carries one, and a name on the hub."""

import json
import shutil

import pytest

from .running import refused, talking_heads  # noqa: F401

PLACES = ("folder", "package", "hub")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Plain and talking, each with a tokenizer."""
    from tests.heads.small import model, tokenizer

    place = tmp_path_factory.mktemp("models")
    for name in ("bert", "bert, talking"):
        folder = place / ("talking" if "talking" in name else "plain")
        model(name).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    (place / "task.tsv").write_text("sentence\tlabel\nthe old dog\t1\na red ball\t0\n")
    return place


@pytest.fixture
def named(folders, tmp_path, monkeypatch):
    """named(place, kind): how a user names the plain or the talking model there."""
    hub = {f"somebody/{kind}-bert": folders / kind for kind in ("plain", "talking")}
    for kind in ("plain", "talking"):
        package = tmp_path / "site" / f"a_{kind}_bert"
        shutil.copytree(folders / kind, package / "model")
        (package / "__init__.py").write_text("raise SystemExit('the package is not imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    asked = []

    def snapshot_download(name, **options):
        from huggingface_hub.errors import HFValidationError

        asked.append(name)
        if name not in hub:
            raise HFValidationError(f"no repository {name}")
        return str(hub[name])

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)

    def name(place, kind):
        return {"folder": str(folders / kind), "package": f"a-{kind}-bert", "hub": f"somebody/{kind}-bert"}[
            place
        ]

    name.asked = asked
    return name


COMMANDS = {
    "view": (["MODEL", "the old dog", "--out", "OUT"], "talking"),
    "dependencies": (
        ["MODEL", "tests/heads/data/sample.conllu", "--no-random-model", "--draws", "2"],
        "plain",
    ),
    "constituency": (["MODEL", "tests/heads/data/sample.mrg", "--no-random-model", "--draws", "2"], "plain"),
    "mixing": (["MODEL"], "talking"),
    "importance": (["MODEL", "TASK"], "plain"),
    "ablate": (["MODEL", "TASK", "--points", "1", "--order", "most"], "plain"),
    "prune": (["MODEL", "TASK", "OUT"], "plain"),
    "convert": (["MODEL", "OUT"], "plain"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_model_is_named_alike_in_every_command(command, named, folders, tmp_path, talking_heads, request):  # noqa: F811
    words, kind = COMMANDS[command]
    found = {}
    for place in PLACES:
        given = {"MODEL": named(place, kind), "TASK": folders / "task.tsv", "OUT": tmp_path / f"out-{place}"}
        written = [given.get(x, request.config.rootpath / x if x.startswith("tests/") else x) for x in words]
        done = talking_heads(command, *written, "--json", tmp_path / "found.json")
        assert done.code == 0, (place, done.err)
        found[place] = json.loads((tmp_path / "found.json").read_text())
        for changing in ("model", "out"):
            found[place].pop(changing, None)
    assert found["folder"] == found["package"] == found["hub"]
    assert named.asked == [f"somebody/{kind}-bert"]


def test_a_name_that_is_nothing(named, folders, talking_heads):  # noqa: F811
    refused(talking_heads("view", "nobody/nothing", "x"), "a model must be a folder, an installed package")
    refused(talking_heads("view", folders / "plian", "x"), f"did you mean {folders / 'plain'}?")
    refused(talking_heads("mixing", named("hub", "plain")), "maps")


def test_the_model_runs_in_the_dtype_asked_for(folders, tmp_path, talking_heads):  # noqa: F811
    """Half precision rounds, so that figures differ a little; convert writes it."""
    from safetensors.torch import load_file

    found = {}
    for dtype in ("float32", "bfloat16"):
        out = tmp_path / dtype
        words = [
            "view",
            folders / "plain",
            "the old dog",
            "--out",
            out,
            "--dtype",
            dtype,
            "--json",
            out.with_suffix(".json"),
        ]
        assert talking_heads(*words).code == 0
        found[dtype] = json.loads(out.with_suffix(".json").read_text())["panels"][0]["softmax"]
    assert found["float32"] != found["bfloat16"]
    done = talking_heads(
        "convert", folders / "plain", "--out", tmp_path / "half", "--dtype", "bfloat16", "--device", "cpu"
    )
    assert done.code == 0, done.err
    kinds = {
        x.dtype for x in load_file(tmp_path / "half" / "model.safetensors").values() if x.is_floating_point()
    }
    assert "torch.bfloat16" in map(str, kinds)
