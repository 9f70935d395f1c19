"""A vision model's attention between the patches of a picture, for `view`.

A position is a patch where the sequence is [tokens +] the patches row by row [+ tokens]. That is not read from a model's class:
the patches come from the one convolution that cuts the picture, and noise in three corners must change three places.
"""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..anatomy.layers import layers
from ..errors import UserError
from .modes import eval_mode
from .record import Maps, recording
from .view_data import Picture, Side, View, panel_of
from .words import Alignment

_NEED = "a picture's view needs a sequence of the picture's patches, row by row, in every layer"
_LOOK = "look at its maps themselves: heads.recording"
_WIDEST = 336  # pixels of the picture in a page


@torch.no_grad()
def look(model: Any, processor: Any, picture: Any) -> View:
    """What `view` gives of a picture."""
    pixels, title = _pixels(model, processor, picture)
    with eval_mode(model):
        part, maps = _run(model, pixels)
        stacked = {x.label for x in layers(model) if x.depth is not None}
        length = maps[0].softmax.shape[2]
        square = [x for x in maps if x.softmax.shape[2:] == (length, length)]
        odd = next((x for x in maps if x not in square and x.label in stacked), None)
        if odd is not None or maps[0].softmax.shape[0] != 1:
            found = odd or maps[0]
            sizes = " by ".join(map(str, found.softmax.shape[2:]))
            raise _refusal(
                part, f"{found.label} attends {sizes} in {found.softmax.shape[0]}, not {length} by {length}"
            )
        seen = _grid(part, pixels, length, _small(pixels, processor))
    side = _side(seen, length)
    parts = dict.fromkeys(x.part for x in square)
    panels = [panel_of(part, [x for x in square if x.part == part], side, side) for part in parts]
    talking = any(x.mixed is not x.softmax for x in square)
    return View(panels, title, talking, type(model).__name__, picture=seen)


def _refusal(part: Any, why: str) -> UserError:
    return UserError(_NEED, f"{type(part).__name__}: {why}", _LOOK)


def _pixels(model: Any, processor: Any, picture: Any) -> tuple[Tensor, str]:
    """([1, channels, height, width] as the model takes it, a title)."""
    weight = next(model.parameters())
    if isinstance(picture, Tensor):
        found = picture if picture.dim() == 4 else picture[None]
        title = "a picture"
    else:
        image, title = _opened(picture)
        process = getattr(processor, "image_processor", processor)
        found = process(images=image, return_tensors="pt")["pixel_values"]
    if not isinstance(found, Tensor) or found.dim() != 4 or len(found) != 1:
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise UserError(
            "a picture must be one to the model, [1, channels, height, width]", f"{shape}", "give another"
        )
    return found.to(weight.device, weight.dtype), title


def _opened(picture: Any) -> tuple[Any, str]:
    """(a picture of PIL in RGB, its name)."""
    from ..results.extras import require

    require("PIL")
    from PIL import Image, ImageOps

    if not isinstance(picture, str | Path):
        return picture, "a picture"
    try:
        with Image.open(picture) as file:
            return ImageOps.exif_transpose(file).convert("RGB"), Path(picture).name
    except Exception as problem:  # whatever a decoder raises of bytes that are no picture
        raise UserError(
            "a picture must be a file that Pillow reads (PNG, JPEG, WebP ...)",
            f"{type(problem).__name__}: {problem}",
            "give another file",
        ) from None


def _run(model: Any, pixels: Tensor) -> tuple[Any, list[Maps]]:
    """(what of a model reads a picture alone: the model, else the first part that does, as CLIP's vision model; its maps)."""
    readers = [x for x in model.modules() if "pixel_values" in inspect.signature(x.forward).parameters]
    problem = "nothing in it takes pixel_values"
    with recording(model) as tape:
        for part in readers:
            try:
                part(pixel_values=pixels)
            except UserError:
                raise
            except Exception as wrong:  # whatever a model raises that wants other inputs, too
                problem = f"{type(part).__name__}: {type(wrong).__name__}: {str(wrong)[:150]}"
                tape.take()
                continue
            if maps := tape.take():
                return part, maps
    raise UserError(
        "a picture needs a model with attention layers that read it alone",
        f"{type(model).__name__}, {problem}",
        "give a text, or another model",
    )


class _Reached(Exception):
    """The first attention layer, with what it attends from: states [batch, positions, width]."""

    def __init__(self, states: Any) -> None:
        super().__init__()
        self.states = states


def _states(part: nn.Module, pixels: Tensor, sizes: list[tuple[nn.Conv2d, torch.Size]]) -> Any:
    """What the first attention layer gets of a picture; `sizes` takes the convolutions that cut it, and their outputs'."""

    def stop(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        values = [*args, *kwargs.values()]
        raise _Reached(next((x for x in values if isinstance(x, Tensor)), None))

    def note(module: Any, args: Any, output: Tensor) -> None:
        if module.in_channels == pixels.shape[1] and module.kernel_size == module.stride:
            sizes.append((module, output.shape))

    hooks = [x.module.register_forward_pre_hook(stop, with_kwargs=True) for x in layers(part)]
    hooks += [x.register_forward_hook(note) for x in part.modules() if isinstance(x, nn.Conv2d)]
    try:
        part(pixel_values=pixels)
    except _Reached as reached:
        return reached.states
    finally:
        for hook in hooks:
            hook.remove()
    return None


def _grid(part: Any, pixels: Tensor, length: int, small: np.ndarray) -> Picture:
    """Where the patches stand in the sequence, by what changes as the picture does in three corners."""
    cut: list[tuple[nn.Conv2d, torch.Size]] = []
    before = _states(part, pixels, cut)
    if not cut:
        raise _refusal(part, "no convolution cuts the picture into patches")
    (high, wide), (rows, columns) = cut[0][0].kernel_size, cut[0][1][-2:]
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(pixels.shape[1], high, wide, generator=draw).to(pixels)
    places = []
    for row, column in ((0, 0), (0, columns - 1), (rows - 1, 0)):
        other = pixels.clone()
        other[0, :, high * row : high * (row + 1), wide * column : wide * (column + 1)] += noise
        places.append(_changed(before, _states(part, other, [])))
    first = places[0][0] if len(places[0]) == 1 else -1
    wanted = [[first], [first + columns - 1], [first + (rows - 1) * columns]]
    if first < 0 or places != wanted or first + rows * columns > length:
        raise _refusal(part, f"its {length} positions are not {rows} x {columns} patches and tokens")
    share = min(1, high * rows / pixels.shape[2]), min(1, wide * columns / pixels.shape[3])
    kept = [max(1, round(part * size)) for part, size in zip(share, small.shape[:2], strict=True)]
    return Picture(rows, columns, first, small[: kept[0], : kept[1]])


def _changed(before: Any, after: Any) -> list[int]:
    """The positions of [1, positions, width] that differ."""
    if not isinstance(before, Tensor) or before.dim() != 3 or before.shape != after.shape or len(before) != 1:
        return []
    size = (after - before)[0].abs().amax(-1)
    return torch.nonzero(size > 1e-3 * size.max())[:, 0].tolist()


def _small(pixels: Tensor, processor: Any) -> np.ndarray:
    """The picture as the model sees it, cut and scaled, in the colours it had before it was normalised."""
    shown = pixels[0, :3].float().cpu()
    shown = shown.expand(3, -1, -1) if len(shown) == 1 else shown
    process = getattr(processor, "image_processor", processor)
    mean, std = (getattr(process, name, None) for name in ("image_mean", "image_std"))
    if getattr(process, "do_normalize", False) and mean is not None and std is not None and len(shown) == 3:
        shown = shown * torch.tensor(std).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1)
    else:
        shown = (shown - shown.min()) / (shown.max() - shown.min()).clamp(min=1e-6)
    scale = min(1, _WIDEST / max(shown.shape[1:]))
    size = [max(1, round(scale * x)) for x in shown.shape[1:]]
    shown = nn.functional.interpolate(shown[None], size, mode="bilinear", antialias=True)[0]
    return (255 * shown.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()


def _side(seen: Picture, length: int) -> Side:
    """The positions' names: patches by row and column, counted from 0; other tokens by their place, a first one `[class]`."""
    names = [f"[token {place}]" for place in range(length)]
    if seen.first:
        names[0] = "[class]"
    names[seen.patches] = [f"r{row} c{column}" for row in range(seen.rows) for column in range(seen.columns)]
    tags = "".join("a" if name[0] == "r" else "s" for name in names)
    return Side(Alignment(list(range(length)), list(range(length)), length), names, tags)
