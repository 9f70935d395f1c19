"""A learning rate for each arm: every arm gets the same rates and seeds, and is judged on validation text alone."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from ..errors import UserError
from ..results import folders
from ..results.files import write_json
from ..results.progress import Progress, silent
from .arms import Arm, parse_arm
from .compare import compare, is_comparison
from .corpus import Corpus
from .gather import PILOT, Results
from .settings import Settings


def choose_rates(
    settings: Settings,
    corpus: Corpus,
    out: Path,
    rates: Sequence[float],
    seeds: Sequence[int],
    *,
    progress: Progress = silent,
    show: Callable[[Results], None] = lambda results: None,
) -> Settings:
    """The settings with each arm at the rate that has the lowest mean validation loss; an arm with a rate keeps it.

    Trains in out/pilot, on text without test parts; writes rates.json, {arm: {"rate", "at_the_edge" (of the rates),
    "losses": {rate: by seed}}}.

    Raises:
        UserError: seeds that the comparison uses too, or the same rate twice.
    """
    both = sorted({*seeds} & {*settings.seeds})
    if both:
        raise UserError("pilot seeds must not be used again", f"{both} in both", "give other --seed")
    if len(set(rates)) < len(rates):
        raise UserError("--rate must be given different values", ", ".join(map(str, rates)), "name each once")
    folders.claim(out, "compare", known=is_comparison(out))
    arms = [parse_arm(arm) for arm in settings.arms]
    tried = {arm.name: {rate: replace(arm, rate=rate) for rate in rates} for arm in arms if arm.rate is None}
    if not tried:
        return settings
    names = tuple(arm.name for by_rate in tried.values() for arm in by_rate.values())
    given = replace(settings, arms=names, seeds=tuple(seeds))
    text = replace(corpus, test=(), other={})
    results = compare(given, text, [], out / PILOT, progress=progress, show=show)
    losses = {arm["name"]: arm["loss"] for arm in results["arms"]}
    found = {name: _best(by_rate, losses) for name, by_rate in tried.items()}
    write_json(out / "rates.json", found)
    best = [replace(arm, rate=arm.rate or found[arm.name]["rate"]).name for arm in arms]
    return replace(settings, arms=tuple(best))


def _best(by_rate: dict[float, Arm], losses: dict[str, list[float]]) -> Results:
    by_rate = dict(sorted(by_rate.items()))
    tried = {rate: losses[arm.name] for rate, arm in by_rate.items()}
    mean = {rate: fmean(x) if all(map(math.isfinite, x)) else math.inf for rate, x in tried.items()}
    rate = min(mean, key=mean.__getitem__)
    return {"rate": rate, "at_the_edge": rate in (min(mean), max(mean)), "losses": tried}
