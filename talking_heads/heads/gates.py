"""One multiplier a head: gates, and masks of whole heads.

transformers 5 has neither head_mask nor prune_heads any more; this is what stands in their place.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..anatomy.layers import Layer, layers, select_heads
from ..errors import UserError
from .attach import Remove, gate_output, gate_softmax

SITES = ("output", "softmax")


class Gates:
    """Multipliers on the heads of a model, all 1 at first; made by `gates(model)`.

    values: {"encoder.0": [heads], ...}, leaf tensors that take gradients. Written by name, too:
    `gates["encoder.2:5"] = 0`, `gates["cross.0:*"] = 0.5`. A context manager that removes itself at the end.
    They are no parameters of the model: its state dict and optimizer do not know them. (Of
    nn.MultiheadAttention and at the softmax, torch's parametrization renames a weight in the state dict
    until `remove`.)
    """

    def __init__(self, model: nn.Module, site: str = "output") -> None:
        if site not in SITES:
            raise UserError(f"site must be one of {', '.join(SITES)}", site, "name one")
        self.layers: list[Layer] = layers(model)
        self.site = site
        self.values: dict[str, Tensor] = {}
        self._removes: list[Remove] = []
        attach = gate_output if site == "output" else gate_softmax
        try:
            for layer in self.layers:
                heads = layer.heads if site == "softmax" else layer.output_heads
                like = next((p for p in layer.module.parameters() if p.is_floating_point()), torch.empty(0))
                self.values[layer.label] = torch.ones(heads, device=like.device, requires_grad=True)
                self._removes.append(attach(layer, self._reader(layer.label)))
        except BaseException:
            self.remove()
            raise

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
        """Every gate 1 again."""
        with torch.no_grad():
            for x in self.values.values():
                x.fill_(1)

    def per_example(self, batch: int) -> None:
        """Gates of each example's own, all 1: values become [batch, heads] (output gates only)."""
        for label, x in self.values.items():
            self.values[label] = torch.ones(batch, x.shape[-1], device=x.device, requires_grad=True)

    def remove(self) -> None:
        """Takes the gates off the model."""
        for remove in self._removes[::-1]:
            remove()
        self._removes = []

    def __enter__(self) -> "Gates":
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()


def gates(model: nn.Module, site: str = "output") -> Gates:
    """Gates on every attention layer that `layers` finds; remove() them or use them in a `with`.

    Args:
        site: "output" multiplies each (value) head's output before the output projection, after any mixing
            of weights; gate 1 is bit-identical to no gate, and attention stays on the path it was on.
            "softmax" multiplies each softmax head's weights before they are mixed (row h of weights_mix);
            where no heads talk after the softmax it is the same as "output".

    Raises:
        UserError: no attention layers, an unknown site.
    """
    return Gates(model, site)


@contextmanager
def mask(model: nn.Module, heads: Iterable[str], site: str = "output") -> Iterator[Gates]:
    """Masks heads in the block: `with mask(model, ["encoder.2:5", "cross.0:*"]): ...`

    A masked head contributes nothing and gets zero gradient.

    Raises:
        UserError: a name that matches no head.
    """
    with gates(model, site) as found:
        found[heads] = 0.0
        yield found
