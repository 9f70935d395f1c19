"""The settings of a comparison, and the presets that one starts from."""

import math
from dataclasses import dataclass
from typing import Any

from ..errors import UserError, one_of
from .arms import parse_arm
from .objectives import find

LEAST = {
    "width": 1,
    "layers": 1,
    "length": 2,
    "batch": 1,
    "steps": 1,
    "judged": 1,
    "evaluations": 1,
    "transfer_examples": 1,
}


@dataclass(frozen=True)
class Settings:
    """Everything that decides a comparison's figures but for the machine."""

    arms: tuple[str, ...] = ("multi-head:8", "talking-heads:8")
    seeds: tuple[int, ...] = (0, 1, 2)
    objective: str = "span-corruption"
    vocabulary: int = 512  # pieces of words: what a short run can learn to complete
    width: int = 128
    layers: int = 3
    feed_forward: int = 512
    length: int = 128  # tokens of a block
    batch: int = 16
    steps: int = 500
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    judged: int = 256  # held-out examples
    evaluations: int = 8  # times the held-out loss is taken along a run
    transfer_examples: int = 1600
    transfer_epochs: int = 2
    transfer_rate: float = 5e-4
    dtype: str = ""  # float32 or bfloat16 (mixed precision); "": bfloat16 on a GPU that has it
    whole_words: bool = False  # masked-lm and sentence-order: all tokens of a word are masked together
    equal_time: bool = False  # steps are the first arm's; others get as many as fit its time

    def __post_init__(self) -> None:
        objective = find(self.objective)
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}", getattr(self, name), "give more")
        for arm in map(parse_arm, self.arms):
            width = arm.width or self.width
            if arm.heads and width % arm.heads and not arm.size:
                raise UserError(
                    "an arm's width must be a multiple of its heads",
                    f"{width} for {arm.name}",
                    "choose other heads",
                )
            objective.check(self, arm)
        if len({parse_arm(arm).name for arm in self.arms}) != len(self.arms):
            raise UserError("arms must differ", ", ".join(self.arms), "name each once")
        for name in ("learning_rate", "transfer_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} must be a positive number", getattr(self, name), "give one, as 3e-3")
        if not self.seeds or not all(0 <= seed < 2**32 for seed in self.seeds):
            raise UserError(
                "there must be a seed or more, from 0 to 2^32 - 1",
                self.seeds or "none",
                "give --seeds 3 --seed 0",
            )

    @property
    def evaluate_every(self) -> int:
        """Steps between two held-out losses (and checkpoints)."""
        return max(1, self.steps // self.evaluations)


PRESETS: dict[str, dict[str, Any]] = {
    # Two cores, minutes: shows that everything runs and learns, not what talking heads are worth.
    # Sizes are the objective's own.
    "demo": {},
    # One GPU, hours.
    "small": {
        "arms": ("multi-head:8", "talking-heads:8", "logits-map:8", "weights-map:8"),
        "vocabulary": 16_384,
        "width": 512,
        "layers": 6,
        "feed_forward": 2048,
        "length": 512,
        "batch": 64,
        "steps": 20_000,
        "learning_rate": 1e-3,
        "judged": 2048,
        "evaluations": 20,
        "transfer_examples": 20_000,
        "transfer_epochs": 3,
        "transfer_rate": 3e-4,
    },
    # The paper's T5-base shape: 12+12 layers, width 768, 512 tokens, batch 128, 65,536 steps.
    "base": {
        "arms": ("multi-head:12", "talking-heads:12"),
        "vocabulary": 32_128,
        "width": 768,
        "layers": 12,
        "feed_forward": 3072,
        "length": 512,
        "batch": 128,
        "steps": 65_536,
        "learning_rate": 1e-3,
        "judged": 4096,
        "evaluations": 32,
        "transfer_examples": 100_000,
        "transfer_epochs": 3,
        "transfer_rate": 3e-4,
    },
}


def preset(name: str, **changes: Any) -> Settings:
    """The preset's settings with `changes` (those that are not None)."""
    if name not in PRESETS:
        raise one_of("a preset", name, PRESETS)
    given = {key: x for key, x in changes.items() if x is not None}
    sizes = find(given.get("objective", Settings.objective)).sizes if name == "demo" else {}
    return Settings(**{**PRESETS[name], **sizes, **given})
