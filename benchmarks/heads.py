"""Time and memory of scoring heads: MAX and MST, and constituency, the model's own forward apart.

    python benchmarks/heads.py MODEL TREEBANK.conllu[.gz] [--words 21] [--sentences 1000] [--json FILE]

Uses only sentences of exactly this length, repeated if there are too few. Memory is the process's peak above
what it had with the model loaded and one sentence through it.
"""

import argparse
import itertools
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch

from talking_heads.heads import open_model, read_treebank, record
from talking_heads.heads.constituency import Options as Phrases
from talking_heads.heads.constituency import distances
from talking_heads.heads.dependencies import Gold, Options
from talking_heads.heads.record import map_names
from talking_heads.heads.trees import GoldSpans, Tree
from talking_heads.results.files import write_json
from talking_heads.results.provenance import provenance


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("treebank", type=Path)
    parser.add_argument("--words", type=int, default=21)
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model, tokenizer = open_model(options.model)
    found = [s for s in read_treebank(options.treebank) if len(s.words) == options.words]
    sentences = list(itertools.islice(itertools.cycle(found), options.sentences))
    gold = Gold(sentences, Options())
    spans = [GoldSpans(Tree(s.words, [(0, 1, "NP"), (2, 5, "VP")], s.line)) for s in sentences]
    words = [s.words for s in sentences]
    list(record(model, tokenizer, words[:1]))
    start_memory, start = peak(), time.perf_counter()
    scores = gold.scores(map_names(model))
    seconds = {"max and mst": 0.0, "constituency": 0.0}
    done = 0
    for number, maps in record(model, tokenizer, words):
        begun = time.perf_counter()
        gold.count(scores, number, maps)
        between = time.perf_counter()
        spans[number].judge(distances(maps, Phrases()))
        seconds["max and mst"] += between - begun
        seconds["constituency"] += time.perf_counter() - between
        done += 1
    whole = time.perf_counter() - start
    result = {
        "model": options.model,
        "heads": len(scores.columns),
        "sentences": done,
        "distinct": len(found),
        "words": options.words,
        "seconds": seconds | {"forward and recording": whole - sum(seconds.values())},
        "peak_above_model_mib": round((peak() - start_memory) / 2**20),
        "threads": torch.get_num_threads(),
        "best": float(np.nanmax(scores.value()[-1])),
        **provenance(),
    }
    if options.json:
        write_json(options.json, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
