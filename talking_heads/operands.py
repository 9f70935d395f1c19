"""What may be an argument: ordinary tensors, numbers and flags; and batches of any number of axes.

Tensors of other kinds either hold no numbers where a kernel reads them or mean something that attention would
ignore, so that they are refused by name.
"""

from numbers import Real
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from .errors import UserError

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

ALL = 1 - 2**-30  # a share that drops every weight, with 1 / (1 - share) finite

_PLAIN = (Tensor, nn.Parameter)
_ADVICE = {
    "DTensor": "attend on each device's own part: .to_local(), or .full_tensor() for all of it",
    "NestedTensor": "pad it (torch.nested.to_padded_tensor) and pass attn_mask for the padding",
    "CausalBias": "pass it as attn_mask",
}


def fail(must: str, came: object, todo: str) -> NoReturn:
    if isinstance(came, Tensor):
        came = f"shape {list(came.shape)}"
    raise UserError(must, came, todo)


def operand(name: str, x: Any, todo: str = "pass a tensor") -> Any:
    """x, if it is an ordinary dense tensor or stands for one (inside torch.compile and torch.export)."""
    kind = type(x)
    if kind not in _PLAIN and not kind.__module__.startswith("torch._subclasses."):
        if not isinstance(x, Tensor):
            fail(f"{name} must be a tensor", kind.__name__, todo)
        fail(
            f"{name} must be an ordinary tensor, not a subclass",
            f"a {kind.__name__}",
            _ADVICE.get(
                kind.__name__, "convert it, with .as_subclass(torch.Tensor) if it holds its own numbers"
            ),
        )
    if x.is_nested:
        fail(f"{name} must be a dense tensor", "a nested tensor", _ADVICE["NestedTensor"])
    if x.layout is not torch.strided:
        layout = str(x.layout).removeprefix("torch.")
        fail(f"{name} must be a dense tensor", f"layout {layout}", "convert it with .to_dense()")
    # a lazily negated view is read as it lies in memory; a compiler resolves it
    return x.resolve_neg() if not torch.compiler.is_compiling() and x.is_neg() else x


def on_device(name: str, x: Any, device: torch.device) -> Any:
    x = operand(name, x, "pass a tensor or None")
    if x.device != device:
        fail(f"{name} must be on query's device {device}", x.device, "move it with .to(query.device)")
    return x


def flag(name: str, x: Any) -> bool:
    if isinstance(x, (bool, int)):  # no union: torch 2.9 does not trace it
        return bool(x)
    todo = "pass a mask as attn_mask" if isinstance(x, Tensor) else "pass True or False"
    came = f"a tensor of shape {list(x.shape)}" if isinstance(x, Tensor) else repr(x)
    fail(f"{name} must be True or False", came, todo)


def number(name: str, x: Any) -> Any:
    """x, if it is one number that Python knows (a compiler's symbol stands for one)."""
    if isinstance(x, (Real, torch.SymFloat, torch.SymInt)):  # no union: torch 2.9 does not trace it
        return x
    came = f"a {type(x).__name__} of shape {list(x.shape)}" if isinstance(x, Tensor) else repr(x)
    fail(f"{name} must be a number", came, "pass a float: it is fixed and has no gradient")


def probability(x: Any, name: str = "dropout_p") -> float:
    """A share to drop; None is 0."""
    x = 0.0 if x is None else number(name, x)
    if not 0 <= x <= 1:
        fail(f"{name} must be between 0 and 1", x, "pass the share of weights to drop")
    return min(float(x), ALL)


def scaled(query: Tensor, scale: Any) -> tuple[Tensor, float]:
    """(query, scale as a number): a tensor scale, which may be learned, multiplies the query instead."""
    if scale is None:
        return query, query.shape[-1] ** -0.5
    if not isinstance(scale, Tensor):
        return query, float(number("scale", scale))
    scale = on_device("scale", scale, scale.device)
    if scale.numel() != 1 or scale.is_complex():
        todo = "multiply query by it, shaped to broadcast to [batch, heads, 1, 1], and pass scale=1.0"
        fail("scale must be one number", scale, todo)
    return query * scale.reshape(()).to(query.device, query.dtype), 1.0


def is_causal_bias(x: Any) -> bool:
    """Whether x is a CausalBias, whose module is not imported here: it would bring all of torch.compile with it."""
    return type(x).__name__ == "CausalBias" and type(x).__module__ == "torch.nn.attention.bias"


def causal_bias(mask: Any, query_len: int, memory_len: int, device: torch.device) -> tuple[Any, bool]:
    """(mask, is_causal) for a mask of torch.nn.attention.bias, which holds no numbers; another mask as it is."""
    if not is_causal_bias(mask):
        return mask, False
    if (mask.seq_len_q, mask.seq_len_kv) != (query_len, memory_len):
        fail(
            f"attn_mask must be for {query_len} queries and {memory_len} memory positions",
            f"a CausalBias for {mask.seq_len_q} and {mask.seq_len_kv}",
            "make it with the lengths of query and key",
        )
    if mask.variant.name == "UPPER_LEFT" or query_len == memory_len:
        return None, True
    return mask._materialize(device), False


def fold_batch(given: dict[str, Any], mask: Any) -> tuple[dict[str, Any], Any]:
    """Tensors with any number of batch axes ([..., heads, positions, size], none included) as with one.

    Args:
        given: query, key, value and dynamic maps by name, None where not given. mask: attn_mask.
    """
    batch = given["query"].shape[:-3]
    for name, x in given.items():
        if x is None:
            continue
        if x.dim() < 3 or x.shape[:-3] != batch:
            fail(
                f"{name} must have query's batch axes {list(batch)} before its last three",
                x,
                "repeat it with .expand, or drop the other axes",
            )
    folded = {name: x if x is None else _one_axis(x) for name, x in given.items()}
    if mask is None or mask.dim() <= 3:
        return folded, mask
    leading = mask.shape[:-3]
    if len(leading) > len(batch) or any(
        have not in (want, 1) for have, want in zip(leading[::-1], batch[::-1], strict=False)
    ):
        fail(
            f"attn_mask must broadcast to {[*batch, 'softmax heads', 'query_len', 'memory_len']}",
            mask,
            "add axes of size 1 in front, or drop those that query does not have",
        )
    if any(size != 1 for size in leading):
        mask = mask.expand(*batch, *mask.shape[-3:])
    return folded, mask.reshape(-1, *mask.shape[-3:])


def _one_axis(x: Tensor) -> Tensor:
    return x[None] if x.dim() == 3 else x.flatten(0, -4)


def unfold_batch(x: Tensor, batch: torch.Size) -> Tensor:
    return x if len(batch) == 1 else x.reshape(*batch, *x.shape[1:])
