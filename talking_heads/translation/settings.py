"""What decides a translation model; the defaults are a recipe that is known to work on Multi30k."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UserError
from ..training.arms import Arm, parse_arm
from ..training.devices import is_mixed
from .masking import parse

LEAST = {
    "layers": 1,
    "width": 2,
    "feed_forward": 1,
    "tokens": 1,
    "updates": 1,
    "average": 1,
    "patience": 0,
    "longest": 1,
}
LEAST_VOCABULARY = 3 + 256  # padding, end, unknown, and every byte


@dataclass(frozen=True)
class Settings:
    """Everything that decides a model but for its text and the machine.

    Args:
        arm: see `training.arms`; width, feed_forward and rate of an arm go before those here.
        head_mask: "random:6", "importance:6" or "importance:6:previous", see `heads.HeadMask`; empty: none.
        vocabulary: the most pieces of the joint byte-level BPE; a small text gives fewer.
        warmup: updates until the peak rate; None: 2,000, or a quarter of all updates where that is less.
        tokens: target tokens in an update, padding counted.
        every: updates between two times that weights are kept; None: 200, or a twentieth of all updates where that is
            less. average: how many of the last weights kept are averaged.
        patience: validations without a better BLEU after which training ends; 0: never.
        longest: pieces of a sentence; longer pairs are dropped.
        dtype: float32, or bfloat16 for mixed precision; None: mixed where a GPU has it.
    """

    arm: str = "multi-head:4"
    head_mask: str = ""
    seed: int = 0
    layers: int = 4
    width: int = 128
    feed_forward: int = 256
    vocabulary: int = 10_000
    dropout: float = 0.3
    smoothing: float = 0.1
    rate: float = 0.005
    warmup: int | None = None
    tokens: int = 8000
    updates: int = 8000
    every: int | None = None
    average: int = 10
    patience: int = 10
    longest: int = 256
    dtype: str | None = None

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise UserError(
                    f"--{name.replace('_', '-')} must be at least {least}", getattr(self, name), "give more"
                )
        for name in ("dropout", "smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f"--{name} must be from 0 to below 1", getattr(self, name), "give for example 0.1"
                )
        if not 0 < self.rate < math.inf:
            raise UserError("--rate must be a positive number", self.rate, "give one, as 5e-3")
        for name, least in (("warmup", 0), ("every", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name} must be at least {least}", value, "give more")
        if not 0 <= self.seed < 2**32:
            raise UserError("--seed must be from 0 to 2^32 - 1", self.seed, "give another")
        if self.vocabulary < LEAST_VOCABULARY:
            raise UserError(
                f"--vocabulary must be at least {LEAST_VOCABULARY}, which is bytes",
                self.vocabulary,
                "give more",
            )
        arm = self.parsed
        if arm.kind == "none":
            raise UserError(
                "an arm of translation must have attention", repr(self.arm), "name another, as multi-head:4"
            )
        if self.model_width % arm.heads or self.model_width % 2:
            raise UserError(
                "the width must be even and a multiple of the arm's heads",
                f"width {self.model_width} for {arm.name}",
                "choose other heads or another --width",
            )

        total = 3 * self.layers * arm.heads
        if self.head_mask and parse(self.head_mask)[1] > total:
            raise UserError(
                f"--head-mask must mask at most the {total} heads that there are",
                self.head_mask,
                "mask fewer",
            )

    @property
    def parsed(self) -> Arm:
        return parse_arm(self.arm)

    @property
    def model_width(self) -> int:
        return self.parsed.width or self.width

    @property
    def peak_rate(self) -> float:
        return self.parsed.rate or self.rate

    @property
    def warmup_updates(self) -> int:
        return min(2000, self.updates // 4) if self.warmup is None else self.warmup

    @property
    def keep_every(self) -> int:
        """Updates between checkpoints."""
        return max(1, min(200, self.updates // 20)) if self.every is None else self.every

    @property
    def validate_every(self) -> int:
        """Updates between validations: every second checkpoint."""
        return 2 * self.keep_every

    @property
    def identity(self) -> dict[str, Any]:
        """What a run that goes on must share; more updates, or an earlier end, are the same run."""
        found = asdict(self) | {
            "arm": self.parsed.name,
            "warmup": self.warmup_updates,
            "every": self.keep_every,
            "dtype": "bfloat16" if is_mixed() else "float32",
        }
        return {name: x for name, x in found.items() if name not in ("updates", "patience")}
