"""A small call with known results, run once when a library is loaded. It takes well under a millisecond.

It detects errors that no version number shows: exchanged fields of the structure, or a miscompiled library.
tests/kernels/cpu/test_library.py compares EXPECTED with the reference.
"""

from collections.abc import Iterable
from ctypes import CDLL, Array, addressof, byref, c_double, c_float
from typing import Any

from . import call

B, I, H, J, N, M, K, V = 1, 2, 3, 2, 3, 5, 3, 2  # noqa: E741
SCALE = 0.5
SHAPES = {
    "query": (B, I, N, K),
    "key": (B, I, M, K),
    "value": (B, J, M, V),
    "logits_mix": (I, H),
    "weights_mix": (H, J),
    "mask": (B, H, N, M),
    "grad_output": (B, J, N, V),
}
# Checksums of the output and of the gradient of each input.
EXPECTED = {
    "output": 1.1648113647539942,
    "query": -0.031069521677479894,
    "key": 0.009671085035065231,
    "value": 1.2610099478662824,
    "logits_mix": 0.003733339542887834,
    "weights_mix": -0.5668913754601301,
    "mask": 0.11203601312494364,
}


def numbers(name: str) -> list[float]:
    """Deterministic inputs in [-0.75, 0.75], exact in every dtype."""
    start, count = 3 * list(SHAPES).index(name), _count(SHAPES[name])
    return [((start + 5 * t) % 13 - 6) / 8 for t in range(count)]


def checksum(values: Iterable[float]) -> float:
    """A weighted sum, so that exchanged elements change it."""
    return sum((t % 7 + 1) * x for t, x in enumerate(values))


def passes(library: CDLL) -> bool:
    return all(
        abs(found[name] - wanted) <= tolerance
        for kind, number, tolerance in (("float", c_float, 1e-5), ("double", c_double, 1e-11))
        for found in (_results(library, kind, number),)
        for name, wanted in EXPECTED.items()
    )


def _results(library: CDLL, kind: str, number: type[Any]) -> dict[str, float]:
    inputs = {name: (number * _count(shape))(*numbers(name)) for name, shape in SHAPES.items()}
    output = (number * (B * J * N * V))()
    gradients = {name: type(x)() for name, x in inputs.items() if name != "grad_output"}
    normalizer = (number * (2 * B * H * N))()
    made = call.Call(call.SIZE, call.VERSION, B, I, H, J, N, M, K, V)
    places = {**inputs, "output": output, **{f"grad_{name}": x for name, x in gradients.items()}}
    shapes = {
        "output": SHAPES["grad_output"],
        **{f"grad_{name}": shape for name, shape in SHAPES.items()},
        **SHAPES,
    }
    for name, x in places.items():
        setattr(made, name, _tensor(x, shapes[name], call.NUMBERS if name == "mask" else 1))
    made.normalizer = addressof(normalizer)
    made.scale, made.parts, made.threads, made.is_causal = SCALE, 1, 1, 1
    statuses = [getattr(library, f"{direction}_{kind}")(byref(made)) for direction in ("forward", "backward")]
    if any(statuses):
        return dict.fromkeys(EXPECTED, float("nan"))
    return {"output": checksum(output)} | {name: checksum(x) for name, x in gradients.items()}


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _tensor(x: Array[Any], shape: tuple[int, ...], form: int) -> call.Tensor:
    steps = [_count(shape[axis + 1 :]) for axis in range(len(shape))] if len(shape) == 4 else [0] * 4
    return call.Tensor(addressof(x), *steps, form)
