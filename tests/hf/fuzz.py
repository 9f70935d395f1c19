"""Model folders damaged at random, by their structure: each opens, or is refused in one line, soon and in little memory.

python -m tests.hf.fuzz --count 3000 --seed 0
"""

import argparse
import json
import random
import resource
import shutil
import signal
import struct
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
import transformers

from talking_heads.errors import UserError
from talking_heads.heads import open_model
from talking_heads.hf import convert, load
from talking_heads.hf.folder import convert_folder

SECONDS = 30
VALUES = (
    None,
    True,
    -1,
    0,
    1,
    3,
    2**31,
    2**63,
    10**400,
    0.5,
    1e308,
    "",
    "x",
    "../x",
    "2",
    "\ud800",
    [],
    [[]],
    [1],
    {},
    {"a": 1},
)
DTYPES = ("F32", "F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "X9", 7, None)
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "a", "mat"]


def good_folder(folder, converted=False):
    """A tiny BERT with a tokenizer, as save_pretrained writes it."""
    torch.manual_seed(0)
    size = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(**size, intermediate_size=16, max_position_embeddings=32)
    made = transformers.BertForSequenceClassification(config)
    if converted:
        convert(made)
    made.save_pretrained(folder)
    transformers.BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


def places(value, path=()):
    """All paths into a JSON value."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*path, key))


def mutated(value, draw):
    """The JSON value with one place changed: set to another value, taken out, doubled, renamed."""
    path = draw.choice([x for x in places(value) if x] or [()])
    if not path:
        return draw.choice(VALUES)
    inside = value
    for key in path[:-1]:
        inside = inside[key]
    how, key = draw.choice(("set", "set", "set", "scale", "drop", "rename")), path[-1]
    if how == "drop":
        del inside[key]
    elif how == "rename" and isinstance(inside, dict):
        inside[f"{key}x"] = inside.pop(key)
    elif how == "scale" and isinstance(inside[key], int):
        inside[key] *= draw.choice((-1, 0, 7, 10**6, 10**12))
    else:
        inside[key] = draw.choice(VALUES)
    return value


def harm_json(file, draw):
    text = json.dumps(mutated(json.loads(file.read_text()), draw))
    file.write_bytes(text.encode("utf-8", "surrogatepass"))


def harm_bytes(file, draw):
    data = bytearray(file.read_bytes())
    where = draw.randrange(len(data))
    how = draw.choice(("cut", "flip", "insert", "empty"))
    if how == "cut":
        data = data[:where]
    elif how == "flip":
        data[where] ^= 1 << draw.randrange(8)
    elif how == "insert":
        data[where:where] = bytes(draw.randrange(256) for _ in range(draw.randrange(1, 9)))
    else:
        data.clear()
    file.write_bytes(data)


def harm_header(file, draw):
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    entry, other = header[draw.choice(names)], draw.choice(names)
    how = draw.choice(("json", "dtype", "shape", "offsets", "same", "drop", "length"))
    if how == "json":
        header = mutated(header, draw)
    elif how == "dtype":
        entry["dtype"] = draw.choice(DTYPES)
    elif how == "shape":
        entry["shape"] = draw.choice(
            ([], [0], [-1, 4], [2**40, 2**40], entry["shape"][::-1], [1, *entry["shape"]])
        )
    elif how == "offsets":
        entry["data_offsets"] = draw.choice(
            ([0, 0], [5, 2], [-4, 4], [0, 2**62], entry["data_offsets"][::-1], [0])
        )
    elif how == "same":
        entry |= header[other]
    elif how == "drop":
        del header[other]
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    size = draw.choice((0, 2**60, len(text) // 2)) if how == "length" else len(text)
    file.write_bytes(struct.pack("<Q", size) + text + body)


def harm_shards(file, draw):
    """The weights named by an index, which is changed in turn."""
    data = file.read_bytes()
    header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
    target = draw.choice(
        ("model.safetensors", "shard.safetensors", "weights.dat", "../weights.safetensors", "/etc/passwd")
    )
    if target == "shard.safetensors":
        file.rename(file.with_name(target))
    index = {"metadata": {}, "weight_map": {name: target for name in header if name != "__metadata__"}}
    index = mutated(index, draw) if draw.random() < 0.7 else index
    file.unlink(missing_ok=True)
    text = json.dumps(index).encode("utf-8", "surrogatepass")
    file.with_name("model.safetensors.index.json").write_bytes(text)


HARMS = {
    "config": lambda folder, draw: harm_json(folder / "config.json", draw),
    "config twice": lambda folder, draw: [harm_json(folder / "config.json", draw) for _ in range(2)],
    "header": lambda folder, draw: harm_header(folder / "model.safetensors", draw),
    "shards": lambda folder, draw: harm_shards(folder / "model.safetensors", draw),
    "weights' bytes": lambda folder, draw: harm_bytes(folder / "model.safetensors", draw),
    "tokenizer": lambda folder, draw: harm_json(folder / "tokenizer.json", draw),
    "tokenizer's settings": lambda folder, draw: harm_json(folder / "tokenizer_config.json", draw),
    "any bytes": lambda folder, draw: harm_bytes(draw.choice(sorted(folder.glob("*.json"))), draw),
}


def uses(converted):
    """What is done with a folder, by name."""
    return {
        "open": lambda folder, out: open_model(str(folder)),
        "use": lambda folder, out: load(folder) if converted else convert_folder(folder, out),
    }


class TooLate(BaseException):
    pass


def late(*_):
    raise TooLate


def run(count, seed, where):
    """Counts of {(harm, outcome)}; raises on a harm whose outcome is neither right nor one line, with its number."""
    goods = {x: good_folder(where / f"good-{x}", converted=x) for x in (False, True)}
    outcomes = Counter()
    signal.signal(signal.SIGALRM, late)
    for number in range(count):
        draw = random.Random(f"{seed} {number}")
        converted = draw.random() < 0.4
        name, folder = draw.choice(sorted(HARMS)), where / f"bad-{number}"
        use, code = draw.choice(sorted(uses(converted).items(), key=lambda pair: pair[0]))
        shutil.copytree(goods[converted], folder)
        signal.alarm(SECONDS)
        try:
            HARMS[name](folder, draw)
            code(folder, where / f"out-{number}")
            outcomes[name, "opened"] += 1
        except UserError as refusal:
            assert "\n" not in str(refusal), number
            outcomes[name, "refused"] += 1
        except BaseException as problem:
            raise AssertionError(f"seed {seed}, number {number}: {name}, {use}: {problem!r}") from problem
        finally:
            signal.alarm(0)
        for path in (folder, where / f"out-{number}"):
            shutil.rmtree(path, ignore_errors=True)
    return outcomes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory-gib", type=float, default=8)
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (int(given.memory_gib * 2**30),) * 2)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as where:
        found = run(given.count, given.seed, Path(where))
    for (name, outcome), number in sorted(found.items()):
        print(f"{name:22} {outcome:8} {number:6}")
    seconds = time.perf_counter() - begun
    print(
        f"{sum(found.values())} folders, seed {given.seed}, {seconds:.0f} s, at most {given.memory_gib:g} GiB"
    )


if __name__ == "__main__":
    main()
