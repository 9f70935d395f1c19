"""Seconds of the paper's 5,000-epoch run: sentences as sparse bags, and the plain padded form.

    python benchmarks/dynamics.py --json docs/results/dynamics/speed.json

Both train the same model from the same start on the same data; their final losses are compared.
"""

import argparse
import time
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from talking_heads.dynamics.bags import PAPER, Topics
from talking_heads.dynamics.model import CLASSIFIERS, Setup, WordAttention
from talking_heads.dynamics.train import train
from talking_heads.results.files import write_json
from talking_heads.results.provenance import provenance


def bags_seconds(setup: Setup, data: Topics) -> tuple[float, float]:
    """(seconds, final loss)"""
    model = WordAttention(setup, data.train.counts.shape[1], PAPER.topics)
    begun = time.perf_counter()
    course = train(model, data.train, lambda model: {}, [setup.epochs])
    return time.perf_counter() - begun, float(course["loss"][-1])


def plain_seconds(setup: Setup, data: Topics) -> tuple[float, float]:
    """The same by gathering each sentence's keys and embeddings: [sentences, words, size] arrays."""
    model = WordAttention(setup, data.train.counts.shape[1], PAPER.topics)
    rows = data.train.counts
    lengths = rows.values().long()
    words = torch.repeat_interleave(rows.col_indices(), lengths).view(rows.shape[0], -1)
    optimizer = torch.optim.SGD([x for x in model.parameters() if x.requires_grad], lr=setup.rate)
    begun = time.perf_counter()
    for epoch in range(setup.epochs + 1):
        weights = (model.keys[words][:, :, 0] @ model.query[0]).softmax(1)
        context = torch.einsum("sw,swv->sv", weights, model.embeddings[words][:, :, 0])
        loss = cross_entropy(model.classifier(context), data.train.labels)
        if epoch < setup.epochs:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - begun, loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=5000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    data = PAPER.draw(0)
    rows = []
    for form, seconds in (("bags", bags_seconds), ("plain", plain_seconds)):
        for classifier in CLASSIFIERS if form == "bags" else CLASSIFIERS[:1]:
            taken, loss = seconds(Setup(classifier, epochs=asked.epochs), data)
            rows.append({"form": form, "classifier": classifier, "seconds": taken, "loss": loss})
            print(
                f"{form}, {classifier}: {asked.epochs:,} epochs in {taken:.1f} s, loss {loss:.6f}", flush=True
            )
    if asked.json:
        write_json(asked.json, {"epochs": asked.epochs, "rows": rows, **provenance()})


if __name__ == "__main__":
    main()
