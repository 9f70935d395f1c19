"""Loading a converted model, through transformers' own from_pretrained."""

from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedModel

from ..errors import UserError
from .weights import model_class, read


def load(path: str | Path, *, architecture: str | None = None, **options: Any) -> Any:
    """The converted model saved in a folder (or under a hub name) by save_pretrained.

    Safetensors only; no remote code. Auto classes of transformers load it, too, once this package is
    imported, for example with another head on it; this loads the very class that was saved and insists
    on every tensor.

    Args:
        architecture: transformers' class to read it with, where a class of your own was saved; default the config's.
        options: as of from_pretrained (dtype, device_map, ...).

    Raises:
        UserError: no converted model there, or tensors that are missing, extra or of other shapes: all named.
    """
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as problem:
        raise UserError(
            "load needs a folder that save_pretrained wrote", f"{path}: {problem}", "check it"
        ) from None
    if not hasattr(config, "talking_heads"):
        raise UserError(
            "load needs a converted model",
            f"a {config.model_type} without maps in {path}",
            "load it with transformers and convert it",
        )
    plain: Any = model_class(config, path, architecture)
    return read(talking_model(plain), path, config=config, **options)


@cache
def talking_model(plain: type[PreTrainedModel]) -> type[PreTrainedModel]:
    """A subclass whose from_pretrained builds the maps before it loads; instances are `plain` again after."""

    class Talking(plain):  # type: ignore[misc, valid-type]
        def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
            from .choose import convertible
            from .config import layers_of, mark
            from .insert import insert

            super().__init__(config, *args, **kwargs)
            layers = layers_of(self)
            insert(self, convertible(self)[0], layers)
            mark(self, layers)

        @classmethod
        def from_pretrained(cls, path: Any, *args: Any, **kwargs: Any) -> Any:
            kwargs.setdefault("use_safetensors", True)
            asked = kwargs.pop("output_loading_info", False)
            model, found = super().from_pretrained(path, *args, **kwargs, output_loading_info=True)
            lost = sorted(name for name in found["missing_keys"] if name.endswith("_mix"))
            if lost:
                raise UserError("a converted model must have its maps", f"none for {lost}", "save it anew")
            model.__class__ = plain
            return (model, found) if asked else model

    Talking.__name__ = Talking.__qualname__ = plain.__name__
    Talking.__module__ = plain.__module__
    return Talking
