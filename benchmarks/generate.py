"""What a token costs in generation: transformers models as they are and converted, in turns.

    python benchmarks/generate.py run --json docs/results/convert/generate.json
    python benchmarks/generate.py table docs/results/convert/generate.json

Models of the usual base sizes with random weights; greedy, one sequence, float32. A token's time is that of
`generate` with many new tokens less that with few, over the difference, so that what comes before the first
token cancels; the two models take turns, the medians are compared.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer

from talking_heads.hf import convert, mixings
from talking_heads.results.files import write_json
from talking_heads.results.provenance import provenance

app = typer.Typer()
_IDS = {"bos_token_id": 0, "eos_token_id": None, "pad_token_id": 1}


def gpt2() -> Any:
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**_IDS))


def llama() -> Any:
    config = transformers.LlamaConfig(
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=12,
        num_attention_heads=16,
        num_key_value_heads=4,
        **_IDS,
    )
    return transformers.LlamaForCausalLM(config)


def t5() -> Any:
    config = transformers.T5Config(
        d_model=768, d_ff=3072, num_layers=12, num_heads=12, decoder_start_token_id=0, **_IDS
    )
    return transformers.T5ForConditionalGeneration(config)


def bart() -> Any:
    size = {
        "d_model": 768,
        "encoder_layers": 6,
        "decoder_layers": 6,
        "encoder_ffn_dim": 3072,
        "decoder_ffn_dim": 3072,
    }
    heads = {"encoder_attention_heads": 12, "decoder_attention_heads": 12}
    config = transformers.BartConfig(
        **size, **heads, **_IDS, decoder_start_token_id=2, forced_eos_token_id=None
    )
    return transformers.BartForConditionalGeneration(config)


MODELS = {
    "GPT-2, 12 layers, 12 heads, 768 wide": gpt2,
    "Llama, 12 layers, 16 heads on 4 keys, 1024 wide": llama,
    "T5, 12+12 layers, 12 heads, 768 wide": t5,
    "BART, 6+6 layers, 12 heads, 768 wide": bart,
}


def taken(model: Any, ids: torch.Tensor, new: int) -> float:
    begun = time.perf_counter()
    model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, do_sample=False
    )
    return time.perf_counter() - begun


def token_seconds(model: Any, ids: torch.Tensor, few: int, many: int) -> float:
    return (taken(model, ids, many) - taken(model, ids, few)) / (many - few)


@app.command()
def run(
    json_out: Annotated[Path | None, typer.Option("--json")] = None,
    model: Annotated[list[str] | None, typer.Option(help="a word of the model's name; default: all")] = None,
    prompt: int = 128,
    few: int = 2,
    many: int = 18,
    rounds: int = 7,
) -> None:
    """Measures and prints the table."""
    transformers.utils.logging.set_verbosity_error()
    found: dict[str, Any] = {}
    for name, build in MODELS.items():
        if model and not any(word.lower() in name.lower() for word in model):
            continue
        arms = {}
        for arm in ("as it is", "converted"):
            transformers.set_seed(0)
            arms[arm] = build().eval()
        convert(arms["converted"])
        with torch.no_grad():
            for mixing in mixings(arms["converted"]).values():
                for parameter in mixing.parameters():
                    parameter.add_(torch.randn_like(parameter) * 0.01)
        ids = torch.randint(3, 1000, (1, prompt))
        times: dict[str, list[float]] = {arm: [] for arm in arms}
        for turn in range(rounds + 1):
            for arm, one in arms.items():
                seconds = token_seconds(one, ids, few, many)
                if turn:  # the first warms up
                    times[arm].append(seconds)
        found[name] = times
        print(name, {arm: f"{statistics.median(x) * 1000:.1f} ms" for arm, x in times.items()}, flush=True)
    options = {
        "prompt": prompt,
        "few": few,
        "many": many,
        "rounds": rounds,
        "threads": torch.get_num_threads(),
    }
    result = {"token_seconds": found, "options": options, "provenance": provenance()}
    if json_out is not None:
        write_json(json_out, result)
    show(result)


@app.command()
def table(path: Path) -> None:
    """Prints the table of a result."""
    show(json.loads(path.read_text()))


def show(result: dict[str, Any]) -> None:
    machine = result["provenance"]["machine"]["processor"]
    print(f"{machine}, {result['options']}, torch {result['provenance']['versions']['torch']}")
    print(
        "| model | tokens a second | converted | a token's time, ratio of medians | of pairs: least to most |"
    )
    print("|---|---:|---:|---:|---:|")
    for name, times in result["token_seconds"].items():
        before, after = times["as it is"], times["converted"]
        ratio = statistics.median(after) / statistics.median(before)
        pairs = sorted(b / a for a, b in zip(before, after, strict=True))
        cells = [f"{1 / statistics.median(x):.1f}" for x in (before, after)]
        print(f"| {name} | {' | '.join(cells)} | {ratio:.3f} | {pairs[0]:.2f} to {pairs[-1]:.2f} |")


if __name__ == "__main__":
    app()
