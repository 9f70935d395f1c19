"""A training step of a BERT-base-shaped encoder: multi-head attention and talking heads, in turns.

    python benchmarks/encoder_step.py --json benchmarks/results/encoder_step.json

transformers' BertModel (12 layers, 12 heads of 64, width 768) with random weights, batch 4 x 512 tokens, float32, no
dropout: forward, backward of the mean, no optimizer. The same model as it is (scaled_dot_product_attention) and
converted (both maps); the medians of alternating steps.
"""

import copy
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer

from talking_heads.hf import convert
from talking_heads.results.files import write_json
from talking_heads.results.provenance import provenance


def main(
    json: Annotated[Path | None, typer.Option(help="file for the results")] = None,
    rounds: Annotated[int, typer.Option(help="steps of each")] = 7,
    layers: Annotated[int, typer.Option(help="of the encoder")] = 12,
    batch: Annotated[int, typer.Option(help="sequences")] = 4,
    length: Annotated[int, typer.Option(help="tokens of each")] = 512,
) -> None:
    """Milliseconds of a step and the ratio."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        num_hidden_layers=layers, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    model = transformers.BertModel(config).train()
    models = {"multi-head": model, "talking heads": copy.deepcopy(model)}
    convert(models["talking heads"])
    ids = torch.randint(config.vocab_size, (batch, length))
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + 1):
        for name, model in models.items():
            seconds = step(model, ids)
            if turn:
                times[name].append(seconds)
            print(f"{turn}/{rounds} {name} {seconds:.2f} s", flush=True)
    base, ours = (statistics.median(times[name]) for name in models)
    ratios = [b / a for a, b in zip(*times.values(), strict=True)]
    print(f"multi-head {base:.3f} s, talking heads {ours:.3f} s, ratio {ours / base:.3f}")
    print(f"step by step {min(ratios):.3f} to {max(ratios):.3f}, median {statistics.median(ratios):.3f}")
    if json:
        shape = {"layers": layers, "batch": batch, "length": length, "rounds": rounds}
        write_json(json, {**shape, "seconds": times, "ratio": ours / base, **provenance()})


def step(model: Any, ids: torch.Tensor) -> float:
    begun = time.perf_counter()
    model(input_ids=ids).last_hidden_state.mean().backward()
    model.zero_grad()
    return time.perf_counter() - begun


if __name__ == "__main__":
    typer.run(main)
