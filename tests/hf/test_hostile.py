"""Model folders that strangers made: nothing of theirs runs, nothing outside is read, what is wrong is one line.

`fuzz` has the folders damaged at random; these are the kinds by name.
"""

import json
import os
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from talking_heads.errors import UserError
from talking_heads.heads import open_model
from talking_heads.heads.mixing import maps_in
from talking_heads.hf import load
from talking_heads.hf.folder import convert_folder
from tests.hf import fuzz

WEIGHTS, CONFIG, INDEX = "model.safetensors", "config.json", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return {
        x: fuzz.good_folder(tmp_path_factory.mktemp("good") / "model", converted=x) for x in (False, True)
    }


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good[False], tmp_path / "model")


@pytest.fixture
def talking(good, tmp_path):
    return shutil.copytree(good[True], tmp_path / "talking")


def set_config(folder, **values):
    config = json.loads((folder / CONFIG).read_text()) | values
    (folder / CONFIG).write_text(json.dumps(config))


def refused(folder, *about):
    """By every command that opens models."""
    for code in (open_model, lambda f: convert_folder(f, folder.with_name("new"))):
        with pytest.raises(UserError) as raised:
            code(str(folder))
        for words in about:
            assert re.search(words, str(raised.value)), raised.value
    assert not folder.with_name("new").exists()


def test_a_hundred_folders_damaged_at_random(tmp_path):
    outcomes = fuzz.run(100, 0, tmp_path)
    assert {name for name, _ in outcomes} == set(fuzz.HARMS)
    assert {outcome for _, outcome in outcomes} == {"opened", "refused"}


@pytest.mark.parametrize("kind", ["stranger", "bert"])
def test_code_of_the_folder_never_runs(kind, folder, talking, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question"))
    for place in (folder, talking):
        (place / "evil.py").write_text(f"import os\nos.mkdir({str(place / 'ran')!r})\n")
        auto = {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoTokenizer": ["evil.T", "evil.T"]}
        set_config(place, auto_map=auto, **({"model_type": kind} if kind == "stranger" else {}))
    if kind == "stranger":
        refused(folder)
        for code in (load, maps_in):
            with pytest.raises(UserError):
                code(folder)
        with pytest.raises(UserError):
            load(talking)
    else:
        open_model(str(folder))
        load(talking)
    assert not (folder / "ran").exists() and not (talking / "ran").exists()


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation"])
def test_attention_from_the_hub_is_refused(key, folder, monkeypatch):
    import transformers.integrations.hub_kernels as hub

    monkeypatch.setattr(hub, "get_kernel", lambda *_, **__: pytest.fail("the hub was asked"))
    set_config(folder, **{key: "kernels-community/x"})
    refused(folder, "kernels-community/x.*config.json")
    set_config(folder, **{key: "flash_attention_2"})  # a function that this machine may lack gives way
    open_model(str(folder))


@pytest.mark.parametrize(
    "name",
    ["../other.safetensors", "/etc/passwd", "weights.dat", "sub/x.safetensors", "..\\x.safetensors", ""],
)
def test_an_index_leads_to_safetensors_of_the_folder_only(name, folder, tmp_path):
    names = list(load_file(folder / WEIGHTS))
    shutil.copy(folder / WEIGHTS, tmp_path / "other.safetensors")
    torch.save(load_file(folder / WEIGHTS), folder / "weights.dat")
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, name)}))
    refused(folder, re.escape(INDEX))
    (folder / INDEX).unlink()
    shutil.copy(tmp_path / "other.safetensors", folder / WEIGHTS)
    set_config(folder, transformers_weights=name or "..")
    refused(folder, "transformers_weights")


def test_missing_further_and_broken_tensors_are_named(folder):
    weights = load_file(folder / WEIGHTS)
    query = "bert.encoder.layer.1.attention.self.query.weight"
    rest = {name: x for name, x in weights.items() if name != query}
    for changed, message in (
        (rest, f"missing {query}"),
        (weights | {query: torch.ones(3, 16)}, rf"misshapen {query} \[3, 16\] for \[16, 16\]"),
        (weights | {query.replace(".1.", ".2."): torch.ones(16, 16)}, "extra bert.encoder.layer.2"),
        (weights | {query: torch.full((16, 16), torch.nan)}, f"NaN or infinite numbers in {query}"),
        ({n: x for n, x in weights.items() if "classifier" not in n}, "missing classifier.bias"),
    ):
        save_file(changed, folder / WEIGHTS, {"format": "pt"})
        refused(folder, message)
    save_file(
        weights | {"cls.seq_relationship.weight": torch.ones(2, 16)}, folder / WEIGHTS, {"format": "pt"}
    )
    open_model(str(folder))  # a further head is no harm to look at


@pytest.mark.parametrize(
    "values",
    [
        {"num_hidden_layers": 10**6},
        {"num_hidden_layers": 9_999},
        {"id2label": None, "num_labels": 10**9},
        {"hidden_size": 2**20, "intermediate_size": 2**24},
        {"max_position_embeddings": 2**40},
        {"architectures": 5},
        {"architectures": [["BertModel"]]},
        {"num_hidden_layers": "2"},
        {"num_attention_heads": 0},
        {"hidden_act": "unknown"},
        {"model_type": ["bert"]},
        {"quantization_config": 5},
    ],
    ids=str,
)
def test_configs_that_cannot_be(values, folder):
    set_config(folder, **values)
    refused(folder)


@pytest.mark.parametrize("text", ["null", "[1]", "{nope", "{}", '{"a":' * 200_000 + "1" + "}" * 200_000])
def test_settings_that_are_no_object(text, folder):
    for name in (CONFIG, INDEX):
        kept = (folder / name).read_bytes() if (folder / name).exists() else None
        (folder / name).write_text(text)
        refused(folder, re.escape(name))
        (folder / name).unlink() if kept is None else (folder / name).write_bytes(kept)


def test_only_regular_files_come_along(folder, tmp_path):
    (tmp_path / "secret").write_text("password")
    (folder / "notes.txt").symlink_to(tmp_path / "secret")
    (folder / "places").symlink_to(tmp_path)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    (folder / "1_Pooling" / "more.json").symlink_to(tmp_path / "secret")
    (folder / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "1_Pooling"}, {"path": "../x"}]))
    (folder / "rust_model.ot").write_bytes(b"x")
    (folder / "evil.py").write_text("x")
    os.mkfifo(folder / "pipe")
    done, _ = convert_folder(folder, tmp_path / "new")
    left = {"notes.txt", "places/", "1_Pooling/more.json", "rust_model.ot", "evil.py", "pipe"}
    assert set(done.files) == left
    there = {str(x.relative_to(tmp_path / "new")) for x in (tmp_path / "new").rglob("*") if x.is_file()}
    assert "1_Pooling/config.json" in there and not any("password" in str(x) for x in there)
    assert there >= {"README.md", "tokenizer.json", "modules.json", CONFIG, WEIGHTS}
    assert not (tmp_path / "new" / "notes.txt").exists()


def test_a_snapshot_of_the_hubs_cache_is_whole(folder, tmp_path):
    blobs, snapshot = tmp_path / "cache" / "blobs", tmp_path / "cache" / "snapshots" / "main"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    done, _ = convert_folder(snapshot, tmp_path / "new")
    assert not done.files and (tmp_path / "new" / "tokenizer.json").is_file()


def test_an_adapters_folder_is_no_model(folder, tmp_path):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"an adapter in .*merge_and_unload"):
        convert_folder(folder, tmp_path / "new")


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json", "generation_config.json", "chat_template.jinja"])
@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "zeros"]
)
def test_pipes_and_devices_in_a_folder_are_not_read(make, name, folder):
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    refused(folder, f"plain files; got a pipe or device as {name}")


def test_maps_of_a_pipe_are_not_read(talking):
    (talking / WEIGHTS).unlink()
    os.mkfifo(talking / WEIGHTS)
    with pytest.raises(UserError, match="plain files"):
        maps_in(talking)


def test_a_tokenizer_without_its_vocabulary_is_refused(folder):
    """transformers makes one that knows no word."""
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"vocabulary; got none of .*vocab.txt"):
        open_model(str(folder))
