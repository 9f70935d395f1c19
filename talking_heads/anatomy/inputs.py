"""Random inputs that a model takes, from the signature of its forward."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

BATCH, LENGTH = 2, 10
_GRID = ((1, 4, 4), (1, 4, 8))  # frames, rows and columns of patches: two pictures in one row


def inputs(model: Any, variant: dict[str, Any]) -> dict[str, Any]:
    """Random values of its main input, what it cannot do without, ids and masks.

    variant: what it says under "inputs" goes first; a value stands for itself, a function is called with the model.
    """
    draw = torch.Generator().manual_seed(1)
    asked = inspect.signature(model.forward).parameters
    if variant.get("only") and variant["only"] != model.main_input_name:
        raise ValueError(f"no {variant['only']}")
    own = {name: x(model) if callable(x) else x for name, x in variant.get("inputs", {}).items()}
    main = model.main_input_name if model.main_input_name in asked else next(iter(asked))
    needed = [n for n, p in asked.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    wanted = [main, *needed, *(n for n in ("input_ids", "decoder_input_ids") if n in asked)]
    if getattr(model.config, "add_cross_attention", False) and "encoder_hidden_states" in asked:
        wanted.append("encoder_hidden_states")
    found = {
        name: _MAKERS.get(name, _states)(model, draw) for name in dict.fromkeys(wanted) if name not in own
    }
    if "grid_thw" in found and "hidden_states" in found:
        found["hidden_states"] = _patches(model, draw)
    if "input_ids" in found and "attention_mask" in asked and "attention_mask" not in own:
        found["attention_mask"] = _mask(model, draw)
    if "use_cache" in asked:
        found["use_cache"] = False
    return {name: x for name, x in (found | own).items() if x is not None}


def _ids(model: Any, draw: torch.Generator) -> Tensor:
    return torch.randint(5, min(60, sought(model.config, "vocab_size", 60)), (BATCH, LENGTH), generator=draw)


def _mask(model: Any, draw: torch.Generator) -> Tensor:
    return (torch.arange(LENGTH) < torch.tensor([[LENGTH], [LENGTH - 3]])).long()


def random(*shape: int, draw: torch.Generator | None = None) -> Tensor:
    draw = draw or torch.Generator().manual_seed(3)
    return torch.randn(*shape, generator=draw, dtype=torch.float64)


def _picture(model: Any) -> tuple[int, int, int]:
    size = sought(model.config, "image_size", 32)
    high, wide = size if isinstance(size, list | tuple) else (size, size)
    return sought(model.config, "num_channels", 3), high, wide


def _pixels(model: Any, draw: torch.Generator) -> Tensor:
    return random(BATCH, *_picture(model), draw=draw)


def _video(model: Any, draw: torch.Generator) -> Tensor:
    return random(BATCH, sought(model.config, "num_frames", 2), *_picture(model), draw=draw)


def _features(model: Any, draw: torch.Generator) -> Tensor:
    """Twice the positions of the encoder, as in Whisper."""
    frames = 2 * sought(model.config, "max_source_positions", 32)
    return random(BATCH, sought(model.config, "num_mel_bins", 80), frames, draw=draw)


def _wave(model: Any, draw: torch.Generator) -> Tensor:
    return random(BATCH, 4000, draw=draw)


def _series(model: Any, draw: torch.Generator) -> Tensor:
    length = sought(model.config, "context_length", 32)
    return random(BATCH, length, sought(model.config, "num_input_channels", 1), draw=draw)


def _states(model: Any, draw: torch.Generator) -> Tensor:
    return random(BATCH, LENGTH, sought(model.config, "hidden_size", 64), draw=draw)


def _grid(model: Any, draw: torch.Generator) -> Tensor:
    return torch.tensor(_GRID)


def _patches(model: Any, draw: torch.Generator) -> Tensor:
    """Flattened patches of the grid's pictures."""
    size = sought(model.config, "patch_size", 8)
    frames = sought(model.config, "temporal_patch_size", 1)
    channels = next(
        (x for n in ("in_channels", "in_chans", "num_channels") if (x := sought(model.config, n, None))), 3
    )
    count = sum(t * h * w for t, h, w in _GRID)
    return random(count, channels * frames * size * size, draw=draw)


_MAKERS: dict[str, Callable[[Any, torch.Generator], Any]] = {
    "input_ids": _ids,
    "decoder_input_ids": _ids,
    "qformer_input_ids": _ids,
    "attention_mask": _mask,
    "pixel_values": _pixels,
    "pixel_values_videos": _video,
    "input_features": _features,
    "input_values": _wave,
    "past_values": _series,
    "grid_thw": _grid,
}


def sought(config: Any, name: str, otherwise: Any) -> Any:
    """A field of the config or of the first of its parts that has it."""
    value = getattr(config, name, None)
    if value is not None:
        return value
    for part in config.sub_configs or ():
        inner = getattr(config, part, None)
        if inner is not None and (value := sought(inner, name, None)) is not None:
            return value
    return otherwise
