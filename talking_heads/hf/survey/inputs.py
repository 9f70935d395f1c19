"""Random inputs that a toy model takes, from the signature of its forward."""

import inspect
from typing import Any

import torch
from torch import Tensor

BATCH, LENGTH = 2, 10


def inputs(model: Any, seed: int = 1) -> dict[str, Any]:
    """Everything that the model's forward needs: its main input, masks, the decoder's input."""
    draw = torch.Generator().manual_seed(seed)
    asked = inspect.signature(model.forward).parameters
    main = model.main_input_name if model.main_input_name in asked else next(iter(asked))
    makers = {"input_ids": _ids, "decoder_input_ids": _ids, "attention_mask": _mask}
    found: dict[str, Any] = {}
    for name in asked:
        if name == main or name in ("input_ids", "decoder_input_ids"):
            found[name] = makers.get(name, _MAKERS.get(name, _states))(model, draw)
    if "use_cache" in asked:
        found["use_cache"] = False
    if "input_ids" in found and "attention_mask" in asked:
        found["attention_mask"] = _mask(model, draw)
    return found


def _ids(model: Any, draw: torch.Generator) -> Tensor:
    return torch.randint(5, 60, (BATCH, LENGTH), generator=draw)


def _mask(model: Any, draw: torch.Generator) -> Tensor:
    return (torch.arange(LENGTH) < torch.tensor([[LENGTH], [LENGTH - 3]])).long()


def _pixels(model: Any, draw: torch.Generator) -> Tensor:
    size = _sought(model.config, "image_size", 32)
    high, wide = size if isinstance(size, list | tuple) else (size, size)
    channels = _sought(model.config, "num_channels", 3)
    return torch.randn(BATCH, channels, high, wide, generator=draw, dtype=torch.float64)


def _features(model: Any, draw: torch.Generator) -> Tensor:
    bins = _sought(model.config, "num_mel_bins", 80)
    return torch.randn(BATCH, bins, 64, generator=draw, dtype=torch.float64)


def _wave(model: Any, draw: torch.Generator) -> Tensor:
    return torch.randn(BATCH, 4000, generator=draw, dtype=torch.float64)


def _states(model: Any, draw: torch.Generator) -> Tensor:
    width = _sought(model.config, "hidden_size", 64)
    return torch.randn(BATCH, LENGTH, width, generator=draw, dtype=torch.float64)


_MAKERS = {"pixel_values": _pixels, "input_features": _features, "input_values": _wave}


def _sought(config: Any, name: str, otherwise: Any) -> Any:
    """A field of the config or of the first of its parts that has it."""
    value = getattr(config, name, None)
    if value is not None:
        return value
    for part in config.sub_configs or ():
        inner = getattr(config, part, None)
        if inner is not None and (value := _sought(inner, name, None)) is not None:
            return value
    return otherwise
