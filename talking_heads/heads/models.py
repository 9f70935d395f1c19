"""Opening a model by folder, package or hub name, for the commands on heads."""

from typing import Any

from ..errors import UserError


def open_model(name: str) -> tuple[Any, Any]:
    """(model in eval mode, tokenizer), of the class that was saved; converted models with their maps.

    Safetensors only, no remote code; every tensor of the model must be there, and be of numbers.

    Raises:
        UserError: nothing there that transformers can load.
    """
    from transformers import AutoModel, AutoTokenizer

    from .. import hf
    from ..hf.config import is_talking
    from ..hf.source import config_of, local, quiet, told
    from ..hf.weights import check_files, model_class, read
    from .prune import KEY, load

    folder = local(name)
    with quiet():
        config = config_of(folder)
        if is_talking(config):
            model = hf.load(folder)
        elif hasattr(config, KEY):
            check_files(folder)
            with told(folder):
                model = load(folder)
        else:
            try:
                kind: Any = model_class(config, folder)
            except UserError:  # a class of someone's own on a base that transformers knows
                kind = AutoModel._model_mapping.get(type(config), None)
                if kind is None:
                    raise
            model = read(kind, folder, config=config, parts=True)
        with told(folder):
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return model.eval(), tokenizer


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
            return new.eval()
        twin = copy.deepcopy(model)
        for part in twin.modules():
            for name in ("reset_parameters", "_reset_parameters", "reset_mixing"):
                if hasattr(part, name):
                    getattr(part, name)()
        return twin.eval()
    finally:
        torch.random.set_rng_state(state)
