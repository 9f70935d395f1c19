"""The models whose training is observed: attention of a learned query over a bag of words, then a classifier.

The paper's model has one head. Here each word has a key for each key head and an embedding for each value head, and
heads may be mixed: the operator's equation with one query position, scale 1, and a memory of
words (talking_heads.talking_heads_attention computes the same from padded arrays).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..nn import HeadMixing
from .bags import Bags

CLASSIFIERS = ("fixed", "trainable", "two-layer")


@dataclass(frozen=True)
class Setup:
    """One model and how it is trained; the defaults are the paper's.

    classifier: "fixed" (Attn-FC), "trainable" (linear without bias, Attn-TC) or "two-layer" (10 hidden ReLU
        units, Attn-TL).
    fixed_start: how the fixed classifier is drawn: "normal" (unit normal entries, diagonal set to 1, as in the
        authors' code) or "uniform" (as the trainable one: torch's Linear, within 1/sqrt(size)).
    frozen: which of query, keys, embeddings, maps are not trained.
    heads: the number of heads. logits_mix, weights_mix: how a map starts ("identity", "random", "orthogonal"), "" for
        no map.
    """

    classifier: str = "fixed"
    seed: int = 0  # of the data
    start: int = 3  # seed of the draws that training starts from; the authors' code sets 3
    epochs: int = 5000
    rate: float = 0.1
    frozen: tuple[str, ...] = ("query",)
    query_std: float = 0.3
    key_std: float = 0.0
    embedding_std: float = 1e-6
    key_size: int = 10
    embedding_size: int = 10
    fixed_start: str = "normal"
    heads: int = 1
    logits_mix: str = ""
    weights_mix: str = ""


class WordAttention(nn.Module):
    """query [heads, key_size], keys [words, heads, key_size], embeddings [words, heads, embedding_size], maps.

    `setup.start` seeds every draw, in the authors' order and number (their modules first draw torch's default
    initialisation), so that one head with start 3 has their query, embeddings and classifier.
    """

    def __init__(self, setup: Setup, words: int, classes: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.setup = setup
        heads, size = setup.heads, setup.embedding_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(setup.start)
            embeddings = _drawn(words, heads * size, setup.embedding_std)
            query = _drawn(heads, setup.key_size, setup.query_std)
            self.classifier = _classifier(setup, heads * size, classes).to(dtype)
            self.mixing = _mixing(setup, query).to(dtype)
            keys = torch.randn(words, heads, setup.key_size) * setup.key_std
        self.query = nn.Parameter(query.to(dtype))
        self.keys = nn.Parameter(keys.to(dtype))
        self.embeddings = nn.Parameter(embeddings.view(words, heads, size).to(dtype))
        parts = {"query": [self.query], "keys": [self.keys], "embeddings": [self.embeddings]}
        for name in setup.frozen:
            for parameter in {**parts, "maps": self.mixing.parameters()}[name]:
                parameter.requires_grad_(False)

    def scores(self) -> Tensor:
        """[words, key heads]: key times query."""
        return torch.einsum("wik,ik->wi", self.keys, self.query)

    def logits(self) -> Tensor:
        """[words, softmax heads]: scores after logits_mix."""
        scores, mix = self.scores(), self.mixing.logits_mix
        return scores if mix is None else scores @ mix

    def contexts(self, sentences: Bags) -> Tensor:
        """[sentences, value heads, embedding_size]: embeddings weighted by the (mixed) attention weights."""
        weights, values = _exp(self.logits()), self.embeddings
        mix = self.mixing.weights_mix
        if mix is None:  # each value head has its own softmax head
            products = weights[:, :, None] * values
        else:
            products = weights[:, :, None, None] * values[:, None]
        # One sparse product for the softmax's numerators and denominators together: it is what a step costs.
        sums = sentences.sum(torch.cat([weights, products.flatten(1)], 1))
        total, parts = sums.split([weights.shape[1], products[0].numel()], 1)
        parts = parts.unflatten(1, products.shape[1:])
        if mix is None:
            return parts / total[:, :, None]
        return torch.einsum("shjv,hj->sjv", parts / total[:, :, None, None], mix)

    def forward(self, sentences: Bags) -> Tensor:
        """[sentences, classes]: the classifier's logits."""
        return self.classifier(self.contexts(sentences).flatten(1))

    @torch.no_grad()
    def attention(self, sentences: Bags) -> Tensor:
        """[words, softmax heads]: a word's mean attention weight over its occurrences; 0 without any."""
        weights = _exp(self.logits())
        places = sentences.word_sums(torch.ones_like(sentences.labels, dtype=weights.dtype)[:, None])
        return weights * sentences.word_sums(1 / sentences.sum(weights)) / places.clamp(min=1)


def _exp(logits: Tensor) -> Tensor:
    """exp(logits), scaled so that each head's largest is 1: the terms of a softmax over any subset."""
    return (logits - logits.detach().amax(0)).exp()


def _classifier(setup: Setup, width: int, classes: int) -> nn.Module:
    if setup.classifier == "two-layer":
        return nn.Sequential(nn.Linear(width, 10), nn.ReLU(), nn.Linear(10, classes))
    if setup.classifier == "trainable":
        return nn.Linear(width, classes, bias=False)
    linear = nn.utils.skip_init(nn.Linear, width, classes, bias=False)  # draws nothing
    if setup.fixed_start == "normal":
        linear.weight.data.copy_(torch.randn(width, classes).fill_diagonal_(1).T)
    else:
        linear.reset_parameters()
    return linear.requires_grad_(False)


def _drawn(rows: int, columns: int, std: float) -> Tensor:
    """Normal numbers, drawn as in the authors' modules: once by torch's default, then again with `std`."""
    return torch.randn(rows, columns).normal_(0, std)


def _mixing(setup: Setup, query: Tensor) -> HeadMixing:
    mixing = HeadMixing(setup.heads, logits_mix=bool(setup.logits_mix), weights_mix=bool(setup.weights_mix))
    for name in ("logits_mix", "weights_mix"):
        start, mix = getattr(setup, name), getattr(mixing, name)
        if start == "random":
            nn.init.normal_(mix, std=setup.heads**-0.5)
        elif start == "orthogonal":
            nn.init.orthogonal_(mix)
            if name == "logits_mix":  # P^T diag|q|^2 P a multiple of the identity: see docs/dynamics.md
                norms = query.norm(dim=1, keepdim=True)
                mix.data *= norms.pow(2).mean().sqrt() / norms
    return mixing
