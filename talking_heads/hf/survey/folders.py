"""The architectures of the installed transformers that attend through the registry."""

import importlib
import inspect
from functools import cache
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from transformers import PreTrainedModel

from ...anatomy.source import calls_registry

_ORDER = (  # the most of a model first
    "ForConditionalGeneration",
    "ForCausalLM",
    "ForMaskedLM",
    "ForPreTraining",
    "ForImageClassification",
    "ForObjectDetection",
    "ForSequenceClassification",
    "ForCTC",
    "LMHeadModel",
    "Model",
)


@cache
def folders() -> tuple[str, ...]:
    """Names of the model folders whose code asks the registry for an attention function."""
    root = Path(transformers.__file__).parent / "models"
    files = sorted(root.glob("*/modeling_*.py"))
    return tuple(dict.fromkeys(f.parent.name for f in files if "ALL_ATTENTION_FUNCTIONS" in f.read_text()))


@cache
def _classes(folder: str) -> tuple[Any, ...]:
    root = Path(transformers.__file__).parent / "models" / folder
    found: list[Any] = []
    for file in sorted(root.glob("modeling_*.py")):
        if "ALL_ATTENTION_FUNCTIONS" in file.read_text():
            module = importlib.import_module(f"transformers.models.{folder}.{file.stem}")
            own = (x for x in vars(module).values() if inspect.isclass(x) and x.__module__ == module.__name__)
            found += [x for x in own if issubclass(x, nn.Module)]
    return tuple(found)


def attentions(folder: str) -> set[str]:
    """Names of its attention classes."""
    return {kind.__name__ for kind in _classes(folder) if calls_registry(kind)}


def models(folder: str) -> list[Any]:
    """Its model classes, whole models first."""
    found = [
        x for x in _classes(folder) if issubclass(x, PreTrainedModel) and "PreTrainedModel" not in x.__name__
    ]
    return sorted(
        found, key=lambda kind: next((k for k, end in enumerate(_ORDER) if kind.__name__.endswith(end)), 99)
    )
