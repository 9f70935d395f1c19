"""Which parameters weight decay may pull towards zero."""

from typing import Any

from torch import nn

from .nn import HeadMixing


def param_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for an optimizer: parameters with weight decay and those without.

    Without are the maps across heads (decay would pull an identity towards zero, that is towards silent
    heads), biases, and the weights of normalisation layers. Frozen parameters are left out.

    Example:
        torch.optim.AdamW(talking_heads.param_groups(model, weight_decay=0.01), lr=1e-3)
    """
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    seen: set[int] = set()
    for module in model.modules():
        whole = isinstance(module, HeadMixing) or "norm" in type(module).__name__.lower()
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen and parameter.requires_grad:
                seen.add(id(parameter))
                groups[not (whole or "bias" in name)].append(parameter)
    return [
        {"params": groups[True], "weight_decay": weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]
