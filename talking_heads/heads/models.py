"""Opening a model by folder, package or hub name, for the commands on heads."""

import logging
from pathlib import Path
from typing import Any

from ..devices import device as find_device
from ..devices import dtype as find_dtype
from ..errors import UserError

LOGGER = logging.getLogger(__name__)


def open_model(
    name: str | Path, *, device: str = "cpu", dtype: str | None = None, pictures: bool = False
) -> tuple[Any, Any]:
    """(model in eval mode, tokenizer), of the class that was saved; converted models with their maps.

    Safetensors only, no remote code; every tensor of the model must be there, and be of numbers.

    Args:
        name: a folder, the name of an installed package that carries a model, or a name on the hub.
        device, dtype: by the names that talking_heads.devices knows; None is the dtype of the weights.
        pictures: the image processor instead of the tokenizer.

    Raises:
        UserError: nothing there that transformers can load.
    """
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    from .. import hf
    from ..hf.config import is_talking
    from ..hf.source import config_of, local, quiet, told
    from ..hf.weights import check_files, model_class, read
    from .prune import KEY, load

    place = find_device(device)
    given: dict[str, Any] = {} if dtype is None else {"dtype": find_dtype(dtype)}
    folder = local(name)
    LOGGER.debug("opening %s on %s", folder, place)
    with quiet():
        config = config_of(folder)
        if is_talking(config):
            model = hf.load(folder, **given)
        elif hasattr(config, KEY):
            check_files(folder)
            with told(folder):
                model = load(folder, **given)
        else:
            try:
                kind: Any = model_class(config, folder)
            except UserError:  # a class of someone's own on a base that transformers knows
                kind = AutoModel._model_mapping.get(type(config), None)
                if kind is None:
                    raise
            model = read(kind, folder, config=config, parts=True, **given)
        with told(folder):
            kind = AutoImageProcessor if pictures else AutoTokenizer
            reader = kind.from_pretrained(folder, trust_remote_code=False)
            if not pictures:
                _check_vocabulary(reader, folder)
    return model.to(place).eval(), reader


def _check_vocabulary(tokenizer: Any, folder: Path) -> None:
    """transformers makes a tokenizer without words where its files are missing: every word would be unknown."""
    names = [name for name in type(tokenizer).vocab_files_names.values() if isinstance(name, str)]
    others = ("tokenizer.json", "*.model", "*.tiktoken")
    if names and not any(x.is_file() for name in (*names, *others) for x in folder.glob(name)):
        raise UserError(
            "a model's folder must hold its tokenizer's vocabulary",
            f"none of {', '.join(sorted(set(names)))} in {folder}",
            "save the tokenizer there: tokenizer.save_pretrained",
        )


def random_copy(model: Any, seed: int = 0) -> Any:
    """A copy of the model with every parameter initialised again as its class does; in eval mode.

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
            weight = next(model.parameters())
            return new.to(weight.device, weight.dtype).eval()
        twin = copy.deepcopy(model)
        for part in twin.modules():
            for name in ("reset_parameters", "_reset_parameters", "reset_mixing"):
                if hasattr(part, name):
                    getattr(part, name)()
        return twin.eval()
    finally:
        torch.random.set_rng_state(state)
