"""The modes of generation: what each gives, and what the same model gives for the same tokens in one forward without
any cache.

A mode is a function of (model, inputs) that returns both, as tensors that must be equal; None in the second place where
there is nothing to compare with.
"""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from .check import stir

NEW, CHUNK, LAST, SHORT, BEAMS = 5, 3, 3, 3, 3
Found = tuple[list[Tensor], list[Tensor] | None]


class Absent(Exception):
    """The plain model does not have this mode."""


def _generate(model: Any, given: dict[str, Any], **how: Any) -> Any:
    torch.manual_seed(7)
    options = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "output_logits": True}
    return model.generate(**given, **options | how, return_dict_in_generate=True)


def _whole(model: Any, given: dict[str, Any], tokens: Tensor, **more: Any) -> Tensor:
    """Logits [batch, NEW, vocabulary] of the last NEW tokens, in one forward."""
    inputs = {name: x for name, x in given.items() if name != "attention_mask"} | more
    if model.config.is_encoder_decoder:
        inputs |= {"decoder_input_ids": tokens[:, :-1]}
        inputs |= {name: x for name, x in given.items() if name == "attention_mask"}
    else:
        inputs |= {"input_ids": tokens[:, :-1]}
    return model(**inputs, use_cache=False).logits[:, -NEW:]


def _mode(**how: Any) -> Callable[[Any, dict[str, Any]], Found]:
    """generate() with these options, next to one forward of all tokens."""

    def run(model: Any, given: dict[str, Any]) -> Found:
        out = _generate(model, given, **how)
        return [out.sequences, torch.stack(out.logits, 1)], [
            out.sequences,
            _whole(model, given, out.sequences),
        ]

    return run


def _sliding(model: Any, given: dict[str, Any]) -> Found:
    """A prompt longer than the window."""
    text = model.config.get_text_config(decoder=True)
    if not any(DynamicCache(config=text).is_sliding):
        raise Absent("no layer has a window")
    return _mode()(model, _longer(given))


def _longer(given: dict[str, Any]) -> dict[str, Any]:
    return given | {"input_ids": torch.cat([given["input_ids"], given["input_ids"].flip(1)], 1)}


def _quantized(model: Any, given: dict[str, Any]) -> Found:
    """Rounds keys and values: no forward without it is the same."""
    out = _generate(model, given, cache_implementation="quantized", cache_config={"backend": "fp8"})
    return [out.sequences, torch.stack(out.logits, 1)], None


def _last_logits(model: Any, given: dict[str, Any]) -> Found:
    if "logits_to_keep" not in inspect.signature(model.forward).parameters:
        raise Absent("forward takes no logits_to_keep")
    inputs = dict(given)
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = given["input_ids"]
    whole = model(**inputs, use_cache=False).logits[:, -LAST:]
    got = [model(**inputs, logits_to_keep=LAST, use_cache=cached).logits for cached in (False, True)]
    return got, [whole, whole]


def _one(given: dict[str, Any]) -> dict[str, Any]:
    """The first of the batch: drafts are made for one text."""
    return {name: x[:1] if isinstance(x, Tensor) else x for name, x in given.items()}


def _assisted(model: Any, given: dict[str, Any]) -> Found:
    """Drafts by another model of the same kind."""
    helper = copy.deepcopy(model)
    stir(helper, seed=5)
    return _mode(assistant_model=helper)(model, _one(given))


def _early_exit(model: Any, given: dict[str, Any]) -> Found:
    """Drafts by the model's own first layer. Where that fails transformers leaves a changed config behind."""
    return _mode(assistant_early_exit=1)(copy.deepcopy(model), _one(given))


def _beams(model: Any, given: dict[str, Any]) -> Found:
    found = []
    for cached in (True, False):
        out = _generate(model, given, num_beams=BEAMS, use_cache=cached, output_scores=True)
        found.append([out.sequences, out.sequences_scores])
    return found[0], found[1]


def _left_padding(model: Any, given: dict[str, Any]) -> Found:
    """A shorter text in the batch, padded on its left, next to that text alone."""
    mask = torch.ones_like(given["input_ids"])
    mask[0, :SHORT] = 0
    out = _generate(model, given | {"attention_mask": mask})
    alone = _one(given) | {"input_ids": given["input_ids"][:1, SHORT:]}
    tokens = torch.cat([alone["input_ids"], out.sequences[:1, -NEW:]], 1)
    if model.config.is_encoder_decoder:
        tokens = out.sequences[:1]
    whole = _whole(model, alone, tokens)
    return [out.sequences, torch.stack(out.logits, 1)[:1]], [out.sequences, whole]


def _packed(model: Any, given: dict[str, Any]) -> Found:
    """Two texts in one row, told apart by positions that begin again, next to each text alone."""
    if model.config.is_encoder_decoder or "position_ids" not in inspect.signature(model.forward).parameters:
        raise Absent("forward takes no position_ids")
    first, second = given["input_ids"][:1], given["input_ids"][1:, SHORT:]
    positions = torch.cat([torch.arange(x.shape[1]) for x in (first, second)])[None]
    row = _one(given) | {"input_ids": torch.cat([first, second], 1)}
    got = model(**row, position_ids=positions, use_cache=False).logits
    alone = [model(**_one(given) | {"input_ids": x}, use_cache=False).logits for x in (first, second)]
    return [got], [torch.cat(alone, 1)]


MODES: dict[str, Callable[[Any, dict[str, Any]], Found]] = {
    "dynamic": _mode(),
    "static": _mode(cache_implementation="static"),
    "sliding": _sliding,
    "quantized": _quantized,
    "offloaded": _mode(cache_implementation="offloaded"),
    "last logits": _last_logits,
    "chunked": _mode(prefill_chunk_size=CHUNK),
    "chunked, static": _mode(prefill_chunk_size=CHUNK, cache_implementation="static"),
    "assisted": _assisted,
    "early exit": _early_exit,
    "beams": _beams,
    "left padding": _left_padding,
    "packed": _packed,
}
