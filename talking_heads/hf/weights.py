"""Reading a model's weights: safetensors only, every tensor accounted for."""

import contextlib
import copy
import inspect
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from transformers import PreTrainedModel

from ..errors import UserError
from .source import PICKLES, is_safetensors_inside, read_json, told

_HEADER_BYTES = 100_000_000  # as safetensors itself
_AGAIN = "fetch or save them again"


def model_class(config: Any, path: Any, name: str | None = None) -> type[PreTrainedModel]:
    """The transformers class that the config (or `name`) says; never one of the folder's own code."""
    named = name or first_class(getattr(config, "architectures", None))
    kind: Any = getattr(transformers, named, None)
    if not isinstance(kind, type) or not issubclass(kind, PreTrainedModel):
        raise UserError(
            "a model's class must be in transformers",
            f"{named} for {path}",
            "name one with --architecture (architecture=)",
        )
    return kind


def first_class(architectures: Any) -> str:
    """The class that a config's `architectures` names first; "none" without a name."""
    name = architectures[0] if isinstance(architectures, list) and architectures else architectures
    return name if isinstance(name, str) and name.isidentifier() else "none"


def read(
    kind: Any,
    folder: str | Path,
    *,
    config: Any = None,
    unsafe_pickle: bool = False,
    parts: bool = False,
    heads: list[str] | None = None,
    **options: Any,
) -> Any:
    """kind.from_pretrained, insisting on every tensor.

    Args:
        unsafe_pickle: read a pickle where there are no safetensors, with torch.load's weights_only.
        parts: whether the checkpoint may hold tensors of other parts, which the class leaves out.
        heads: a list; the checkpoint may hold tensors of transformers' other heads on the same model (BERT's pooler
            and next-sentence prediction), which the class leaves out: their names are added to the list.
        options: of from_pretrained.

    Raises:
        UserError: no safetensors, or tensors that are cut off, missing, extra, of other shapes or no numbers: all
            named; whatever else transformers raises.
    """
    folder = Path(folder)
    pickles = check_files(folder, config, unsafe_pickle=unsafe_pickle)
    if config is not None:
        options["config"] = config
        with told(folder):
            _check_size(kind, config, folder)
    options |= {
        "use_safetensors": not pickles,
        "weights_only": True,
        "trust_remote_code": False,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # they are listed below
    }
    with told(folder):
        model, found = _loaded(kind, folder, options)
    if heads is not None and found["unexpected_keys"]:
        others = _of_other_heads(kind, model.config, folder) & set(found["unexpected_keys"])
        heads += sorted(others)
        found["unexpected_keys"] = set(found["unexpected_keys"]) - others
    _check_found(kind, model, found, parts)
    _check_numbers(model)
    return model


def _loaded(kind: Any, folder: Path, options: dict[str, Any]) -> Any:
    try:
        return kind.from_pretrained(folder, **options)
    except UnpicklingError:
        raise UserError(
            "a pickle of weights must hold tensors and nothing else",
            f"other objects in the weights of {folder}, which were not loaded",
            "do not trust that file; fetch safetensors",
        ) from None
    except SafetensorError as problem:
        raise UserError("weights must be whole safetensors", f"{folder}: {problem}", _AGAIN) from None


def _check_found(kind: Any, model: Any, found: dict[str, Any], parts: bool) -> None:
    wrong = {what: sorted(map(_name, found[key])) for what, key in _WRONG.items()}
    if parts:  # a further head is no harm; a layer of a stack that the model lacks is
        wrong["extra"] = [name for name in wrong["extra"] if re.search(r"\.\d+\.", name)]
        base = f"{model.base_model_prefix}."
        tops = {name.removeprefix(base).partition(".")[0] for name, _ in model.named_parameters()}
        wrong["extra"] = [x for x in wrong["extra"] if x.removeprefix(base).partition(".")[0] in tops]
    lines = [f"{what} {_listed(names)}" for what, names in wrong.items() if names]
    if lines:
        raise UserError(
            "weights must fit the model",
            "; ".join(lines),
            f"name the class they belong to (now {kind.__name__}) or save the model whole",
        )


def _of_other_heads(kind: Any, config: Any, folder: Path) -> set[str]:
    """Names of the tensors that transformers' other classes on the same base model have."""
    base = kind.base_model_prefix
    near = vars(sys.modules[kind.__module__]).values()
    classes: list[Any] = [
        x
        for x in near
        if isinstance(x, type) and issubclass(x, PreTrainedModel) and not inspect.isabstract(x)
    ]
    classes = [x for x in classes if x.config_class is kind.config_class and x.base_model_prefix == base]
    found: set[str] = set()
    for other in classes:
        with contextlib.suppress(Exception):  # abstract ones, and those that need other settings
            found |= skeleton(other, config, folder).state_dict().keys()
    return found


_WRONG = {"missing": "missing_keys", "extra": "unexpected_keys", "misshapen": "mismatched_keys"}


def _name(key: Any) -> str:
    """A tensor's name, with (name, shape there, shape wanted) its shapes."""
    return key if isinstance(key, str) else f"{key[0]} {list(key[1])} for {list(key[2])}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if names[20:] else "")


def _check_numbers(model: Any) -> None:
    broken = [
        name
        for name, x in model.named_parameters()
        if x.device.type != "meta" and x.is_floating_point() and not _finite(x)
    ]
    if broken:
        raise UserError(
            "weights must be finite",
            f"NaN or infinite numbers in {_listed(broken)}",
            "take an earlier checkpoint",
        )


@torch.no_grad()
def _finite(x: torch.Tensor) -> bool:
    try:
        return bool(x.sum(dtype=torch.float32).isfinite()) or bool(x.isfinite().all())
    except (RuntimeError, NotImplementedError):  # packed weights without arithmetic
        return True


def check_files(folder: Path, config: Any = None, *, unsafe_pickle: bool = False) -> list[str]:
    """Refuses weights that are not whole safetensors in the folder; the pickles to read where that is asked for."""
    damaged = list(damage(folder))
    if damaged:
        raise UserError("weights must be whole safetensors", "; ".join(damaged), _AGAIN)
    if any(folder.glob("*.safetensors")):
        return []
    pickles = sorted(x.name for pattern in PICKLES for x in folder.glob(pattern))
    if not pickles:
        raise UserError(
            "a model's folder must hold weights as safetensors", f"none in {folder}", "check the folder"
        )
    if not unsafe_pickle:
        raise UserError(
            "weights must be safetensors, since loading a pickle can run what its maker put in it",
            f"{', '.join(pickles)} in {folder}",
            "save them as safetensors, or, if you trust their maker, pass --unsafe-pickle to convert "
            "(unsafe_pickle=True)",
        )
    for index in folder.glob("*.bin.index.json"):
        outside = [name for name in _places(index).values() if name not in pickles]
        if outside:
            raise UserError(
                "an index must name files in its folder",
                f"{outside[0]!r} in {index}",
                "do not trust that folder",
            )
    return pickles


def damage(folder: Path) -> Iterator[str]:
    """What is cut off, absent or no safetensors of a folder's weights, from headers and indexes."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            header, room = _header(file)
            lost = [name for name, tensor in header.items() if tensor["data_offsets"][1] > room]
        except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            yield f"{file.name} without a readable header"
            continue
        if lost:
            yield f"{file.name} cut off at {_listed(sorted(lost))}"
    for index in sorted(folder.glob("*.safetensors.index.json")):
        places = _places(index)
        for file_name in sorted(set(places.values())):
            named = _listed(sorted(n for n, f in places.items() if f == file_name))
            if not is_safetensors_inside(file_name):
                yield f"{file_name}, no .safetensors file of this folder, named by {index.name} for {named}"
            elif not (folder / file_name).is_file():
                yield f"no {file_name} with {named}"


def _places(index: Path) -> dict[str, str]:
    """{tensor: file} of an index of shards."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(x, str) for x in places.values()):
        raise UserError(
            "an index of weights must hold a weight_map from tensors to files", f"none in {index}", _AGAIN
        )
    return places


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """({tensor: its entry}, bytes of tensors that follow): 8 bytes of length, JSON, tensors."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(size, _HEADER_BYTES):
            raise ValueError("longer than its file")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return header, size - 8 - length


def _check_size(kind: Any, config: Any, folder: Path) -> None:
    """Refuses a config that describes a far larger model than the files hold, before memory is taken for it."""
    files = [x for pattern in ("*.safetensors", *PICKLES) for x in folder.glob(pattern)]
    held = sum(x.stat().st_size for x in files)
    most = held * (32 if getattr(config, "quantization_config", None) else 8) + 2**28
    model = skeleton(kind, config, folder)
    wanted = sum(x.numel() * x.element_size() for x in (*model.parameters(), *model.buffers()))
    if wanted > most:
        raise UserError(
            "a config must describe the model that its weights are of",
            f"one of {wanted / 2**30:.1f} GiB for {held / 2**30:.3f} GiB of weights in {folder}",
            "check config.json",
        )


def skeleton(kind: Any, config: Any, folder: Path) -> Any:
    """The model of a config without memory for weights; at most as many modules as the folder's tensors can be of."""
    from transformers.initialization import no_init_weights

    tensors = sum(len(_header(x)[0]) for x in folder.glob("*.safetensors")) or 10_000
    with _few_modules(20 * tensors + 5000, folder), torch.device("meta"), no_init_weights():
        return kind(copy.deepcopy(config))


@contextmanager
def _few_modules(most: int, folder: Path) -> Iterator[None]:
    count = 0

    def counted(module: nn.Module, name: str, submodule: Any) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise UserError(
                "a config must describe the model that its weights are of",
                f"one of more than {most:,} modules for the tensors in {folder}",
                "check config.json",
            )

    hook = register_module_module_registration_hook(counted)
    try:
        yield
    finally:
        hook.remove()
