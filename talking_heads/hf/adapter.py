"""A folder that holds a LoRA adapter only: its base model with the adapter merged into it."""

from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError
from .source import config_of, local, read_json, told
from .weights import check_files, model_class, read

_FILE = "adapter_config.json"


class Merged(NamedTuple):
    """The model, the folder of its base, and that folder's config."""

    model: Any
    folder: Path
    config: Any


def is_adapter(folder: Path) -> bool:
    return (folder / _FILE).exists()


def refuse(folder: Path) -> None:
    """Raises for a folder that holds an adapter and no model."""
    if is_adapter(folder):
        raise UserError(
            "convert needs a whole model",
            f"an adapter in {folder}",
            "pass --merge-adapter (merge_adapter=True), or merge it into its base model yourself (peft: "
            "merge_and_unload, save_pretrained) and convert that",
        )


def merged(
    folder: Path, *, architecture: str | None = None, unsafe_pickle: bool = False, **options: Any
) -> Merged:
    """The base model that the adapter names, with the adapter in its weights.

    Args:
        architecture: class of the base model; default its config's. options: of from_pretrained, for the base.

    Raises:
        UserError: no adapter, one of another kind than LoRA, no safetensors, a base that is not there.
    """
    if not is_adapter(folder):
        raise UserError("merge_adapter needs an adapter's folder", f"no {_FILE} in {folder}", "leave it out")
    try:
        import peft
    except ImportError:
        raise UserError("merging an adapter needs the package peft", "none", "pip install peft") from None

    settings = read_json(folder / _FILE)
    if settings.get("peft_type") != "LORA":
        raise UserError(
            "an adapter must be LoRA to be merged",
            f"{settings.get('peft_type')!r} in {folder / _FILE}",
            "merge it with the library that made it, and convert the result",
        )
    named = settings.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise UserError("an adapter must name its base model", f"none in {folder / _FILE}", "add it there")
    check_files(folder)
    base = local(named, pickles=unsafe_pickle)
    config = config_of(base)
    model = read(
        model_class(config, base, architecture), base, config=config, unsafe_pickle=unsafe_pickle, **options
    )
    with told(folder):
        model = peft.PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    return Merged(model.eval(), base, config)
