"""One multiplier for each head: gates, and masks of heads, which transformers 5 no longer has."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..anatomy.layers import Layer, layers, select_heads
from ..anatomy.projections import projections
from ..anatomy.reach import gate_output, gate_softmax, recompile
from ..anatomy.registry import Remove
from ..errors import one_of

Site = Literal["output", "softmax"]
SITES: tuple[Site, ...] = get_args(Site)


class Gates:
    """Multipliers on the heads of a model, initially 1; made by `gates(model)`.

    values: {"encoder.0": [heads], ...}, leaf tensors that take gradients. Written by name, too:
    `gates["encoder.2:5"] = 0`, `gates["cross.0:*"] = 0.5`. A context manager that removes itself at the end.
    They are not parameters of the model: its state dict and optimizer do not know them.
    """

    def __init__(self, model: nn.Module, site: Site = "output", only: Collection[str] | None = None) -> None:
        if site not in SITES:
            raise one_of("site", site, SITES)
        self.layers: list[Layer] = layers(model)
        if only is not None:
            labels = select_heads([layer.label for layer in self.layers], only)
            self.layers = [layer for layer in self.layers if layer.label in labels]
        self.site = site
        self.values: dict[str, Tensor] = {}
        self._removes: list[Remove] = []
        attach = gate_output if site == "output" else gate_softmax
        try:
            for layer in self.layers:
                heads = _count(layer, site)
                like = next((p for p in layer.module.parameters() if p.is_floating_point()), torch.empty(0))
                self.values[layer.label] = torch.ones(heads, device=like.device, requires_grad=True)
                known = projections(model, layer.name, layer.output_heads)
                self._removes.append(attach(layer, known, self._reader(layer.label)))
        except BaseException:
            self.remove()
            raise
        recompile()

    def _reader(self, label: str) -> Callable[[], Tensor]:
        return lambda: self.values[label]

    @property
    def names(self) -> list[str]:
        """["encoder.0:0", ...]"""
        return [f"{label}:{head}" for label, x in self.values.items() for head in range(x.shape[-1])]

    def __getitem__(self, name: str) -> float:
        label, head = select_heads(self.names, [name])[0].split(":")
        return self.values[label][..., int(head)].item()

    def __setitem__(self, pattern: str | Iterable[str], value: float) -> None:
        patterns = [pattern] if isinstance(pattern, str) else pattern
        with torch.no_grad():
            for name in select_heads(self.names, patterns):
                label, head = name.split(":")
                self.values[label][..., int(head)] = value

    def reset(self) -> None:
        """Sets every gate to 1."""
        with torch.no_grad():
            for x in self.values.values():
                x.fill_(1)

    def shared(self) -> None:
        """One gate for all examples again, all 1."""
        for label, x in self.values.items():
            self.values[label] = torch.ones(x.shape[-1], device=x.device, requires_grad=True)

    def per_example(self, batch: int) -> None:
        """Separate gates for each example, all 1: values become [batch, heads] (output gates only)."""
        for label, x in self.values.items():
            self.values[label] = torch.ones(batch, x.shape[-1], device=x.device, requires_grad=True)

    def remove(self) -> None:
        """Removes the gates from the model."""
        for remove in self._removes[::-1]:
            remove()
        self._removes = []
        recompile()

    def __enter__(self) -> "Gates":
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()


def gates(model: nn.Module, site: Site = "output", layers: Collection[str] | None = None) -> Gates:
    """Gates on every attention layer; remove() them or use them in a `with`.

    A compiled model is compiled again, with the gates and after them without.

    Args:
        site: "output" multiplies each (value) head's output before the output projection, after any mixing
            of weights; gate 0 is the same as zeros in the head's columns of that projection, gate 1 is
            bit-identical to no gate, and attention stays on the path it was on.
            "softmax" multiplies each softmax head's weights before they are mixed (row h of weights_mix);
            where no heads are mixed after the softmax it is the same as "output".
        layers: labels or patterns ("encoder.*"); default all.

    Raises:
        UserError: no attention layers, an unknown site, a layer whose output projection is not known. At the first
            call: a layer where something else than a gate of heads stands before the output projection.
    """
    return Gates(model, site, layers)


def _count(layer: Layer, site: str) -> int:
    return layer.heads if site == "softmax" else layer.output_heads


@contextmanager
def mask(model: nn.Module, heads: Iterable[str], site: Site = "output") -> Iterator[Gates]:
    """Masks heads in the block: `with mask(model, ["encoder.2:5", "cross.0:*"]): ...`

    A masked head contributes nothing and gets zero gradient.

    Raises:
        UserError: a name that matches no head; what `gates` refuses, in the layers named.
    """
    every = [f"{layer.label}:{head}" for layer in layers(model) for head in range(_count(layer, site))]
    chosen = select_heads(every, heads)
    with Gates(model, site, dict.fromkeys(name.partition(":")[0] for name in chosen)) as found:
        if chosen:
            found[chosen] = 0.0
        yield found
