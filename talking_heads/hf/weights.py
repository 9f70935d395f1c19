"""Reading a model's weights: safetensors only, every tensor accounted for."""

import json
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import transformers
from safetensors import SafetensorError
from transformers import PreTrainedModel

from ..errors import UserError

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def model_class(config: Any, path: Any, name: str | None = None) -> type[PreTrainedModel]:
    """The transformers class that the config (or `name`) says; never one of the folder's own code."""
    named = name or (getattr(config, "architectures", None) or ["none"])[0]
    kind: Any = getattr(transformers, named, None)
    if not isinstance(kind, type) or not issubclass(kind, PreTrainedModel):
        raise UserError(
            "a model's class must be in transformers",
            f"{named} for {path}",
            "name one with --architecture (architecture=)",
        )
    return kind


def read(kind: Any, path: str | Path, *, unsafe_pickle: bool = False, **options: Any) -> Any:
    """kind.from_pretrained, insisting on every tensor.

    Args:
        unsafe_pickle: read a pickle where there are no safetensors, with torch.load's weights_only.
        options: of from_pretrained.

    Raises:
        UserError: no safetensors, or tensors that are cut off, missing, extra or of other shapes: all named.
    """
    damaged = list(damage(Path(path)))
    if damaged:
        raise UserError("weights must be whole safetensors", "; ".join(damaged), "fetch or save them anew")
    safe = any(Path(path).glob("*.safetensors")) or not Path(path).is_dir()
    pickles = [] if safe else sorted(x.name for pattern in _PICKLES for x in Path(path).glob(pattern))
    if pickles and not unsafe_pickle:
        raise UserError(
            "weights must be safetensors, since loading a pickle can run what its maker put in it",
            f"{', '.join(pickles)} in {path}",
            "save them as safetensors, or pass --unsafe-pickle (unsafe_pickle=True) if you trust their maker",
        )
    options |= {
        "use_safetensors": not pickles,
        "weights_only": True,
        "trust_remote_code": False,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # they are listed below
    }
    try:
        model, found = kind.from_pretrained(path, **options)
    except UnpicklingError:
        raise UserError(
            "a pickle of weights must hold tensors and nothing else",
            f"other objects in {', '.join(pickles)}, which were not loaded",
            "do not trust that file; fetch safetensors",
        ) from None
    except SafetensorError as problem:
        raise UserError("weights must be whole safetensors", f"{path}: {problem}", "save them anew") from None
    except (OSError, RuntimeError, ValueError) as problem:
        raise UserError(
            "a model must load with the options given", f"{path}: {problem}", "mend the option or the folder"
        ) from None
    wrong = [
        f"{what} {', '.join(sorted(map(_name, found[key])))}" for what, key in _WRONG.items() if found[key]
    ]
    if wrong:
        raise UserError(
            "weights must fit the model",
            "; ".join(wrong),
            f"name the class they belong to (now {kind.__name__}) or save the model whole",
        )
    return model


_WRONG = {"missing": "missing_keys", "extra": "unexpected_keys", "misshapen": "mismatched_keys"}


def _name(key: Any) -> str:
    """A tensor's name, with (name, shape there, shape wanted) its shapes."""
    return key if isinstance(key, str) else f"{key[0]} {list(key[1])} for {list(key[2])}"


def damage(folder: Path) -> Iterator[str]:
    """What is cut off or absent of a folder's safetensors, from their headers."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            header, room = _header(file)
            lost = [name for name, tensor in header.items() if tensor["data_offsets"][1] > room]
        except (ValueError, KeyError, TypeError):
            yield f"{file.name} without a readable header"
            continue
        if lost:
            yield f"{file.name} cut off at {', '.join(sorted(lost))}"
    for index in sorted(folder.glob("*.safetensors.index.json")):
        places = json.loads(index.read_text())["weight_map"]
        absent = {file for file in places.values() if not (folder / file).exists()}
        for file in sorted(absent):
            yield f"no {file} with {', '.join(sorted(n for n, f in places.items() if f == file))}"


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """({tensor: its entry}, bytes of tensors that follow): 8 bytes of length, JSON, tensors."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > size:
            raise ValueError("longer than its file")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return header, size - 8 - length
