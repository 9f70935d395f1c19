"""Loading a converted model, through transformers' own from_pretrained."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from ..errors import UserError
from ..functional import Backend
from ..nn.shapes import known_backend
from .attention import AS_EAGER, NAME
from .config import is_talking, tree
from .insert import set_backend
from .source import HUB, config_of, local
from .weights import model_class, read

# Options of from_pretrained that are the model's, though configs have fields of these names.
_OF_THE_MODEL = ("dtype", "torch_dtype", "quantization_config", "name_or_path")
_REFUSED = {  # {option: (the values that change nothing, why others cannot be)}
    "trust_remote_code": ((None, False), "code of a model's folder is never run"),
    "use_safetensors": ((None, True), "weights are read as safetensors only"),
    "state_dict": ((None,), "a loaded model's load_state_dict takes one"),
    "gguf_file": ((None,), "the maps are in safetensors"),
    "attn_implementation": (
        (None, NAME, AS_EAGER),
        "the maps act in this package's attention function; output_attentions=True in the call gives weights",
    ),
}


def load(
    path: str | Path, *, architecture: str | None = None, backend: Backend = "auto", **options: Any
) -> Any:
    """The converted model saved in a folder (or under a hub name) by save_pretrained.

    Safetensors only; no remote code. Auto classes of transformers load it, too, once this package is
    imported, for example with another head on it; this loads the very class that was saved and insists
    on every tensor.

    Args:
        architecture: transformers' class to read it with, where a class of your own was saved, or that of a
            part (CLIPVisionModel); default the config's.
        backend: of talking_heads_attention (see `set_backend`).
        options: as of from_pretrained (dtype, device_map, subfolder, revision, config, num_labels, ...).
            attn_implementation is refused: the maps need this package's function.

    Raises:
        UserError: no converted model there, or tensors that are missing, extra or of other shapes: all named.
    """
    for name, (harmless, why) in _REFUSED.items():
        value = options.pop(name, None)
        if not any(value is x or value == x for x in harmless):
            raise UserError(f"load takes no other {name}: {why}", f"{name}={value!r}", "leave it out")
    hub = {name: options.pop(name) for name in HUB if name in options}
    folder = local(path, subfolder=options.pop("subfolder", ""), **hub)
    config = options.pop("config", None)
    if not isinstance(config, PreTrainedConfig):
        config = _config(Path(config) if config is not None else folder, options)
    if not is_talking(config):
        raise UserError(
            "load needs a converted model and its config",
            f"a {config.model_type} without maps in {path}",
            "load it with transformers and convert it",
        )
    kind: Any = model_class(config, path, architecture)
    part = next((x for x in tree(config) if isinstance(x, kind.config_class)), config)
    known_backend(backend)
    model = read(kind, folder, config=part, parts=part is not config, **options)
    if backend != "auto":
        set_backend(model, backend)
    return model


def _config(folder: Path, options: dict[str, Any]) -> Any:
    """The folder's config with the fields that options set; these are taken out of them."""
    config = config_of(folder if folder.is_dir() else folder.parent)
    fields = {x: options.pop(x) for x in list(options) if hasattr(config, x) and x not in _OF_THE_MODEL}
    return config_of(folder, **fields) if fields else config
