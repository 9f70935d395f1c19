"""talking-heads bench"""

from typing import Annotated, Any

import typer

from .options import Device, Dtype, Json, Out, Seed


def add(app: typer.Typer) -> None:
    app.command("bench")(_bench)


def _bench(
    device: Device = "cpu",
    shape: Annotated[
        list[str] | None,
        typer.Option(help="HEADSxSIZExPOSITIONS[xBATCH][:causal] (repeatable); default: the device's list."),
    ] = None,
    form: Annotated[
        list[str] | None,
        typer.Option(help="sdpa, einsum, matmul, a backend, ... (repeatable); default: all."),
    ] = None,
    dtype: Dtype = None,
    rounds: Annotated[int, typer.Option(help="Minimum number of timed calls of each form.")] = 7,
    seconds: Annotated[float, typer.Option(help="Minimum seconds to time a shape.")] = 2.0,
    limit_gib: Annotated[
        float, typer.Option(help="Memory limit of a shape's process on cpu in GiB; 0: what is free.")
    ] = 0,
    threads: Annotated[int, typer.Option(help="Threads; 0: torch's default.")] = 0,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Time limit in minutes, after which no new form starts; default 7 on cuda; 0: no limit."
        ),
    ] = None,
    memory: Annotated[bool, typer.Option("--memory", help="Measure peak memory too.")] = False,
    timing: Annotated[bool, typer.Option(help="Measure time (--no-timing: only memory).")] = True,
    seed: Seed = 0,
    out: Out = None,
    json: Json = None,
) -> None:
    """Time and memory of talking-heads attention compared with other implementations, in one run.

    Every form's output and gradients are compared with the float64 reference before it is timed.
    Exit code 1 if one is wrong. Results are saved after each shape. The dtype is by default float32 on a CPU,
    bfloat16 on a GPU.

    Example: `talking-heads bench --shape 12x64x512 --shape 12x64x2048:causal --memory --json bench.json`
    """
    from ..bench import Options, bench
    from ..bench.table import html, text
    from ..results import folders
    from ..results.files import write_json, write_text
    from ..results.output import Output
    from .progress import waiting

    options = Options(
        device=device,
        shapes=tuple(shape or ()),
        forms=tuple(form or ()),
        dtype=dtype or "",
        rounds=rounds,
        seconds=seconds,
        limit_gib=limit_gib,
        threads=threads,
        minutes=minutes,
        memory=memory,
        timing=timing,
        seed=seed,
    )

    output = Output(json)
    if out is not None:
        folders.claim(out, "bench")

    def keep(result: dict[str, Any]) -> None:
        if output.is_file:
            output.write_json(result)
        if out is not None:
            write_json(out / "results.json", result)
            write_text(out / "report.html", html(result))

    with waiting("measuring") as say:
        result = bench(options, say, keep)
    keep(result)
    output.say(text(result, output.width))
    if not output.is_file:
        output.write_json(result)
    parts = [*result.get("shapes", []), *result.get("memory", [])]
    rows = [row for part in parts for row in (part, *part["forms"].values())]
    if any(row.get("status") in ("wrong", "failed") for row in rows):
        raise typer.Exit(1)
