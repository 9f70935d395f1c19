"""How several heads, and maps across them, change the identity: each law of docs/dynamics.md against training."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from .bags import PAPER, TopicData, Topics
from .identity import LEAST_SCORE, closed_norm, path_scores, relative_error, summed_norm
from .model import Setup, WordAttention
from .runs import Job, Progress, Results, claim, complete, finish, plain, silent
from .train import evenly, judge, thin, train

LAWS = {
    "score": "each head: norm of its embedding from its score",
    "logit": "each softmax head: norm of its embedding from its logit",
    "mixed": "each value head: norm of its embedding from its mixed weight",
    "sum": "all heads together: norm of the whole embedding from the logits",
    "path": "each key head: score from the history of all norms, weights and maps",
}


@dataclass(frozen=True)
class Arm:
    """Maps (how each starts; "" for none), whether they are trained, and the laws that should hold."""

    logits_mix: str = ""
    weights_mix: str = ""
    trained: bool = False
    kept: tuple[str, ...] = ("path",)


ARMS = {
    "multi-head": Arm(kept=tuple(LAWS)),
    "weights map, random, frozen": Arm(weights_mix="random", kept=("sum", "path")),
    "weights map, trained": Arm(weights_mix="identity", trained=True, kept=("sum", "path")),
    "logits map, orthogonal, frozen": Arm(logits_mix="orthogonal", kept=("logit", "mixed", "sum", "path")),
    "logits map, random, frozen": Arm(logits_mix="random"),
    "logits map, trained": Arm(logits_mix="identity", trained=True),
    "both maps, trained": Arm("identity", "identity", True),
    "both maps, random, trained": Arm("random", "random", True),
}


@dataclass(frozen=True)
class Mixing:
    """Settings: every arm is run with each classifier and seed (of data and start)."""

    heads: int = 4
    classifiers: tuple[str, ...] = ("fixed",)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    epochs: int = 2000
    rate: float = 0.1
    data: TopicData = PAPER

    def setup(self, arm: Arm, classifier: str, seed: int) -> Setup:
        return Setup(
            classifier=classifier,
            seed=seed,
            start=3 + seed,
            epochs=self.epochs,
            rate=self.rate,
            heads=self.heads,
            logits_mix=arm.logits_mix,
            weights_mix=arm.weights_mix,
            frozen=("query",) if arm.trained else ("query", "maps"),
        )


def run(settings: Mixing, out: Path, progress: Progress = silent) -> Results:
    """Run what `out` does not have yet; write results.json there and return its content.

    {"kind": "mixing", "settings", "laws" {name: words}, "runs": one entry an arm, classifier and seed: {"arm",
    "classifier", "seed", "m", "scales" [heads], "epoch", "loss", "test_accuracy" [points], "errors" {law:
    {"kept": what theory says, "largest", "median", "judged": share of the points that the law says
    something of}}, "score", "logit", "embedding_norm" [points][topic words][heads] (first seed), "logits_mix",
    "weights_mix" (at the end), "seconds"}}.
    """
    claim(out, {"kind": "mixing", **asdict(settings)})
    jobs: dict[str, Job] = {}
    for seed in settings.seeds:
        for classifier in settings.classifiers:
            for name, arm in ARMS.items():
                setup = settings.setup(arm, classifier, seed)
                file = f"{classifier}-{name.replace(', ', '-').replace(' ', '-')}-{seed}"
                jobs[file] = partial(_job, setup, settings, name)
    found = list(complete(out, jobs, progress).values())
    return finish(out, {"kind": "mixing", "settings": asdict(settings), "laws": LAWS, "runs": found})


def _job(
    setup: Setup, settings: Mixing, arm: str, kept: Path, progress: Callable[[int, int], None]
) -> Results:
    data = settings.data.draw(setup.seed)
    model = WordAttention(setup, data.train.counts.shape[1], settings.data.topics)
    at = evenly(setup.epochs, 400)  # the path is summed over these points
    course = train(model, data.train, partial(_measure, data), at, kept=kept, progress=progress)
    entry = {
        "arm": arm,
        "classifier": setup.classifier,
        "seed": setup.seed,
        "m": data.others,
        "scales": plain(scales(course, model.query.detach().norm(dim=1))),
        **{name: plain(thin(course[name], 8)) for name in ("epoch", "loss", "test_accuracy")},
        "final": {name: plain(course[name][-1]) for name in ("loss", "test_accuracy")},
        "errors": law_errors(course, data.others, model.query.detach().norm(dim=1), ARMS[arm].kept),
        **{name: plain(course[name][-1]) for name in ("logits_mix", "weights_mix")},
        "seconds": plain(course["seconds"][-1], 4),
    }
    if setup.seed == settings.seeds[0]:
        course["embedding_norm"] = course["square"].sqrt()
        entry |= {name: plain(thin(course[name], 8), 4) for name in ("score", "logit", "embedding_norm")}
    return entry


def _measure(data: Topics, model: WordAttention) -> dict[str, Tensor | float]:
    words = slice(data.topic_words)
    maps = {
        name: torch.eye(model.setup.heads, dtype=model.query.dtype) if mix is None else mix.clone()
        for name in ("logits_mix", "weights_mix")
        for mix in (getattr(model.mixing, name),)
    }
    return {
        "test_accuracy": judge(model, data.test)[1],
        "score": model.scores()[words],
        "logit": model.logits()[words],
        "square": model.embeddings[words].pow(2).sum(2),
        **maps,
    }


def scales(course: dict[str, Tensor], query_norm: Tensor) -> Tensor:
    """[softmax heads]: what stands for |query| in a logit's law, the root of the diagonal of
    P^T diag(|query|^2) P at the start."""
    return (query_norm[:, None] ** 2 * course["logits_mix"][0] ** 2).sum(0).sqrt()


def law_errors(
    course: dict[str, Tensor], others: int, query_norm: Tensor, kept: tuple[str, ...]
) -> dict[str, Results]:
    """Each law's relative error over topic words and points where the score (logit) it speaks of is over
    LEAST_SCORE."""
    score, logit, square = course["score"], course["logit"], course["square"]
    norm, scale = square.sqrt(), scales(course, query_norm)
    share = torch.einsum("twh,thj->twj", logit.exp() / (logit.exp() + others), course["weights_mix"])
    share = share / course["weights_mix"].sum(1)[:, None]  # of what all words together get
    as_score = (others * share / (1 - share)).where((share > 0) & (share < 1), torch.nan).log()
    whole = square.sum(2).sqrt()
    path = path_scores(square, logit, others, query_norm, course["logits_mix"], course["weights_mix"])
    grown = (logit > LEAST_SCORE).any(2)
    found = {
        "score": (norm, closed_norm(score, others, query_norm, 0.0, norm[0]), score > LEAST_SCORE),
        "logit": (norm, closed_norm(logit, others, scale, 0.0, norm[0]), logit > LEAST_SCORE),
        "mixed": (norm, closed_norm(as_score, others, scale, 0.0, norm[0]), as_score > LEAST_SCORE),
        "sum": (whole, summed_norm(logit, others, scale, square), grown),
        "path": (score, path, score.abs() > LEAST_SCORE),
    }
    return {law: _error(*parts) | {"kept": law in kept} for law, parts in found.items()}


def _error(measured: Tensor, theory: Tensor, where: Tensor) -> Results:
    error = relative_error(measured, theory, where)[where]
    if not len(error):
        return {"largest": None, "median": None, "judged": 0.0}
    return {
        "largest": plain(error.max()),
        "median": plain(error.median()),
        "judged": plain(where.double().mean(), 3),
    }
