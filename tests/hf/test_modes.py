"""Generation in every mode: a few families and modes here, all of them in docs/results/generation.json."""

import json
import threading
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AttentionInterface

from talking_heads.errors import UserError
from talking_heads.hf import convert
from talking_heads.hf.attention import NAME, attend, register
from talking_heads.hf.survey import generation, modes
from talking_heads.hf.survey.generation import ABSENT, EQUAL, REFUSED, START, examine, markdown, resume
from tests.hf.models import model
from tests.hf.test_named import stir

ROOT = Path(__file__).parents[2]
DYNAMIC = ("query_logits", "memory_logits", "query_weights", "memory_weights")
QUICK = {  # what runs in CI: each mode by a family that has it
    "llama": ("early exit", "packed", "quantized", "chunked, static"),
    "mistral": ("sliding", "static"),
    "gemma4": ("last logits", "static"),
    "t5": ("assisted", "beams"),
    "bart": ("left padding", "chunked"),
    "gpt2": ("dynamic", "left padding"),
}


@pytest.mark.parametrize("folder", QUICK)
def test_modes_give_what_the_model_computes(folder, monkeypatch):
    monkeypatch.setattr(generation, "MODES", {x: modes.MODES[x] for x in ("dynamic", *QUICK[folder])})
    row = examine(folder)[-1]
    for mode in QUICK[folder]:
        if mode == "quantized" and "Unknown quantization backend" in row["static"][mode]:
            continue  # transformers 5.20 has no cache in fp8
        start_only = mode == "quantized" or (folder, mode) == ("bart", "left padding")
        assert row["static"][mode] == (START if start_only else EQUAL), (mode, row["static"][mode])
        dynamic = row["dynamic"][mode]
        if folder == "gemma4":
            dynamic = (
                dynamic.replace(REFUSED, EQUAL) if "takes its keys from another layer" in dynamic else dynamic
            )
        assert dynamic.partition(":")[0] in (EQUAL, START), (mode, dynamic)


@pytest.mark.slow
@pytest.mark.parametrize(
    "folder", ["gemma3", "gemma3n", "qwen3", "zamba2", "hrm_text", "deepseek_v3", "whisper", "gpt_oss"]
)
def test_families_of_other_kinds(folder):
    for row in examine(folder):
        cells = [x for maps in ("static", "dynamic") for x in row[maps].values()]
        assert cells and all(x.partition(":")[0] != "wrong" for x in cells)


def test_a_mask_that_is_ignored_is_seen(monkeypatch):
    """In a static cache, the positions behind the last one."""

    def fault(module, query, key, value, attention_mask, **options):
        return attend(module, query, key, value, None, **options | {"is_causal": query.shape[2] > 1})

    monkeypatch.setattr(generation, "MODES", {x: modes.MODES[x] for x in ("dynamic", "static")})
    AttentionInterface.register(NAME, fault)
    try:
        (row,) = examine("llama")
    finally:
        register()
    assert row["static"]["dynamic"] == EQUAL and row["static"]["static"].startswith("wrong")


def test_a_survey_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "folders", lambda: ("bert", "gpt2", "vit"))
    monkeypatch.setattr(generation, "MODES", {"dynamic": modes.MODES["dynamic"]})
    path, seen = tmp_path / "generation.json", []

    def stop(folder):
        seen.append(folder)
        if folder == "vit":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resume(path, stop)
    monkeypatch.setattr(generation, "examine", lambda folder: [] if folder == "vit" else pytest.fail("again"))
    result = resume(path)
    assert [x["model"] for x in result["rows"]["gpt2"]] == ["GPT2LMHeadModel"] and result["rows"]["vit"] == []
    assert "| gpt2 | GPT2LMHeadModel | = |" in markdown(result)


def test_two_threads_share_a_model():
    """Both are inside the same layer at the same moment, then generate side by side."""
    made = model("llama").float()
    convert(made, dynamic=DYNAMIC)
    stir(made)
    texts = torch.randint(5, 60, (2, 1, 9), generator=torch.Generator().manual_seed(3))
    how = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    want = [made.generate(x, attention_mask=torch.ones_like(x), **how) for x in texts]
    both = threading.Barrier(2, timeout=20)

    def meet(*_):
        both.wait()

    hook = made.model.layers[0].self_attn.k_proj.register_forward_pre_hook(meet)
    got = [None, None]

    def answer(i):
        got[i] = made.generate(texts[i], attention_mask=torch.ones_like(texts[i]), **how)

    threads = [threading.Thread(target=answer, args=(i,)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hook.remove()
    assert all(x is not None for x in got)
    assert all(torch.equal(x, y) for x, y in zip(got, want, strict=True))


def test_a_failed_call_leaves_nothing_behind():
    """The next call of a plain model, in the same thread, must not add maps to its cache."""
    made = model("llama")
    convert(made, dynamic=DYNAMIC)
    hook = made.model.layers[1].self_attn.o_proj.register_forward_pre_hook(lambda *_: 1 / 0)
    ids = torch.arange(5, 12)[None]
    with pytest.raises(ZeroDivisionError):
        made(ids)
    hook.remove()
    cache = transformers.DynamicCache()
    model("llama")(ids, past_key_values=cache)
    assert not any(hasattr(layer, "head_maps") for layer in cache.layers)


def test_a_cache_of_ones_own_is_refused_in_words():
    """It does not go through transformers' Cache.update, so maps of past positions are nowhere."""

    class Own(transformers.DynamicCache):
        def update(self, key_states, value_states, layer_idx, *args, **kwargs):
            while len(self.layers) <= layer_idx:
                self.layers.append(self.layer_class_to_replicate())
            return self.layers[layer_idx].update(key_states, value_states)

    made = model("llama")
    convert(made, dynamic=DYNAMIC)
    ids, cache = torch.arange(5, 12)[None], Own()
    made(ids, past_key_values=cache)
    with pytest.raises(UserError, match="maps must be known for the very positions that attend"):
        made(ids[:, :1], past_key_values=cache)


def test_what_the_documents_say():
    result = json.loads((ROOT / "docs/results/generation.json").read_text())
    rows = [row for x in result["rows"].values() for row in x]
    cells = [x for row in rows for maps in ("static", "dynamic") for x in row[maps].values()]
    kinds = {x.partition(":")[0] for x in cells}
    assert kinds <= {EQUAL, START, ABSENT, REFUSED} and len(rows) >= 50
    assert (ROOT / "docs/architectures.md").read_text().endswith(markdown(result))
