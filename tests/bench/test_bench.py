"""The measurement itself: what it accepts, that it catches wrong forms and survives lack of memory."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from talking_heads.bench import Options, bench, check, measure, memory, run, table
from talking_heads.bench.deadline import OutOfTime
from talking_heads.bench.forms import Form, forms, refuses
from talking_heads.bench.shapes import CPU, CUDA, Shape, draw, parse
from talking_heads.bench.worker import in_child
from talking_heads.cli import main
from talking_heads.errors import UserError
from tests.cases import in_ci

TINY = "3x8x20x2"
HERE = {"dtype": torch.float32, "device": "cpu", "seed": 0, "rounds": 2, "seconds": 0.0}
EAGER = [name for name, form in forms().items() if not form.is_compiled]


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("12x64x512", Shape(12, 12, 12, 64, 512, 512)),
        ("12/32/12x64x512x1", Shape(12, 32, 12, 64, 512, 512, 1)),
        ("12x64x1/8192", Shape(12, 12, 12, 64, 1, 8192)),
        ("16x128x4096x2:causal", Shape(16, 16, 16, 128, 4096, 4096, 2, True)),
    ],
)
def test_parse(text, shape):
    assert parse(text) == shape == parse(str(shape))


def test_lists_parse():
    assert all(parse(str(parse(text))) == parse(text) for text in (*CPU, *CUDA))


@pytest.mark.parametrize("text", ["", "12x64", "0x64x512", "12x64x512x2:casual", "12/3x64x5", "ax1x2"])
def test_parse_refuses(text):
    with pytest.raises(UserError, match="shape must be"):
        parse(text)


@pytest.mark.parametrize("name", EAGER)
@pytest.mark.parametrize("text", [TINY, "2/5/2x8x20x2", "3x8x20x2:causal", "3x8x5/20x1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_forms_are_right(name, text, dtype):
    shape, form = parse(text), forms()[name]
    inputs = draw(shape, dtype, "cpu", 0)
    why = refuses(form, shape, inputs)
    if why:
        assert name in ("x-transformers", "triton", "cpu")
        pytest.skip(why)
    assert check.largest_error(form, shape, inputs) <= check.TOLERANCE[dtype]


def _no_maps(query, key, value, _l, _w, is_causal):
    return forms()["sdpa"].function(query, key, value, _l, _w, is_causal) + 0 * (_l.sum() + _w.sum())


def _wrong_gradient(query, key, value, logits_mix, weights_mix, is_causal):
    return forms()["einsum"].function(
        query, key.detach() + 0 * key, value, logits_mix, weights_mix, is_causal
    )


def _nan(*arguments):
    return forms()["einsum"].function(*arguments) * float("nan")


def _raises(*arguments):
    raise RuntimeError("broken on purpose")


def _hungry(*arguments):
    torch.empty(2**46)


@pytest.mark.parametrize(
    ("function", "status"),
    [
        (_no_maps, "wrong"),
        (_wrong_gradient, "wrong"),
        (_nan, "wrong"),
        (_raises, "failed"),
        (_hungry, "out of memory"),
    ],
)
def test_what_is_wrong_is_not_timed(function, status):
    bad = Form("bad", function, "on purpose")
    result = measure.measure(parse(TINY), [forms()["sdpa"], bad], **HERE)
    assert result["forms"]["bad"]["status"] == status
    assert "both_ms" not in result["forms"]["bad"] and "both_ms" in result["forms"]["sdpa"]


def test_measure_counts_operations():
    shape = parse("2x8x16x1")
    row = measure.measure(shape, [forms()["sdpa"], forms()["einsum"]], **HERE)["forms"]
    pairs, products, mixing = 16 * 16, 2 * 2 * 8, 2 * 2 * 2
    forward = lambda name: row[name]["forward_gflops"] * row[name]["forward_ms"] * 1e6  # noqa: E731
    both = lambda name: row[name]["both_gflops"] * row[name]["both_ms"] * 1e6  # noqa: E731
    assert forward("sdpa") == pytest.approx(2 * pairs * products)
    assert both("sdpa") == pytest.approx(2 * pairs * products * 3.5)  # 2 products forward, 5 backward
    assert forward("einsum") == pytest.approx(2 * pairs * (products + mixing))
    assert both("einsum") == pytest.approx(2 * pairs * (products * 3.5 + mixing * 4))


def test_command(tmp_path, monkeypatch, capsys):
    shape, names = "3x8x20x2:causal", ["einsum", "chunked"]
    arguments = ["bench", "--memory", "--rounds", "3", "--seconds", "0", "--threads", "1"]
    arguments += ["--shape", shape, "--out", str(tmp_path / "out")]
    arguments += ["--json", str(tmp_path / "b.json"), *(x for name in names for x in ("--form", name))]
    monkeypatch.setattr(sys, "argv", ["talking-heads", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code == 0
    result = json.loads((tmp_path / "b.json").read_text())
    assert result == json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(result) == {"options", "provenance", "computes", "shapes", "memory"}
    assert result["options"]["threads"] == 1 and result["options"]["seed"] == 0
    assert [part["shape"] for part in result["shapes"]] == [shape]
    for part in result["shapes"]:
        assert part["peak_gflops"] > 0 and list(part["forms"]) == names
        for row in part["forms"].values():
            assert row["status"] == "ok" and 0 <= row["error"] <= row["error_bound"]
            assert len(row["times_ms"]["forward"]) == len(row["times_ms"]["both"]) == 3
            assert row["forward_ms"] > 0 and row["both_gflops"] > 0
    causal = result["shapes"][0]["forms"]
    assert "full_both_ms" in causal["chunked"] and "full_both_ms" not in causal["einsum"]
    for row in result["memory"][0]["forms"].values():
        assert row["status"] == "ok" and row["peak_mib"] >= row["extra_mib"] >= 0
    printed = capsys.readouterr().out
    assert "best other /" in printed and printed.rstrip().splitlines()[-1].startswith(shape)
    assert "best other /" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--shape", "12"], "shape must be"),
        (["--form", "flash"], "form must be one of"),
        (["--device", "tpu"], "--device must be"),
        (["--dtype", "int8"], "--dtype must be"),
        (["--rounds", "0"], "--rounds must be"),
        (["--minutes", "-1"], "--minutes must be"),
        (["--minutes", "nan"], "--minutes must be"),
        (["--seconds", "inf"], "--seconds must be"),
        (["--limit-gib", "nan"], "--limit-gib must be"),
        (["--threads", "-1"], "--threads must be"),
        (["--seed", str(10**30)], "--seed must be"),
        (["--shape", "6x8x16:groups=4"], "heads divisible by G"),
    ],
)
def test_command_refuses(arguments, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["talking-heads", "bench", *arguments])
    with pytest.raises(SystemExit) as done:
        main()
    error = capsys.readouterr().err
    assert done.value.code == 2 and words in error and error.count("\n") == 1


@pytest.mark.parametrize("positions", [10**11, 10**30], ids=["memory", "overflow"])
def test_a_shape_that_cannot_be_allocated_is_reported_and_the_others_are_measured(
    positions, monkeypatch, capsys
):
    monkeypatch.setattr(run, "_call", lambda function, arguments, *_: (function(*arguments, print), None))
    shapes = (TINY, f"2x8x{positions}", "2x8x9x1")
    result = bench(Options(shapes=shapes, forms=("sdpa",), rounds=1, seconds=0, memory=True))
    for kind in ("shapes", "memory"):
        first, bad, last = result[kind]
        assert first["forms"]["sdpa"]["status"] == last["forms"]["sdpa"]["status"] == "ok"
        said = bad if kind == "shapes" else bad["forms"]["sdpa"]
        assert said["status"] == "failed" and "cannot be allocated" in said["why"]
    assert str(positions) in table.text(result) and table.html(result)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_cuda_without_a_gpu(tmp_path):
    with pytest.raises(UserError, match="needs that GPU"):
        bench(Options(device="cuda"))
    script = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
    command = [sys.executable, str(script), "--json", str(tmp_path / "gpu.json")]
    found = subprocess.run(command, capture_output=True, text=True, cwd=script.parents[1])
    assert found.returncode == 2 and not list(tmp_path.iterdir())
    assert "--device cuda needs that GPU" in found.stderr and found.stderr.count("\n") == 1


def test_plan_on_a_gpu(monkeypatch):
    """What a GPU would be asked: all sizes and forms, in little time, each size its share of what is left."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(
        run,
        "provenance",
        lambda device: {"machine": {"processor": "", "gpu": device}, "versions": {"torch": ""}},
    )
    asked = []

    def call(function, arguments, options, progress):
        shape, names, settled = arguments
        asked.append((shape, names, settled))
        return {"shape": str(shape), "peak_gflops": 1.0, "forms": {n: measure.NO_TIME for n in names}}, None

    monkeypatch.setattr(run, "_call", call)
    result = bench(Options(device="cuda"))
    assert result["options"]["dtype"] == "bfloat16" and result["options"]["minutes"] == 7
    shapes = [shape for shape, *_ in asked]
    assert {f"{x.heads}x{x.head_dim}" for x in shapes} == {"12x64", "16x64", "16x128", "24x32"}
    assert {512, 65536} <= {x.query_len for x in shapes} and any(x.is_causal for x in shapes)
    assert all(names == tuple(forms()) for _, names, _ in asked)
    assert asked[0][2].minutes == pytest.approx(7 / len(shapes), rel=0.1)
    assert asked[-1][2].minutes == pytest.approx(7, rel=0.1)  # nothing was spent
    assert table.text(result).splitlines()[-1].endswith("skipped: no time left")


def test_time_that_runs_out():
    some = [forms()[name] for name in ("sdpa", "einsum", "chunked")]
    found = measure.measure(parse(TINY), some, **HERE | {"rounds": 10**9}, minutes=0.1)["forms"]
    assert all(row["status"] == "ok" and 0 < len(row["times_ms"]["both"]) < 10**9 for row in found.values())
    found = measure.measure(parse(TINY), some, **HERE, minutes=1e-12)["forms"]
    assert list(found.values()) == [measure.NO_TIME] * 3


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no timers")
def test_what_has_begun_ends_with_the_time(monkeypatch):
    """On a GPU the forms run in this process: whatever it does then, it stops, and the rest does not begin."""
    monkeypatch.setattr(run, "GRACE", 0.01)
    monkeypatch.setattr(run, "_call", lambda function, arguments, *_: (function(*arguments, print), None))
    endless = Form("endless", lambda *inputs: time.sleep(60), "on purpose")
    monkeypatch.setattr(run, "forms", lambda: {"endless": endless} | forms())
    begun = time.monotonic()
    result = bench(Options(shapes=(TINY, "3x8x30x2"), forms=("endless", "einsum"), minutes=0.05))
    assert time.monotonic() - begun < 50
    assert [list(part["forms"].values()) for part in result["shapes"]] == [[measure.NO_TIME] * 2] * 2
    assert table.text(result).splitlines()[-1].endswith("skipped: no time left")
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_rounds_that_are_cut_short_count():
    calls = []

    def sdpa(*inputs):
        calls.append(1)
        if len(calls) == 9:
            raise OutOfTime
        return forms()["sdpa"].function(*inputs)

    some = [Form("sdpa", sdpa, "until time is up"), forms()["chunked"]]
    found = measure.measure(parse(TINY), some, **HERE | {"rounds": 10**9})["forms"]
    assert all(row["status"] == "ok" and len(row["times_ms"]["both"]) > 0 for row in found.values())


def _die(say):
    say("dying")
    os._exit(3)


def _fill(size, say):
    try:
        return torch.ones(size).numel()
    except RuntimeError as problem:
        return measure.is_out_of_memory(problem)


def test_child_that_dies_and_child_that_hits_its_limit():
    said = []
    result, why = in_child(_die, (), limit_gib=None, threads=1, progress=said.append)
    assert result is None and "code 3" in why and said == ["dying"]
    assert in_child(_fill, (2**20,), limit_gib=3.0, threads=1) == (2**20, None)
    assert in_child(_fill, (2**30,), limit_gib=3.0, threads=1) == (True, None)


def test_a_form_that_kills_the_process_is_left_out(monkeypatch):
    def call(function, arguments, options, progress):
        shape, names, _ = arguments
        for name in names:
            progress(name)
            if name == "einsum":
                return None, "its process was ended by SIGKILL (out of memory)"
        return {
            "shape": str(shape),
            "peak_gflops": 1.0,
            "forms": {n: {"status": "skipped"} for n in names},
        }, None

    monkeypatch.setattr(run, "_call", call)
    options = Options(shapes=(TINY,), forms=("sdpa", "einsum", "matmul"))
    rows = bench(options)["shapes"][0]["forms"]
    assert list(rows) == ["sdpa", "einsum", "matmul"]
    assert rows["einsum"]["status"] == "out of memory" and rows["matmul"]["status"] == "skipped"


def test_finished_shapes_are_kept_as_it_goes():
    seen: list[int] = []
    options = Options(shapes=(TINY, "2x8x16x1"), forms=("sdpa",), rounds=1, seconds=0.0)
    result = bench(options, keep=lambda result: seen.append(len(result["shapes"])))
    assert seen == [1, 2] and len(result["shapes"]) == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident sets are read from /proc")
def test_memory_sees_what_is_stored():
    """At 4x16x512 the reference stores several [4, 512, 512] tensors in float32; chunked does not."""
    options = Options(shapes=("4x16x1024x1",), forms=("chunked", "reference"), timing=False, memory=True)
    rows = bench(options)["memory"][0]["forms"]
    tensor = 4 * 1024 * 1024 * 4 / memory.MIB
    assert rows["reference"]["extra_mib"] > 3 * tensor


@pytest.mark.parametrize("name", in_ci(["compiled-einsum", "compiled-matmul"], "compiled-einsum"))
def test_compiled_forms_are_right(name):
    shape = parse(TINY)
    inputs = draw(shape, torch.float32, "cpu", 0)
    assert check.largest_error(forms()[name], shape, inputs) <= 1e-4


def test_text_names_the_limit_and_words_do_not_widen_columns():
    long = "its process was ended by SIGKILL (out of memory), and so on and on and on and on and on"
    options = Options(shapes=(TINY,), forms=("sdpa", "chunked"), rounds=1, seconds=0.0, limit_gib=4.0)
    result = bench(options)
    result["shapes"][0]["forms"]["einsum"] = {"status": "out of memory", "why": long}
    text = table.text(result)
    assert "beyond 4.0 GiB" in text and "extra MiB" in text
    assert text.splitlines()[-1] == f"{TINY} einsum: out of memory: {long}"
    assert max(map(len, table.text(result, 80).splitlines()[4:-1])) <= 80
