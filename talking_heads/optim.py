"""Which parameters weight decay may pull towards zero, and the maps' own learning rate."""

from typing import Any

from torch import nn

from .nn import HeadMixing


def param_groups(
    model: nn.Module, weight_decay: float = 0.0, *, maps_lr: float | None = None
) -> list[dict[str, Any]]:
    """Groups for an optimizer: parameters with weight decay, those without, and with `maps_lr` the maps.

    Without decay are the maps across heads (decay would pull an identity towards zero, that is towards silent
    heads), biases, and the weights of normalisation layers. Frozen parameters are left out.

    Args:
        maps_lr: learning rate of the maps, which then are a group of their own; default the optimizer's.

    Example:
        torch.optim.AdamW(talking_heads.param_groups(model, weight_decay=0.01, maps_lr=1e-3), lr=5e-5)
    """
    groups: dict[str, list[nn.Parameter]] = {"decayed": [], "kept": [], "maps": []}
    seen: set[int] = set()
    for module in model.modules():
        maps = isinstance(module, HeadMixing)
        norm = "norm" in type(module).__name__.lower()
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen and parameter.requires_grad:
                seen.add(id(parameter))
                apart = "maps" if maps and maps_lr is not None else "kept"
                groups[apart if maps or norm or "bias" in name else "decayed"].append(parameter)
    made: list[dict[str, Any]] = [
        {"params": groups["decayed"], "weight_decay": weight_decay},
        {"params": groups["kept"], "weight_decay": 0.0},
    ]
    if maps_lr is not None:
        made.append({"params": groups["maps"], "weight_decay": 0.0, "lr": maps_lr})
    return made


def map_names(model: nn.Module) -> set[str]:
    """Names of the parameters that are maps, static and dynamic."""
    return {
        f"{name}.{key}" if name else key
        for name, module in model.named_modules()
        if isinstance(module, HeadMixing)
        for key, _ in module.named_parameters(recurse=False)
    }
