"""Training runs that show what talking heads are worth: pre-training, transfer, their comparison.

What is named here is imported when it is first used: most of it imports transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compare import compare as run_comparison
    from .corpus import Corpus
    from .recall import Task as RecallTask
    from .recall import diagram
    from .settings import Settings, preset

__all__ = ["Corpus", "RecallTask", "Settings", "diagram", "preset", "run_comparison"]

_HOMES = {
    "Corpus": ("corpus", "Corpus"),
    "RecallTask": ("recall", "Task"),
    "Settings": ("settings", "Settings"),
    "diagram": ("recall", "diagram"),
    "preset": ("settings", "preset"),
    "run_comparison": ("compare", "compare"),  # `compare` is the module
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, inside = _HOMES[name]
    found = globals()[name] = getattr(import_module(f".{module}", __name__), inside)
    return found
