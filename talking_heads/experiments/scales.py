"""How large an experiment is: the settings of each objective's models at each scale."""

from collections.abc import Sequence
from typing import Any

from ..errors import UserError
from ..training.settings import Settings, preset
from .tables import SCALES, Experiment

PAPER_STEPS = 524_288
# 568 tokens are 512 for the encoder and 114 for the decoder once 85 of them are hidden in 28 spans.
_T5_LENGTH = 568
_TINY = {"span-corruption": {"steps": 1600}, "masked-lm": {"steps": 1600}, "sentence-order": {"steps": 1600}}


def settings_of(experiment: Experiment, scale: str, seeds: Sequence[int], **changes: Any) -> Settings:
    """The experiment's settings at a scale, with `changes` (those that are not None).

    tiny: two cores, hours for a whole experiment; it shows that everything runs and learns. small: one GPU, days. base:
    the paper's shape (T5: 12+12 layers, width 768, 524,288 steps of 128 x 512 tokens), for a cluster.

    Raises:
        UserError: no such scale, settings that do not fit.
    """
    if scale not in SCALES:
        raise UserError(f"a scale must be one of {', '.join(SCALES)}", repr(scale), "name one of them")
    given = {name: x for name, x in changes.items() if x is not None}
    arms = given.pop("arms", None) or experiment.arms_at(scale)
    sizes: dict[str, Any] = {}
    if scale == "tiny":
        sizes = dict(_TINY.get(experiment.objective, {}))
    elif scale == "base":
        sizes = {"steps": PAPER_STEPS}
        if experiment.objective == "span-corruption":
            sizes["length"] = _T5_LENGTH
    return preset(
        "demo" if scale == "tiny" else scale,
        objective=experiment.objective,
        arms=tuple(arms),
        seeds=tuple(seeds),
        **(sizes | given),
    )
