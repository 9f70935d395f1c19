"""What single heads do: their maps, their grammar, their importance. Needs the `analysis` extra for some parts.

Heads are named `part.layer:head`, counted from 0: "encoder.2:5", "cross.0:11".
"""

from typing import TYPE_CHECKING, Any

from ..results.charts import heads_by_layer
from ..results.table import Table
from .constituency import Options as ConstituencyOptions
from .constituency import constituency
from .dependencies import Options as DependencyOptions
from .dependencies import dependencies
from .gates import Gates, gates, mask
from .importance import ablation, draw_importance, head_importance, inequality, single_ablations
from .layers import layers
from .losses import example_losses
from .mixing import draw_maps, draw_movement, mixing
from .models import open_model, random_copy
from .prune import load as load_pruned
from .prune import prune
from .prune import save as save_pruned
from .record import record, recording
from .treebank import read_treebank
from .trees import read_trees
from .view import view
from .view_data import View
from .view_draw import draw
from .view_page import page

if TYPE_CHECKING:
    from .headmask import HeadMask

__all__ = [
    "ConstituencyOptions",
    "DependencyOptions",
    "Gates",
    "HeadMask",
    "Table",
    "View",
    "ablation",
    "constituency",
    "dependencies",
    "draw",
    "draw_importance",
    "draw_maps",
    "draw_movement",
    "example_losses",
    "gates",
    "head_importance",
    "heads_by_layer",
    "inequality",
    "layers",
    "load_pruned",
    "mask",
    "mixing",
    "open_model",
    "page",
    "prune",
    "random_copy",
    "read_treebank",
    "read_trees",
    "record",
    "recording",
    "save_pruned",
    "single_ablations",
    "view",
]


def __getattr__(name: str) -> Any:
    if name == "HeadMask":  # is a callback of transformers, whose import takes seconds
        from .headmask import HeadMask

        return HeadMask
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
