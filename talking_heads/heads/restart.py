"""Many runs of a model that differ from one block on: the blocks before it give what they gave the first time.

A change in a block cannot reach blocks that ran before it, so their outputs are kept and not computed again. Equal to the
last bit: what is kept is what was computed, and each restart is compared with the first run before it is used.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..anatomy.layers import layers

Judge = Callable[[nn.Module], float]


class Unknown(Exception):
    """A model or a judge that cannot be restarted in the middle; str() says why."""


class Restarts:
    """Scores of a model from a block on.

    `score` is that of the whole first run. `at(layer)` goes to the block that holds an attention layer: in its block,
    `run()` is `judge(model)` without the blocks before. Layers have to be asked for in the order of `layers`.

    Blocks are the members of the lists of modules (nn.ModuleList) that hold attention layers.

    Raises:
        Unknown: an attention layer outside such lists, blocks that do not run once in each call and in one order, a cache
            of earlier calls, blocks of a list that give different things, a wrapped model.
    """

    def __init__(self, model: nn.Module, judge: Judge) -> None:
        if isinstance(model, nn.DataParallel) or hasattr(model, "_orig_mod"):
            raise Unknown("a model inside a wrapper")
        self.model, self.judge = model, judge
        self.block_of = {layer.label: _block(model, layer.name) for layer in layers(model)}
        stacks = dict.fromkeys(name.rpartition(".")[0] for name in self.block_of.values())
        names = [f"{stack}.{i}" for stack in stacks for i, _ in enumerate(_list(model, stack))]
        self.blocks = {name: model.get_submodule(name) for name in names}
        self._kept: dict[
            str, list[Any]
        ] = {}  # of each list of blocks the last output before `_start`, call by call
        self._start = 0
        self.score, self.order, self._digests = self._first()
        self.layers = sorted(self.block_of, key=lambda label: self.order.index(self.block_of[label]))
        self.computed = len(self.order)  # blocks run so far, in units of one judgement

    def at(self, layer: str) -> None:
        """Goes on to the block of an attention layer, "encoder.2"."""
        target = self.order.index(self.block_of[layer])
        while self._start < target:
            self._step()

    def run(self) -> float:
        """The model's score, computed from the block on."""
        self.computed += len(self.order) - self._start
        with self._skipping():
            return self.judge(self.model)

    def _step(self) -> None:
        """One block further: its output is kept, and must lead to the first run's outputs."""
        name, kept = self.order[self._start], list[Any]()
        hook = self.blocks[name].register_forward_hook(
            lambda module, args, output: kept.append(_copy(output))
        )
        digests: list[bytes] = []
        try:
            with _digesting(self.model, digests):
                score = self.run()
        finally:
            hook.remove()
        if score != self.score or digests != self._digests:
            raise Unknown("outputs that change when blocks are left out")
        self._kept[name.rpartition(".")[0]] = kept
        self._start += 1

    def _first(self) -> tuple[float, list[str], list[bytes]]:
        """(the score, names of the blocks in their order, a digest of each call's outputs)."""
        calls: list[list[str]] = []
        forms: dict[str, set[Any]] = {}
        digests: list[bytes] = []

        def begin(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            if kwargs.get("past_key_values") is not None:
                raise Unknown("a cache of earlier calls")
            calls.append([])

        def note(name: str) -> Callable[..., None]:
            def after(module: nn.Module, args: Any, output: Any) -> None:
                if not calls:
                    raise Unknown("blocks that run outside the model's forward")
                calls[-1].append(name)
                forms.setdefault(name.rpartition(".")[0], set()).add((len(calls), _form(output)))

            return after

        with ExitStack() as stack:
            stack.callback(self.model.register_forward_pre_hook(begin, with_kwargs=True).remove)
            for name, block in self.blocks.items():
                stack.callback(block.register_forward_hook(note(name)).remove)
            stack.enter_context(_digesting(self.model, digests))
            score = self.judge(self.model)
        if not calls or any(sorted(x) != sorted(self.blocks) or x != calls[0] for x in calls):
            raise Unknown("blocks that do not run once in each call")
        if any(len(found) != len(calls) for found in forms.values()):
            raise Unknown("blocks of a list that give different things")
        return score, calls[0], digests

    @contextmanager
    def _skipping(self) -> Iterator[None]:
        """The blocks before the start give what is kept."""
        call = -1

        def begin(module: nn.Module, args: Any) -> None:
            nonlocal call
            call += 1

        def give(kept: list[Any]) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                if call >= len(kept):
                    raise Unknown("more calls of the model than in the first run")
                return _copy(kept[call])

            return forward

        hook = self.model.register_forward_pre_hook(begin)
        skipped: list[Any] = [self.blocks[name] for name in self.order[: self._start]]
        for name, block in zip(self.order, skipped, strict=False):
            block.forward = give(self._kept[name.rpartition(".")[0]])
        try:
            yield
        finally:
            hook.remove()
            for block in skipped:
                del block.forward


def _block(model: nn.Module, name: str) -> str:
    """The member of the outermost list of modules around a module."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        if isinstance(model.get_submodule(".".join(parts[:end])), nn.ModuleList):
            return ".".join(parts[: end + 1])
    raise Unknown(f"{name}, which is in no list of modules")


def _list(model: nn.Module, name: str) -> nn.ModuleList:
    found = model.get_submodule(name)
    if not isinstance(found, nn.ModuleList) or any("forward" in vars(block) for block in found):
        raise Unknown("blocks whose forward is replaced")
    return found


def _copy(output: Any) -> Any:
    """The output's tensors by themselves, so that what is done to them in place changes nothing kept. They ask for
    gradients where the output did: attention chooses its path by that."""
    if isinstance(output, Tensor):
        return output.detach().clone().requires_grad_(output.requires_grad)
    if type(output) in (tuple, list):
        return type(output)(_copy(x) for x in output)
    if output is None:
        return None
    raise Unknown(f"blocks that give a {type(output).__name__}")


def _form(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.shape, output.dtype
    if type(output) in (tuple, list):
        return tuple(_form(x) for x in output)
    return type(output)


@contextmanager
def _digesting(model: nn.Module, digests: list[bytes]) -> Iterator[None]:
    """Adds a digest of all float outputs of each call."""

    def after(module: nn.Module, args: Any, output: Any) -> None:
        digest = hashlib.blake2b(digest_size=16)
        for x in floats(output):
            exact = torch.float64 if x.dtype == torch.float64 else torch.float32
            digest.update(x.detach().to("cpu", exact).contiguous().numpy().tobytes())
        digests.append(digest.digest())

    hook = model.register_forward_hook(after)
    try:
        yield
    finally:
        hook.remove()


def floats(value: Any) -> Iterator[Tensor]:
    """The float tensors of a model's output, however deep."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        for x in value.values():
            yield from floats(x)
    elif isinstance(value, list | tuple):
        for x in value:
            yield from floats(x)
