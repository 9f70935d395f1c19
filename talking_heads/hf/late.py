"""Guards in libraries that need not be imported: put in place as soon as they are.

transformers.Trainer   its weight decay leaves the maps alone (it would pull an identity towards silent heads)
peft.PeftModel         adapters are not saved without maps that were trained with them
accelerate             load_checkpoint_in_model and load_checkpoint_and_dispatch leave out no maps
"""

import functools
import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

from ..nn.mixing import CHILD
from ..optim import map_names
from .lost import refuse_lost, refuse_unsaved_maps


def install() -> None:
    _when_imported("transformers.trainer", _trainer)
    _when_imported("peft.peft_model", _peft)
    _when_imported("accelerate.utils.modeling", _accelerate)


def _trainer(module: Any) -> None:
    original = module.Trainer.get_decay_parameter_names

    @functools.wraps(original)
    def get_decay_parameter_names(self: Any, model: Any) -> list[str]:
        maps = map_names(model)
        return [name for name in original(self, model) if name not in maps]

    module.Trainer.get_decay_parameter_names = get_decay_parameter_names


def _peft(module: Any) -> None:
    original = module.PeftModel.save_pretrained

    @functools.wraps(original)
    def save_pretrained(self: Any, *args: Any, **kwargs: Any) -> Any:
        refuse_unsaved_maps(self)
        return original(self, *args, **kwargs)

    module.PeftModel.save_pretrained = save_pretrained


def _accelerate(module: Any) -> None:
    """Its own reader of checkpoints goes by the model's parameters: for the other tensors it has a warning."""
    original = module.load_checkpoint_in_model

    @functools.wraps(original)
    def load_checkpoint_in_model(model: Any, checkpoint: Any, *args: Any, **kwargs: Any) -> Any:
        own = {name for name, _ in model.named_parameters()}
        maps = {name for name in _stored(Path(checkpoint)) if f".{CHILD}." in name}
        refuse_lost({name.rpartition(f".{CHILD}.")[0] for name in maps - own}, model)
        return original(model, checkpoint, *args, **kwargs)

    for other in list(sys.modules.values()):  # those that have it already by `from`
        if getattr(other, "__name__", "").partition(".")[0] == "accelerate" and (
            vars(other).get("load_checkpoint_in_model") is original
        ):
            vars(other)["load_checkpoint_in_model"] = load_checkpoint_in_model


def _stored(checkpoint: Path) -> set[str]:
    """Names of the tensors in a file of safetensors, in those of a folder, or in those next to an index."""
    from safetensors import safe_open

    folder = checkpoint.parent if checkpoint.suffix == ".json" else checkpoint
    names: set[str] = set()
    for file in folder.glob("*.safetensors") if folder.is_dir() else [folder]:
        if file.suffix == ".safetensors" and file.is_file():
            with safe_open(file, "pt") as opened:
                names |= set(opened.keys())
    return names


def _when_imported(name: str, change: Callable[[Any], None]) -> None:
    if name in sys.modules:
        change(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Finder(name, change))


class _Finder(MetaPathFinder):
    """Finds one module as Python does, once, and changes it after it is loaded."""

    def __init__(self, name: str, change: Callable[[Any], None]) -> None:
        self.name, self.change = name, change

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        original = loader.exec_module

        def exec_module(module: Any) -> None:
            original(module)
            self.change(module)

        loader.exec_module = exec_module
        return spec
