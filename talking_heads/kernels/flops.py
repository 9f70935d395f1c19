"""How many floating-point operations a call takes, for torch's FLOP counter."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from torch import Tensor

from .problem import Problem

_COUNTER = "torch.utils.flop_counter"
_waiting: list[Callable[[], None]] = []


def when_counted(register: Callable[[], None]) -> None:
    """Call `register` as soon as torch's counter is imported. It imports Triton, which takes four times as long as this
    package, so that a call that counts nothing does not import it."""
    if _COUNTER in sys.modules:
        register()
        return
    if not _waiting:
        sys.meta_path.insert(0, _Finder())
    _waiting.append(register)


class _Finder(MetaPathFinder):
    """Finds the counter as usual, and runs what waits after its import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _COUNTER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            while _waiting:
                _waiting.pop()()

        loader.exec_module = exec_module
        return spec


def _products(p: Problem) -> tuple[int, int]:
    """Multiply-adds of the products with keys and values, and of the mixing across heads."""
    b, _, n, m = p.sizes
    i, k = p.key.shape[1], p.key.shape[3]
    j, v = p.value.shape[1], p.value.shape[3]
    maps = (p.logits_mix, p.query_logits_mix, p.memory_logits_mix, p.weights_mix, p.query_weights_mix)
    mixing = sum(_numbers(mix) for mix in (*maps, p.memory_weights_mix) if mix is not None)
    return b * n * m * (i * k + j * v), b * n * m * mixing


def _numbers(mix: Tensor) -> int:
    """Of the map that one pair of positions is mixed with."""
    return mix.numel() if mix.dim() < 4 else mix.shape[2:].numel()


def forward_flops(problem: Problem) -> int:
    products, mixing = _products(problem)
    return 2 * (products + mixing)


def backward_flops(problem: Problem) -> int:
    """As computed: scores and both mixes again, then two products for each one of the forward."""
    products, mixing = _products(problem)
    b, _, n, m = problem.sizes
    again = b * n * m * problem.key.shape[1] * problem.key.shape[3] + mixing
    return 2 * (again + 2 * products + 2 * mixing)
