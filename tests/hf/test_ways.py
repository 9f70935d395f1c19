"""How a saved model is loaded, and what comes: its maps, or a refusal that says what to do. Never a model without them.

The table in docs/conversion.md is checked against WAYS.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoConfig

from talking_heads.anatomy.inputs import inputs
from talking_heads.errors import UserError
from talking_heads.hf import convert, load, mixings, revert
from tests.hf.models import model
from tests.hf.test_named import stir

MAPS = "its maps"
OURS = "refused in one line"
THEIRS = "refused by transformers; the error names `talking_heads.hf.load`"


def _config(folder, **kwargs):
    return AutoConfig.from_pretrained(folder, **kwargs)


def _edited(folder):
    file = folder / "config.json"
    file.write_text(re.sub(r"layer(s?)\.1\.", r"layer\1.9.", file.read_text()))
    return folder


def _fewer(folder):
    config = _config(folder)
    config.talking_heads["layers"].popitem()
    return config


def _half(kind, **options):
    return lambda folder: getattr(transformers, kind).from_pretrained(folder, **options)


def _half_of(kind, part):
    return lambda folder: getattr(transformers, kind).from_pretrained(
        folder, config=getattr(_config(folder), part)
    )


def _state(folder):
    from safetensors.torch import load_file

    model("bert").load_state_dict(load_file(folder / "model.safetensors"), strict=False)


def _dispatched(folder):
    import accelerate

    accelerate.load_checkpoint_and_dispatch(model("bert"), str(folder), device_map={"": "cpu"})


def _wider(folder):
    file = folder / "config.json"
    file.write_text(file.read_text().replace('"layer_heads": 4', '"num_heads": 6, "layer_heads": 4'))
    return folder


# {how it is loaded: (which model, what comes, the code)}
WAYS = {
    "`talking_heads.hf.load(folder)`": ("bert", MAPS, load),
    "an Auto class of the model that was saved": (
        "bert",
        MAPS,
        transformers.AutoModelForMaskedLM.from_pretrained,
    ),
    "an Auto class with another head, or the base model": (
        "bert",
        MAPS,
        transformers.AutoModel.from_pretrained,
    ),
    "a class named by you, `config=AutoConfig.from_pretrained(folder)`": (
        "bert",
        MAPS,
        lambda f: transformers.BertForMaskedLM.from_pretrained(f, config=_config(f)),
    ),
    "`load(folder, config=config)` with a changed setting": (
        "bert",
        MAPS,
        lambda f: load(f, config=_config(f, hidden_dropout_prob=0.25)),
    ),
    "`load(parent, subfolder=name)`": ("bert", MAPS, lambda f: load(f.parent, subfolder=f.name)),
    "half of a composite model, `config=` its part of the config": (
        "clip",
        MAPS,
        _half_of("CLIPVisionModel", "vision_config"),
    ),
    "`load(folder, architecture=)` a class of that part": (
        "clip",
        MAPS,
        lambda f: load(f, architecture="CLIPTextModelWithProjection"),
    ),
    "a model around a converted one, or converted in one part only": ("part of bart", MAPS, load),
    "a model made by a class or Auto class `from_config`": (
        "bert",
        MAPS,
        lambda f: transformers.AutoModelForMaskedLM.from_config(_config(f)),
    ),
    "a plain class: `BertForMaskedLM.from_pretrained(folder)`": (
        "bert",
        THEIRS,
        transformers.BertForMaskedLM.from_pretrained,
    ),
    'a plain class with `attn_implementation="eager"` or `"sdpa"`': (
        "bert",
        THEIRS,
        _half("BertForMaskedLM", attn_implementation="eager"),
    ),
    "a plain class of a part: `CLIPVisionModel.from_pretrained(folder)`": (
        "clip",
        THEIRS,
        _half("CLIPVisionModel", attn_implementation="sdpa"),
    ),
    "a plain class around or above a converted part": (
        "part of bart",
        THEIRS,
        transformers.BartForConditionalGeneration.from_pretrained,
    ),
    "a plain class with a plain `config=` of your own": (
        "bert",
        OURS,
        lambda f: transformers.BertForMaskedLM.from_pretrained(f, config=model("bert").config),
    ),
    "an Auto class or `load` with another `attn_implementation`": (
        "bert",
        OURS,
        lambda f: load(f, attn_implementation="eager"),
    ),
    "a config that names layers the model does not have": (
        "bert",
        OURS,
        lambda f: transformers.AutoModel.from_pretrained(_edited(f)),
    ),
    "a config that no longer names a layer": (
        "bert",
        OURS,
        lambda f: transformers.AutoModelForMaskedLM.from_pretrained(f, config=_fewer(f)),
    ),
    "`load_state_dict(strict=False)` of its weights into a plain model": ("bert", OURS, _state),
    "accelerate's `load_checkpoint_and_dispatch` of its folder into a plain model": (
        "bert",
        OURS,
        _dispatched,
    ),
    "a config that gives maps other shapes, also with `ignore_mismatched_sizes=True`": (
        "bert",
        OURS,
        lambda f: transformers.AutoModel.from_pretrained(_wider(f), ignore_mismatched_sizes=True),
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """{name: (folder, model)} of models with random maps, made once."""
    made = {}

    def find(name):
        if name not in made:
            talking = model(name.rpartition(" ")[2])
            convert(talking.model.decoder if "part" in name else talking)
            made[name] = tmp_path_factory.mktemp(name.replace(" ", "")) / "saved", stir(talking)
            talking.save_pretrained(made[name][0])
        return made[name]

    return find


@pytest.mark.parametrize("how", WAYS)
def test_what_comes(how, saved, tmp_path):
    name, outcome, code = WAYS[how]
    folder, talking = saved(name)
    if "config that" in how:  # edits its files
        talking.save_pretrained(tmp_path)
        folder = tmp_path
    if outcome != MAPS:
        with pytest.raises(ValueError, match=r"talking_heads|attention function") as raised:
            code(folder)
        assert isinstance(raised.value, UserError) == (outcome == OURS), raised.value
        assert outcome != THEIRS or "talking_heads.hf.load" in str(raised.value)
        return
    loaded = code(folder).eval()
    want = {n: x for n, x in talking.named_parameters() if n.endswith("_mix")}
    got = [n for n, _ in loaded.named_parameters() if n.endswith("_mix")]
    assert got and all(any(n.endswith(m) or m.endswith(n) for m in want) for n in got)
    if "from_config" not in how and type(loaded) is type(talking):
        given = inputs(talking, {})
        assert torch.equal(loaded(**given)[0], talking(**given)[0])


def test_the_table_in_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "conversion.md").read_text()
    rows = re.findall(
        r"^\| (.+?) \| (.+?) \|$",
        text.partition("| how a saved model is loaded | what comes |\n|---|---|")[2],
        re.MULTILINE,
    )
    assert rows[: len(WAYS)] == [(how, outcome) for how, (_, outcome, _) in WAYS.items()]


def test_without_this_package_every_way_fails(saved, tmp_path):
    (bert, _), (clip, _) = saved("bert"), saved("clip")
    code = f"""
import transformers
for kind, folder, options in (
    ("AutoModel", {str(bert)!r}, {{}}),
    ("AutoConfig", {str(bert)!r}, {{}}),
    ("BertModel", {str(bert)!r}, {{"attn_implementation": "sdpa", "dtype": "auto"}}),
    ("CLIPTextModel", {str(clip)!r}, {{"attn_implementation": "eager"}}),
):
    try:
        getattr(transformers, kind).from_pretrained(folder, **options)
    except ValueError as error:
        assert "talking_heads" in str(error), error
        print("refused")
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert told.stdout.split() == ["refused"] * 4, told.stderr


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_the_other_half_goes_on_as_before(part):
    """BART's halves share one config, and with it the attention function."""
    plain, talking = model("bart"), model("bart")
    convert(getattr(talking.model, part))
    given = inputs(plain, {})
    torch.testing.assert_close(talking(**given)[0], plain(**given)[0])
    assert len(mixings(stir(talking))) == {"encoder": 2, "decoder": 4}[part]
    revert(getattr(talking.model, part))
    assert torch.equal(talking(**given)[0], plain(**given)[0]) and type(talking.config) is type(plain.config)


def test_the_saved_form_names_nothing_that_plain_readers_know(saved):
    config = json.loads((saved("clip")[0] / "config.json").read_text())
    assert config["model_type"] == "talking_heads" and config["architectures"] == ["TalkingHeadsCLIPModel"]
    for part in (config, config["text_config"], config["vision_config"]):
        assert "talking_heads.hf.load" in part["transformers_weights"]
    again = AutoConfig.from_pretrained(saved("clip")[0])
    assert again.architectures == ["CLIPModel"] and not hasattr(again.text_config, "transformers_weights")
