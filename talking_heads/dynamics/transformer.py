"""A real transformer during its training: does the attention that a word gets go with the size of its value?

Reads a folder written by `talking-heads compare --snapshots`: models of several arms and seeds, each saved at several
steps of its pre-training, and the held-out text.
"""

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..anatomy.layers import layers
from ..anatomy.projections import projections
from ..errors import UserError
from ..results.statistics import ranks
from .runs import Job, Progress, Results, claim, complete, finish, plain, silent

LEAST = 10  # occurrences that a word needs in the text measured
RELATIONS = {
    "embedding": "each softmax head's score and the word's input embedding",
    "value": "each softmax head's score and the value vector of the value head of the same number",
    "mixed": "each value head's mixed weight and its own value vector",
    "sum": "the mean score of all heads and the value vectors of all heads together",
}


class Words(NamedTuple):
    """The words in some blocks of tokens.

    place: int64 [blocks, positions], the number of the word that the token belongs to, -1 for none.
    names: the words. occurrences: float [words]. pieces: float [blocks, positions], one over
    the pieces of the word at that position.
    """

    place: Tensor
    names: list[str]
    occurrences: Tensor
    pieces: Tensor

    def mean(self, x: Tensor) -> Tensor:
        """[..., words]: x [blocks, ..., positions], the mean over a word's pieces, then over its occurrences."""
        inside = self.place >= 0
        x = x.movedim(0, -2)[..., inside] * self.pieces[inside]
        total = x.new_zeros(*x.shape[:-1], len(self.names)).index_add_(-1, self.place[inside], x)
        return total / self.occurrences


def run(source: Path, out: Path, *, blocks: int = 256, progress: Progress = silent) -> Results:
    """Measure every saved model; write results.json in `out` and return its content.

    Args:
        source: a folder written by compare. blocks: number of held-out blocks of tokens to measure.

    {"kind": "transformer", "settings" (compare's), "relations" {name: words}, "runs": one entry for each arm and seed:
    {"arm", "seed", "steps", "words" (how many), "score_spread" [steps][layers][heads], "relations" {name:
    {"level", "change": [steps][layers][heads]}}, "scatter"}}. A relation is Spearman's rank correlation over
    words with the word's frequency held fixed (partial); "change" correlates the gains since the first saved
    step, and is None there.
    """
    folders = _runs(source)
    asked = {
        "kind": "transformer",
        "source": json.loads((source / "comparison.json").read_text()),
        "blocks": blocks,
    }
    claim(out, asked)
    jobs: dict[str, Job] = {
        _name(arm, seed, steps): partial(_job, source, steps, arm, seed, blocks)
        for (arm, seed), steps in folders.items()
    }
    found = list(complete(out, jobs, progress).values())
    settings = asked["source"]["settings"]
    return finish(out, {**asked, "settings": settings, "relations": RELATIONS, "runs": found})


def _name(arm: str, seed: int, steps: list[Path]) -> str:
    """Names the steps, too: a run still in training is looked at again when it has more."""
    return f"{arm}-{seed}-{len(steps)}-to-{steps[-1].name}"


def _runs(source: Path) -> dict[tuple[str, int], list[Path]]:
    """{(arm, seed): the folders of its kept models, in order of steps}, of runs that have begun."""
    found: dict[tuple[str, int], list[Path]] = {}
    for folder in sorted(source.glob("runs/*/seed-*/steps")):
        seed = int(folder.parent.name.partition("-")[2])
        steps = sorted(
            (path for path in folder.iterdir() if path.name.isdecimal()), key=lambda path: int(path.name)
        )
        if steps:
            found[folder.parents[1].name, seed] = steps
    if not found or not (source / "comparison.json").exists():
        raise UserError(
            "--transformer must name a folder of models saved during training",
            source,
            "write one with: talking-heads compare --snapshots --out FOLDER",
        )
    return found


def _job(
    source: Path,
    steps: list[Path],
    arm: str,
    seed: int,
    count: int,
    _: Path,
    progress: Callable[[int, int], None],
) -> Results:
    from safetensors.torch import load_file
    from transformers import PreTrainedTokenizerFast

    begun = time.perf_counter()
    tokens = load_file(source / "data" / "blocks.safetensors")["held_out"][:count].long()
    words = find_words(PreTrainedTokenizerFast.from_pretrained(source / "data"), tokens)
    course = []
    for number, path in enumerate(steps):
        course.append(measure(open_model(path), tokens, words))
        progress(number + 1, len(steps))
    frequency = words.occurrences.log()
    relations = {
        name: {
            "level": plain(torch.stack([_relate(x, name, frequency) for x in course]), 4),
            "change": plain(torch.stack([_relate(x, name, frequency, course[0]) for x in course]), 4),
        }
        for name in RELATIONS
    }
    return {
        "arm": arm,
        "seed": seed,
        "steps": [int(path.name) for path in steps],
        "words": len(words.names),
        "score_spread": plain(torch.stack([x["score"].std(-1) for x in course]), 4),
        "relations": relations,
        "scatter": _scatter(course, words, relations["value"]["level"][-1]),
        "seconds": round(time.perf_counter() - begun, 2),
    }


def open_model(path: Path) -> nn.Module:
    """A saved model, converted or not, that can return its attention weights."""
    from .. import hf
    from ..hf.config import is_talking
    from ..hf.source import config_of, quiet
    from ..hf.weights import model_class, read

    with quiet():
        config = config_of(path)
        if is_talking(config):
            return hf.load(path).eval()
        kind = model_class(config, path)
        return read(kind, path, config=config, attn_implementation="eager").eval()


def find_words(tokenizer: Any, tokens: Tensor) -> Words:
    """The words of letters that occur LEAST times or more; one that a block's start cuts is left out.

    A word is a token that begins with the tokenizer's mark of a space, and those after it that do not.
    """
    names = tokenizer.convert_ids_to_tokens(list(range(int(tokens.max()) + 1)))
    spans: dict[str, list[tuple[int, int, int]]] = {}
    for block, row in enumerate(tokens.tolist()):
        begin = None
        for place in range(len(row) + 1):
            ends = place == len(row) or not names[row[place]].isalpha() or names[row[place]][0] in "ĠĊ"
            if ends and begin is not None:
                word = "".join(names[token] for token in row[begin:place]).lstrip("Ġ")
                spans.setdefault(word, []).append((block, begin, place))
                begin = None
            if place < len(row) and names[row[place]][0] == "Ġ" and names[row[place]][1:].isalpha():
                begin = place
    kept = {word: where for word, where in sorted(spans.items()) if len(where) >= LEAST}
    places, pieces = torch.full(tokens.shape, -1), torch.zeros(tokens.shape)
    for number, where in enumerate(kept.values()):
        for block, begin, end in where:
            places[block, begin:end] = number
            pieces[block, begin:end] = 1 / (end - begin)
    if len(kept) < 3:
        raise UserError("the text must have frequent words", f"{len(kept)}", "use more blocks")
    return Words(places, list(kept), torch.tensor([float(len(x)) for x in kept.values()]), pieces)


@torch.no_grad()
def measure(model: Any, tokens: Tensor, words: Words) -> dict[str, Tensor]:
    """What each word gets and gives in each self-attention layer of the encoder, averaged over where it stands.

    Returns:
        "score" [layers, heads, words]: log attention weight that it gets, less the mean over its row: a logit
            but for what all words of a row share. "mixed" [layers, value heads, words]: mixed weight after
            weights_mix, relative to even attention (1); "value" [layers, value heads, words]: norm of its value
            vector. "embedding" [words]: norm of its input embedding.
    """
    parts = [_batch(model, part) for part in tokens.split(16)]
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return {name: words.mean(x) for name, x in whole.items()}


def _batch(model: Any, tokens: Tensor) -> dict[str, Tensor]:
    """{"score", "mixed", "value": [blocks, layers, heads, positions], "embedding": [blocks, positions]}"""
    body = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    layers = list(_layers(body))
    values: list[Tensor] = []
    hooks = [
        value.register_forward_hook(lambda module, inputs, output: values.append(output))
        for _, value, _ in layers
    ]
    try:
        weights = body(input_ids=tokens, output_attentions=True).attentions
    finally:
        for hook in hooks:
            hook.remove()
    score, mixed, norms = [], [], []
    for (module, _, heads), weight, value in zip(layers, weights, values, strict=True):
        logs = weight.clamp(min=1e-30).log()
        score.append((logs - logs.mean(-1, keepdim=True)).mean(2))
        mixing = getattr(module, "head_mixing", None)
        mix = None if mixing is None else mixing.weights_mix
        share = weight.mean(2) * weight.shape[-1]
        if mix is not None:
            share = torch.einsum("bhm,hj->bjm", share, mix) / mix.sum(0)[:, None]
        mixed.append(share)
        norms.append(value.unflatten(-1, (heads, -1)).norm(dim=-1).transpose(1, 2))
    embedding = model.get_input_embeddings()(tokens).norm(dim=-1)
    found = {name: torch.stack(x, 1) for name, x in (("score", score), ("mixed", mixed), ("value", norms))}
    return {**found, "embedding": embedding}


def _layers(body: nn.Module) -> Iterator[tuple[nn.Module, nn.Module, int]]:
    """(attention layer, its value projection, its heads) in order."""
    for layer in layers(body):
        value = projections(body, layer.name, layer.output_heads).value
        if value is None or value.heads * value.size != value.module.out_features:
            raise UserError("attention must have a value projection", layer.name, "use T5 or BERT")
        yield layer.module, value.module, layer.output_heads


def _relate(
    x: dict[str, Tensor], name: str, frequency: Tensor, since: dict[str, Tensor] | None = None
) -> Tensor:
    """[layers, heads]: the relation's partial rank correlation; "sum" has one head."""
    pairs = {
        "embedding": lambda x: (x["score"], x["embedding"].expand_as(x["score"])),
        "value": lambda x: (x["score"], x["value"]),
        "mixed": lambda x: (x["mixed"], x["value"]),
        "sum": lambda x: (x["score"].mean(1, keepdim=True), x["value"].pow(2).sum(1, keepdim=True).sqrt()),
    }
    first, second = pairs[name](x)
    if since is not None:
        start = pairs[name](since)
        first, second = first - start[0], second - start[1]
    return partial_correlation(first, second, frequency)


def partial_correlation(x: Tensor, y: Tensor, fixed: Tensor) -> Tensor:
    """[...]: Spearman's correlation over the last axis of x and y [..., words], given `fixed` [words]."""
    a, b, c = (torch.from_numpy(ranks(part)) for part in (x, y, fixed.expand_as(x)))
    ab, ac, bc = (_cosine(p, q) for p, q in ((a, b), (a, c), (b, c)))
    return (ab - ac * bc) / ((1 - ac**2) * (1 - bc**2)).sqrt()


def _cosine(x: Tensor, y: Tensor) -> Tensor:
    x, y = (part - part.mean(-1, keepdim=True) for part in (x, y))
    return (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))


def _scatter(course: list[dict[str, Tensor]], words: Words, last: list[list[float]]) -> Results:
    """The first layer's head whose score and value norm go together most at the end: both at start and end."""
    head = max(range(len(last[0])), key=lambda h: abs(last[0][h]))
    most = words.occurrences.topk(min(200, len(words.names))).indices
    return {
        "head": head,
        "words": [words.names[word] for word in most],
        "count": plain(words.occurrences[most]),
        **{
            when: {name: plain(x[name][0, head, most], 4) for name in ("score", "value")}
            | {"embedding": plain(x["embedding"][most], 4)}
            for when, x in (("start", course[0]), ("end", course[-1]))
        },
    }
