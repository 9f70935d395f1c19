"""Reaching into attention layers: their weights, and gates on their heads.

A registry layer gives its weights at the function that transformers' registry hands it, other layers by torch's
hooks. A gate multiplies a head's columns of the output projection's input, which is what stands between the heads
and that projection; a registry layer proves it at its first call, others by their row in the table of projections.
"""

import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..errors import UserError
from ..nn.mixing import CHILD
from .layers import Layer, mixing_of
from .projections import Output, Projections, is_headwise
from .registry import Remove, wrap


def recompile() -> None:
    """Discards what torch.compile has compiled: compiled code would go on without hooks that are added or removed."""
    dynamo = sys.modules.get("torch._dynamo")
    if dynamo is not None and dynamo.utils.counters["frames"]:
        dynamo.reset()


Sink = Callable[[Layer, Tensor, Tensor | None], None]  # layer, softmax weights, mixed ones if any are


def capture(layer: Layer, sink: Sink) -> Remove:
    """Hands the sink every softmax map [batch, heads, query_len, memory_len] that the layer computes."""
    return _CAPTURES[layer.kind](layer, sink)


def _capture_registry(layer: Layer, sink: Sink) -> Remove:
    mixed, forget = _mixed_weights(layer)

    def wrapper(function: Callable[..., Any], module: nn.Module, *args: Any, **options: Any) -> Any:
        asked = {**options, "output_attentions": True} if hasattr(module, CHILD) else options
        output, weights = function(module, *args, **asked)[:2]
        if weights is None:
            raise _no_weights(layer)
        sink(layer, weights, mixed.pop()[..., -weights.shape[-1] :] if mixed else None)  # sinks are in front
        return output, weights

    return _both(wrap(layer.module, wrapper), forget)


def _mixed_weights(layer: Layer) -> tuple[list[Tensor], Remove]:
    """Where a converted layer's maps, static and dynamic, leave the mixed weights of a call that is asked for them."""
    mixing, kept = mixing_of(layer.module), list[Tensor]()
    if mixing is None or all(getattr(mixing, name, None) is None for name in _WEIGHT_MAPS):
        return kept, lambda: None

    def after(_module: nn.Module, _args: Any, result: Any) -> None:
        if isinstance(result, tuple):
            kept.append(result[2])

    return kept, mixing.register_forward_hook(after).remove


def _both(first: Remove, second: Remove) -> Remove:
    def remove() -> None:
        first()
        second()

    return remove


def _capture_alone(layer: Layer, sink: Sink) -> Remove:
    """Asks the module for its weights, and finds them in what it returns; its callers ignore what is added."""
    signature = inspect.signature(layer.module.forward)

    def before(bound: Any) -> None:
        if "output_attentions" in signature.parameters:
            bound.arguments["output_attentions"] = True

    def after(_: None, output: Any) -> Any:
        found = (
            [x for x in output[1:] if isinstance(x, Tensor) and x.dim() == 4]
            if isinstance(output, tuple)
            else []
        )
        places = output[0].shape[:2]
        maps = next((x for x in found if x.shape[1] == layer.heads and x.shape[2] in places), None)
        if maps is None:
            raise _no_weights(layer)
        sink(layer, maps, None)
        return output

    return _hooks(layer.module, signature, before, after)


def _capture_torch(layer: Layer, sink: Sink) -> Remove:
    mixed, forget = _mixed_weights(layer)

    def before(bound: Any) -> tuple[bool, bool]:
        asked = bound.arguments.get("need_weights", True), bound.arguments.get("average_attn_weights", True)
        bound.arguments |= {"need_weights": True, "average_attn_weights": False}
        return asked

    def after(asked: tuple[bool, bool], output: Any) -> Any:
        result, weights = output
        sink(layer, weights if weights.dim() == 4 else weights[None], mixed.pop() if mixed else None)
        if not asked[0]:
            return result, None
        return result, weights.mean(-3) if asked[1] else weights

    return _both(_hooks(layer.module, inspect.signature(layer.module.forward), before, after), forget)


def _capture_own(layer: Layer, sink: Sink) -> Remove:
    def before(bound: Any) -> bool:
        asked = bool(bound.arguments.get("return_weights", False))
        bound.arguments["return_weights"] = True
        return asked

    def after(asked: bool, output: Any) -> Any:
        sink(layer, output[1], output[2])
        return output if asked else output[0]

    return _hooks(layer.module, inspect.signature(layer.module.forward), before, after)


def _hooks(module: nn.Module, signature: inspect.Signature, before: Any, after: Any) -> Remove:
    """`before` changes a call's bound arguments; `after` gets what it returned, and the call's output."""
    kept: list[Any] = []

    def pre(module: nn.Module, args: Any, kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        kept.append(before(bound))
        return bound.args, bound.kwargs

    def post(module: nn.Module, args: Any, output: Any) -> Any:
        return after(kept.pop(), output)

    first = module.register_forward_pre_hook(pre, with_kwargs=True)
    second = module.register_forward_hook(post)

    def remove() -> None:
        first.remove()
        second.remove()

    return remove


def _no_weights(layer: Layer) -> UserError:
    return UserError(
        "every attention layer must be able to give its weights",
        f"none from {layer.name} ({type(layer.module).__name__})",
        "use another model, or another part of this one",
    )


_CAPTURES = {
    "registry": _capture_registry,
    "alone": _capture_alone,
    "torch": _capture_torch,
    "own": _capture_own,
}


def gate_output(layer: Layer, known: Projections, gate: Callable[[], Tensor]) -> Remove:
    """Multiplies each head's output by gate() [heads], or [batch, heads], before the output projection.

    Raises:
        UserError: an output projection that is not known. At the first call: one whose columns are not the heads'.
    """
    if layer.kind == "torch":
        _once_for_all(gate(), layer)
        return _parametrize(layer.module.out_proj, "weight", lambda w: w * _wide(gate(), w, w.shape[1]))  # type: ignore[arg-type]
    if known.output is None or (layer.kind == "alone" and known.value is None):
        raise UserError(
            "a gate needs projections that are known head by head",
            f"{layer.label}, {layer.name} ({type(layer.module).__name__}), where they are not",
            "mask heads of other layers only: gates(model, layers=[...])",
        )
    proof = _Proof(layer, known.output) if layer.kind == "registry" else None

    def before(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if proof is not None:
            proof.check(args[0])
        return (_gated(args[0], gate(), layer), *args[1:])

    hook = known.output.module.register_forward_pre_hook(before)
    return _both(hook.remove, lambda: None if proof is None else proof.remove())


class _Proof:
    """That what enters the output projection is what attention gave, head by head; asked at the layer's first call."""

    def __init__(self, layer: Layer, output: Output) -> None:
        self.layer, self.output = layer, output
        self.heads: list[Tensor] = []  # what attention gave since the layer was called
        self.done = is_headwise(layer.module)
        self._removes: list[Remove] = []
        if not self.done:
            self._removes.append(wrap(layer.module, self._attend))
            self._removes.append(layer.module.register_forward_pre_hook(self._begin).remove)

    def remove(self) -> None:
        while self._removes:
            self._removes.pop()()

    def _begin(self, module: nn.Module, args: Any) -> None:
        if self.heads:
            self._fail("an output projection that was not called")

    def _attend(self, function: Callable[..., Any], module: nn.Module, *args: Any, **options: Any) -> Any:
        output, weights = function(module, *args, **options)[:2]
        self.heads.append(output.detach()[..., : self.output.size])
        return output, weights

    def check(self, entering: Tensor) -> None:
        if self.done:
            return
        heads, self.heads = self.heads, []
        self.remove()
        if not heads or sum(x.numel() for x in heads) != entering.numel():
            self._fail("an output projection of something else")
        flat = torch.cat([x.reshape(-1) for x in heads]).to(entering.dtype)
        if not torch.equal(flat.nan_to_num(), entering.detach().reshape(-1).nan_to_num()):
            self._fail("heads that are changed before the output projection")
        self.done = True

    def _fail(self, came: str) -> None:
        raise UserError(
            "a gate must act between the heads and the output projection",
            f"{came} in {self.layer.label}, {self.layer.name} ({type(self.layer.module).__name__})",
            "mask heads of other layers only: gates(model, layers=[...])",
        )


def gate_softmax(layer: Layer, known: Projections, gate: Callable[[], Tensor]) -> Remove:
    """Multiplies each softmax head's weights by gate() [heads], before they are mixed.

    Scaling row h of weights_mix is the same thing, so that fused attention stays fused. Without such a
    map the softmax heads are the value heads: the output is gated.
    """
    mixing = mixing_of(layer.module)
    names = [] if mixing is None else [n for n in _WEIGHT_MAPS if getattr(mixing, n, None) is not None]
    if not names:
        return gate_output(layer, known, gate)
    if "weights_mix" not in names:
        raise UserError(
            "gates on softmax heads need a static map after the softmax",
            f"{layer.name} without",
            "gate its output",
        )
    _once_for_all(gate(), layer)
    done = [_parametrize(mixing, name, lambda w: w * gate().to(w)[:, None]) for name in names]

    def remove() -> None:
        for one in done:
            one()

    return remove


_WEIGHT_MAPS = ("weights_mix", "query_weights_mix", "memory_weights_mix")


def _parametrize(module: Any, name: str, function: Callable[[Tensor], Tensor]) -> Remove:
    class Gated(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return function(weight)

    gated = Gated()
    parametrize.register_parametrization(module, name, gated, unsafe=True)
    named = _keep_name(module, name)

    def remove() -> None:
        named()
        chain = module.parametrizations[name]
        if len(chain) == 1:
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        else:
            del chain[next(i for i, x in enumerate(chain) if x is gated)]

    return remove


def _keep_name(module: Any, name: str) -> Remove:
    """The state dict has the weight under its own name, so that what is saved with gates on loads without them."""
    long = f"parametrizations.{name}.original"

    def saved(_: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
        if prefix + long in state:
            state[prefix + name] = state.pop(prefix + long)

    def loaded(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
        if prefix + name in state:
            state[prefix + long] = state.pop(prefix + name)

    hooks = module.register_state_dict_post_hook(saved), module.register_load_state_dict_pre_hook(loaded)

    def remove() -> None:
        for hook in hooks:
            hook.remove()

    return remove


def _once_for_all(gate: Tensor, layer: Layer) -> None:
    if gate.dim() != 1:
        raise UserError(
            "separate gates for each example need heads whose first axis is the batch",
            f"{layer.label} without",
            "run one example at a time",
        )


def _wide(gate: Tensor, like: Tensor, width: int) -> Tensor:
    """[..., heads] -> [..., width]: each gate for its head's columns."""
    return gate.to(like).repeat_interleave(width // gate.shape[-1], -1)


def _gated(heads: Tensor, gate: Tensor, layer: Layer) -> Tensor:
    """heads [..., width] times the gate [heads], or [batch, heads] where the first axis is the batch."""
    wide = _wide(gate, heads, heads.shape[-1])
    if gate.dim() == 1:
        return heads * wide
    if heads.dim() < 3 or len(heads) != len(gate):
        _once_for_all(gate, layer)
    return heads * wide.view(len(gate), *[1] * (heads.dim() - 2), -1)
