"""Loading a converted model, through transformers' own from_pretrained."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from ..errors import UserError
from .config import is_talking
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
    if not is_talking(config):
        raise UserError(
            "load needs a converted model",
            f"a {config.model_type} without maps in {path}",
            "load it with transformers and convert it",
        )
    return read(model_class(config, path, architecture), path, config=config, **options)
