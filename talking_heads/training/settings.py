"""The settings of a comparison, and the presets that one starts from."""

import math
from dataclasses import dataclass, replace
from typing import Any

from ..errors import UserError
from .tokens import LEAST_VOCABULARY

LEAST = {
    "vocabulary": LEAST_VOCABULARY,
    "width": 1,
    "layers": 1,
    "length": 2,
    "batch": 1,
    "steps": 1,
    "judged": 1,
    "evaluations": 1,
    "transfer_examples": 1,
}
FORM = "KIND:HEADS[:random][:fused][:width=N][:ff=N]"
KINDS = ("multi-head", "talking-heads", "logits-map", "weights-map")


@dataclass(frozen=True)
class Arm:
    """One architecture: which maps, how many heads, how the maps start."""

    kind: str
    heads: int
    init: str = "identity"
    width: int | None = None  # None: the comparison's
    feed_forward: int | None = None  # None: the comparison's
    fused: bool = False  # multi-head attention computed as talking heads are, by this package's operator

    @property
    def name(self) -> str:
        parts = [self.kind, str(self.heads)]
        parts += [self.init] if self.kind != "multi-head" and self.init != "identity" else []
        parts += ["fused"] if self.fused else []
        parts += [
            f"{key}={value}" for key, value in (("width", self.width), ("ff", self.feed_forward)) if value
        ]
        return ":".join(parts)

    @property
    def is_plain(self) -> bool:
        """As transformers makes and runs it."""
        return self.kind == "multi-head" and not self.fused

    @property
    def folder(self) -> str:
        """The name as a folder's."""
        return self.name.replace(":", "-").replace("=", "-")

    @property
    def maps(self) -> dict[str, bool]:
        return {
            "logits_mix": self.kind in ("talking-heads", "logits-map"),
            "weights_mix": self.kind in ("talking-heads", "weights-map"),
        }


def parse_arm(text: str) -> Arm:
    """FORM, for example talking-heads:16 or multi-head:8:width=144."""
    kind, *rest = text.split(":")
    heads = rest[0] if rest else ""
    arm = Arm(kind, _number(heads))
    for extra in rest[1:]:
        if extra in ("identity", "random"):
            arm = replace(arm, init=extra)
        elif extra == "fused" and kind == "multi-head":
            arm = replace(arm, fused=True)
        elif extra.startswith("width=") and _number(extra[6:]):
            arm = replace(arm, width=_number(extra[6:]))
        elif extra.startswith("ff=") and _number(extra[3:]):
            arm = replace(arm, feed_forward=_number(extra[3:]))
        else:
            arm = replace(arm, heads=0)
    if kind not in KINDS or arm.heads < 1:
        raise UserError(
            f"an arm must be {FORM} with KIND one of {', '.join(KINDS)} (fused: multi-head only)",
            repr(text),
            "write for example talking-heads:8",
        )
    return arm


def _number(text: str) -> int:
    """0 where it is none."""
    return int(text) if text.isdecimal() else 0


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

    def __post_init__(self) -> None:
        if self.objective not in ("span-corruption", "masked-lm"):
            raise UserError(
                "an objective must be span-corruption or masked-lm", repr(self.objective), "name one"
            )
        for arm in map(parse_arm, self.arms):
            width = arm.width or self.width
            if width % arm.heads:
                raise UserError(
                    "an arm's width must be a multiple of its heads",
                    f"{width} for {arm.name}",
                    "choose other heads",
                )
        if len({parse_arm(arm).name for arm in self.arms}) != len(self.arms):
            raise UserError("arms must differ", ", ".join(self.arms), "name each once")
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}", getattr(self, name), "give more")
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
        raise UserError(f"a preset must be one of {', '.join(PRESETS)}", repr(name), "name one of them")
    return Settings(**{**PRESETS[name], **{key: x for key, x in changes.items() if x is not None}})
