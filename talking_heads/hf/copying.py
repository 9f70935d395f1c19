"""What comes along when a model's folder is converted: everything but weights and code, regular files only."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .source import quiet, read_json

_WEIGHTS = [
    "*.safetensors",
    "*.bin",
    "*.pt",
    "*.pth",
    "*.ckpt",
    "*.pkl",
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*.tflite",
    "*.onnx",
    "*.onnx_data",
    "*.gguf",
    "*.ggml",
    "*.npz",
    "*.npy",
    "*.params",
    "*.pdparams",
    "*.mlmodel",
    "*.engine",
    "*.plan",
    "*.nemo",
    "*.index.json",
    "openvino_model.xml",
]
_CODE = ("*.py", "*.pyc", "*.so", "*.sh")
# Written by save_pretrained, or of the training before.
_REPLACED = ("config.json", "README.md", "trainer_state.json")


def copy_others(source: Path, out: Path) -> dict[str, str]:
    """Copies what is not the model itself; {file: why} of what stays behind.

    A sentence encoder's sub-folders come along with their weights (modules.json names them). Links that lead
    out of the folder stay behind, but for those of the hub's cache into its own files.
    """
    left: dict[str, str] = {}
    modules = _modules(source)
    for file in sorted(_files(source, left, modules)):
        name = file.relative_to(source)
        own = name.parent == Path(".")
        if not _inside(file, source):
            left[str(name)] = "a link out of the folder"
        elif not file.is_file():
            left[str(name)] = "no regular file"
        elif _matches(file, _CODE):
            left[str(name)] = "code"
        elif own and _matches(file, _WEIGHTS):
            if not re.match(r"(model|pytorch_model)\b", file.name) or file.suffix not in (
                ".safetensors",
                ".json",
            ):
                left[str(name)] = "weights of the model before"
        elif own and (file.name in _REPLACED or (out / name).exists()):
            continue
        else:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, out / name)
    _name_classes(source, out)
    return left


def _matches(file: Path, patterns: Any) -> bool:
    return any(file.match(pattern) for pattern in patterns)


def _files(source: Path, left: dict[str, str], modules: set[str]) -> Iterator[Path]:
    for entry in source.iterdir():
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            yield entry
        elif entry.name in modules and not entry.is_symlink():
            yield from (x for x in entry.rglob("*") if x.is_symlink() or not x.is_dir())
        elif entry.name == "additional_chat_templates" and not entry.is_symlink():
            yield from entry.glob("*.jinja")
        else:
            left[f"{entry.name}/"] = "a folder that modules.json does not name"


def _modules(source: Path) -> set[str]:
    """First folder of each path in modules.json, by which a sentence encoder names its parts."""
    file = source / "modules.json"
    try:
        listed = json.loads(file.read_text()) if file.is_file() and file.stat().st_size < 2**20 else []
        paths = [Path(x["path"]) for x in listed]
    except (ValueError, TypeError, KeyError, RecursionError):
        return set()
    return {
        path.parts[0] for path in paths if path.parts and not path.is_absolute() and ".." not in path.parts
    }


def _inside(file: Path, source: Path) -> bool:
    """Whether a file lies in the folder; in the hub's cache, in the store that its snapshots link to."""
    real, home = file.resolve(), source.resolve()
    store = home.parent.parent / "blobs" if home.parent.name == "snapshots" else home
    return real.is_relative_to(home) or real.is_relative_to(store)


def _name_classes(source: Path, out: Path) -> None:
    """Names the tokenizer's and the processor's class in their files, where the old folder left it to the model's type."""
    from transformers import AutoProcessor, AutoTokenizer

    for auto, file, key in (
        (AutoTokenizer, "tokenizer_config.json", "tokenizer_class"),
        (AutoProcessor, "preprocessor_config.json", "processor_class"),
    ):
        if not (out / file).is_file():
            continue
        settings = read_json(out / file)
        if key in settings:
            continue
        try:
            with quiet():
                kind = type(auto.from_pretrained(source, trust_remote_code=False)).__name__
        except Exception:  # packages or files that it needs are not here: left as it was
            continue
        if auto is AutoTokenizer or (kind.endswith("Processor") and not kind.endswith("ImageProcessor")):
            (out / file).write_text(json.dumps(settings | {key: kind}, indent=2) + "\n")
