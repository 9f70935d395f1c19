"""Checks and reshapes that the layers share."""

from torch import Tensor


def probability(dropout: float) -> float:
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and less than 1; got {dropout}; pass a share")
    return dropout


def check_width(x: Tensor, width: int, name: str) -> None:
    if x.dim() != 3 or x.shape[-1] != width:
        raise ValueError(
            f"{name} must be [batch, positions, {width}]; got shape {list(x.shape)}; "
            "reshape it, or build the layer with its width"
        )


def split_heads(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
