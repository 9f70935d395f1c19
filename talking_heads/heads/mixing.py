"""What the two maps of talking heads look like, and how training moved them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..anatomy.layers import layers, mixing_of, part_of_name
from ..errors import UserError
from ..nn.mixing import CHILD
from ..results.table import Row, Table

NAMES = ("logits_mix", "weights_mix", "product")
Maps = dict[str, dict[str, np.ndarray]]  # {"encoder.0": {"logits_mix": [in, out], ..., "product": ...}}


def maps_of(model: nn.Module) -> Maps:
    """The static maps of a converted model, or of a model with this package's layers.

    Raises:
        UserError: a model whose heads do not talk.
    """
    found: Maps = {}
    for layer in layers(model):
        mixing = mixing_of(layer.module)
        maps = {n: getattr(mixing, n, None) for n in NAMES[:2]}
        learned = {n: x.detach().float().cpu().numpy() for n, x in maps.items() if x is not None}
        if learned:
            found[layer.label] = learned
    return _with_products(found, type(model).__name__)


def maps_in(folder: Path | str) -> Maps:
    """The same of a folder of safetensors, reading of the weights nothing but the maps.

    Raises:
        UserError: no maps there, files cut short.
    """
    from safetensors import safe_open

    from ..hf.source import check_plain, told
    from ..hf.weights import damage

    folder = Path(folder)
    check_plain(folder)
    damaged = list(damage(folder))
    if damaged:
        raise UserError("weights must be whole safetensors", "; ".join(damaged), "fetch or save them again")
    tensors: dict[str, np.ndarray] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with told(file), safe_open(file, "pt") as opened:
            for key in opened.keys():  # noqa: SIM118
                if key.rpartition(".")[2] in NAMES:  # static maps
                    tensors[key] = opened.get_tensor(key).float().numpy()
    found: Maps = {}
    names = {key.rpartition(".")[0].removesuffix(f".{CHILD}") for key in tensors}
    for module, label in _labels(folder, names).items():
        for name in NAMES[:2]:
            tensor = tensors.get(f"{module}.{CHILD}.{name}", tensors.get(f"{module}.{name}"))
            if tensor is not None:
                found.setdefault(label, {})[name] = tensor
    return _with_products(found, str(folder))


def _labels(folder: Path, names: set[str]) -> dict[str, str]:
    """{module: "encoder.0", ...} as `layers` calls them, in its order, from the config; without one that says what
    the model is, by the numbers in the names."""
    from ..hf.source import read_json
    from ..hf.weights import first_class

    if (folder / "config.json").exists():
        try:
            found = {layer.name: layer.label for layer in layers(_skeleton(folder))}
        except Exception:  # a model that cannot be built, of whatever kind: its maps can be read all the same
            found = {}
        if names <= found.keys():
            return {name: label for name, label in found.items() if name in names}
    config = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    kind = first_class(config.get("architectures"))
    default = "decoder" if kind.endswith(("ForCausalLM", "LMHeadModel")) else "encoder"
    labels: dict[str, str] = {}
    for name in sorted(names, key=_natural):
        part = part_of_name(name, default)
        labels[name] = f"{part}.{sum(x.startswith(part) for x in labels.values())}"
    return labels


def _skeleton(folder: Path) -> Any:
    """The model of a config.json, without weights."""
    from ..hf.source import config_of
    from ..hf.weights import model_class, skeleton

    config = config_of(folder)
    return skeleton(model_class(config, folder), config, folder)


def _natural(key: str) -> list[Any]:
    return [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", key)]


def _with_products(found: Maps, where: str) -> Maps:
    if not found:
        raise UserError(
            "mixing needs a model whose heads talk", f"no maps in {where}", "convert it and train it"
        )
    for maps in found.values():
        if len(maps) == 2:
            maps["product"] = maps["logits_mix"] @ maps["weights_mix"]
    return found


def figures(mix: np.ndarray) -> Row:
    """What a map [in, out] is like.

    diagonal: the mean share of the diagonal in its row, by absolute value (1: heads do not talk).
    distance: Frobenius norm of the difference from the identity over that of the identity.
    condition: largest over smallest singular value. determinant (absolute) and eigenvalue (the smallest
    absolute one) are of square maps only.
    """
    rows, columns = mix.shape
    size = np.abs(mix.astype(np.float64))
    n = min(rows, columns)
    sums = size.sum(1)[:n]
    diagonal = np.divide(np.diagonal(size), sums, out=np.zeros(n), where=sums > 0)
    identity = np.eye(rows, columns)
    singular = np.linalg.svd(mix.astype(np.float64), compute_uv=False)
    square = rows == columns
    return {
        "diagonal": float(diagonal.mean()),
        "distance": float(np.linalg.norm(mix - identity) / np.linalg.norm(identity)),
        "condition": float(singular[0] / singular[-1]) if singular[-1] > 0 else float("inf"),
        "determinant": float(abs(np.linalg.det(mix.astype(np.float64)))) if square else None,
        "eigenvalue": float(np.abs(np.linalg.eigvals(mix.astype(np.float64))).min()) if square else None,
    }


def strongest(mix: np.ndarray, top: int = 3) -> list[str]:
    """The largest entries off the diagonal, as "from>to weight": which heads speak to which."""
    off = mix.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-np.abs(off), axis=None)[:top]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, off.shape), strict=True)]
    return [f"{i}>{j} {off[i, j]:+.2f}" for i, j in pairs if off[i, j] != 0]


def mixing(model: nn.Module | Maps, top: int = 3) -> Table:
    """A row a layer and map: `figures`, and the `top` strongest links off the diagonal.

    model: or its maps, from `maps_of` or `maps_in`.
    """
    maps = maps_of(model) if isinstance(model, nn.Module) else model
    rows = [
        {"layer": layer, "map": name, **figures(mix), "speak": ", ".join(strongest(mix, top))}
        for layer, of_layer in maps.items()
        for name, mix in of_layer.items()
    ]
    return Table(
        rows,
        ("layer", "map"),
        "distance",
        {"maps": {k: {n: x.tolist() for n, x in v.items()} for k, v in maps.items()}},
    )


def checkpoints(folder: Path | str) -> dict[int, Path]:
    """{step: folder} of the folders NAME-STEP with safetensors inside, in order of steps."""
    found = {}
    for path in Path(folder).iterdir():
        step = path.name.rpartition("-")[2]
        if step.isdigit() and any(path.glob("*.safetensors")):
            found[int(step)] = path
    return dict(sorted(found.items()))


def movement(steps: dict[int, Maps]) -> Table:
    """Over the checkpoints of a run, a row a step, layer and map: distance from the identity, from the step
    before (`moved`, in the same unit), and diagonal dominance."""
    rows: list[Row] = []
    before: Maps | None = None
    for step, maps in steps.items():
        for layer, of_layer in maps.items():
            for name, mix in of_layer.items():
                last = None if before is None else before.get(layer, {}).get(name)
                scale = np.linalg.norm(np.eye(*mix.shape))
                moved = None if last is None else float(np.linalg.norm(mix - last) / scale)
                found = figures(mix)
                rows.append(
                    {"step": step, "layer": layer, "map": name, "distance": found["distance"], "moved": moved,
                     "diagonal": found["diagonal"]}
                )  # fmt: skip
        before = maps
    return Table(rows, ("step", "layer", "map"), "distance")


def draw_maps(path: Path | str | None, maps: Maps, *, axes: Any = None) -> Any:
    """Heat maps, a line a layer, a column a map, one scale of colours; rows: heads in, columns: heads out.

    Args:
        path: a PNG or SVG to write; None for none. axes: [layers, maps]; default those of a new figure.

    Returns:
        The axes, [layers, maps].
    """
    from ..results.charts import plot, save

    names = [n for n in NAMES if any(n in x for x in maps.values())]
    limit = max(float(np.abs(x).max()) for of_layer in maps.values() for x in of_layer.values())
    if axes is None:
        _, axes = plot().subplots(
            len(maps),
            len(names),
            figsize=(2.6 * len(names) + 1, 2.3 * len(maps)),
            squeeze=False,
            layout="constrained",
        )
    axes = np.asarray(axes, dtype=object).reshape(len(maps), len(names))
    for line, (layer, of_layer) in zip(axes, maps.items(), strict=True):
        for ax, name in zip(line, names, strict=True):
            if name not in of_layer:
                ax.axis("off")
                continue
            image = ax.imshow(of_layer[name], cmap="RdBu", vmin=-limit, vmax=limit)
            ax.set_title(f"{layer} {name}", fontsize=8)
            ax.tick_params(labelsize=6)
    axes[0, 0].figure.colorbar(image, ax=axes, shrink=0.5)
    if path is not None:
        save(axes[0, 0].figure, path)
    return axes


def draw_movement(path: Path | str | None, table: Table, *, axes: Any = None) -> Any:
    """Distance from the identity over steps, a panel a map, a line a layer.

    path, axes ([maps]) and what is returned: see `draw_maps`.
    """
    from ..results.charts import plot, save

    names = list(dict.fromkeys(row["map"] for row in table.rows))
    if axes is None:
        _, axes = plot().subplots(
            1, len(names), figsize=(4 * len(names), 3.4), squeeze=False, layout="constrained"
        )
    axes = np.atleast_1d(axes).ravel()
    for ax, name in zip(axes, names, strict=True):
        for layer in dict.fromkeys(row["layer"] for row in table.rows):
            points = [
                (r["step"], r["distance"]) for r in table.rows if (r["map"], r["layer"]) == (name, layer)
            ]
            ax.plot(*zip(*points, strict=True), marker=".", label=layer)
        ax.set_title(name)
        ax.set_xlabel("step")
    axes[0].set_ylabel("distance from the identity")
    axes[-1].legend(fontsize=6)
    if path is not None:
        save(axes[0].figure, path)
    return axes
