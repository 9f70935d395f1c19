"""transformers models from random initialisation, converted as an arm says."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from ..hf import convert
from .arms import Arm, parse_arm
from .objectives import find
from .settings import Settings


def build(settings: Settings, arm: Arm | str, seed: int, head: str = "pretrain", **changes: Any) -> Any:
    """The objective's model with that head, as the arm says; `changes` are made to its config.

    The seed fixes every parameter; identity maps draw no random numbers, so arms that differ in their
    maps only start from the same weights.

    Raises:
        UserError: options that this architecture does not take.
    """
    arm = parse_arm(arm) if isinstance(arm, str) else arm
    objective = find(settings.objective)
    transformers.set_seed(seed)
    if arm.kind == "none" and not arm.feed_forward:
        arm = replace(arm, feed_forward=_equal_parameters(settings, arm))
    model = _plain(settings, arm, head, **changes)
    if arm.kind == "none":
        objective.drop_attention(model)
    elif arm.is_converted:
        convert(model, **arm.options)
        limit(model, arm)
    return model


def _plain(settings: Settings, arm: Arm, head: str = "pretrain", **changes: Any) -> Any:
    objective = find(settings.objective)
    config = objective.config(settings, arm)
    for name, value in changes.items():
        setattr(config, name, value)
    return getattr(transformers, objective.models[head])(config)


def limit(model: Any, arm: Arm) -> None:
    """Keeps maps from learning: all of them (`frozen`), or what goes between groups of heads (`within`)."""
    for mix in (p for name, p in model.named_parameters() if name.endswith(("logits_mix", "weights_mix"))):
        if arm.within:
            groups = [torch.arange(count) // arm.within for count in mix.shape]
            inside = (groups[0][:, None] == groups[1][None]).to(mix)
            with torch.no_grad():
                mix.mul_(inside)
            mix.register_hook(lambda grad, inside=inside: grad * inside.to(grad.device))
        mix.requires_grad_(not arm.frozen)


def _equal_parameters(settings: Settings, arm: Arm) -> int:
    """The feed-forward width at which a model without attention has about as many parameters as one of the
    comparison's own shape with one head of attention."""
    arm = replace(arm, width=None) if arm.width == settings.width else arm
    whole = parameters(settings, replace(arm, kind="multi-head", heads=1, plain=True))
    width = arm.feed_forward or settings.feed_forward
    sizes = [parameters(settings, replace(arm, feed_forward=width * k)) for k in (1, 2)]
    return max(1, width + round((whole - sizes[0]) * width / (sizes[1] - sizes[0])))


def parameters(settings: Settings, arm: Arm | str) -> int:
    """How many parameters an arm's model has, none of them made.

    Raises:
        UserError: options that this architecture does not take.
    """
    with torch.device("meta"):
        return sum(x.numel() for x in build(settings, arm, 0).parameters())


def static_maps(model: Any) -> dict[str, list[list[float]]]:
    """Every static map by its name; the projections of dynamic ones, which have three dimensions, are left out."""
    return {
        name: x.detach().cpu().tolist()
        for name, x in model.named_parameters()
        if name.rpartition(".")[2] in ("logits_mix", "weights_mix")
    }


@contextmanager
def maps_reset(model: Any) -> Iterator[bool]:
    """Every static map as the identity for a while; False where the model has none, or one that is not square."""
    maps = [x for name, x in model.named_parameters() if name.endswith(("logits_mix", "weights_mix"))]
    kept = [x.detach().clone() for x in maps]
    is_reset = bool(maps) and all(x.dim() == 2 and x.shape[0] == x.shape[1] for x in maps)
    with torch.no_grad():
        for mix in maps if is_reset else []:
            mix.copy_(torch.eye(len(mix)))
        try:
            yield is_reset
        finally:
            for mix, value in zip(maps, kept, strict=True):
                mix.copy_(value)


def load_pretrained(folder: Path, settings: Settings) -> Any:
    """The model that a run has kept, whatever its arm."""
    kind = getattr(transformers, find(settings.objective).auto)
    return kind.from_pretrained(folder, trust_remote_code=False, use_safetensors=True)


_HEADS = ("pooler.", "classification_head.", "classifier.", "score.", "qa_outputs.")


def load_body(model: Any, pretrained: Any) -> None:
    """Copies the weights of the part that both share; a task's own head (and BERT's pooler) keep their start."""
    target, source = model.base_model, pretrained.base_model
    known = target.state_dict().keys()
    given = {name: x for name, x in source.state_dict().items() if name in known}
    missing = [name for name in known if name not in given and not name.startswith(_HEADS)]
    if missing:
        raise RuntimeError(f"the pre-trained model lacks {missing[:3]} of the task's model")
    target.load_state_dict(given, strict=False)
