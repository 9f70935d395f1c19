"""One spelling of an option everywhere: the options of all commands, listed and held together."""

import re
from collections import defaultdict
from typing import get_args

import pytest
import typer

from talking_heads.cli import options
from talking_heads.cli.app import FORMER, app

GROUPS = typer.main.get_command(app).commands
COMMANDS = {name: command for name, command in GROUPS.items() if not hasattr(command, "commands")}
COMMANDS |= {
    f"{name} {inside}": command
    for name, group in GROUPS.items()
    for inside, command in getattr(group, "commands", {}).items()
}
OPTIONS = {
    name: {x.opts[0]: x for x in command.params if x.param_type_name == "option"}
    for name, command in COMMANDS.items()
}
# {words that would be another spelling: the one that is used}
SAME = {
    "--learning-rate": "--rate",
    "--lr": "--rate",
    "--output": "--out",
    "--out-dir": "--out",
    "--batch-size": "--batch",
    "--num-seeds": "--seeds",
    "--layers": "--layer",
    "--kind": "--part",
    "--kinds": "--part",
    "--parts": "--part",
    "--model": "MODEL",
    "--cuda": "--device",
    "--gpu": "--device",
    "--precision": "--dtype",
    "--max-examples": "--limit",
    "--verbosity": "--verbose",
    "--json-file": "--json",
}
HOMONYMS = {"--average", "--pairs", "--target"}  # of `translate`, whose words are those of translation
COUNTS = {"--layers"}  # how many layers a model gets, not which ones are meant


def kind(option):
    """What a value of an option is: its type, of a list that of its members."""
    name = option.bare_type() if hasattr(option, "bare_type") else option.type.name
    return re.sub(r"^list\[(.*)\]$", r"\1", str(name)).replace("integer", "int").partition(" ")[0]


def by_name():
    found = defaultdict(dict)
    for command, of_it in OPTIONS.items():
        for name, option in of_it.items():
            found[name][command] = option
    return found


def test_a_name_means_values_of_one_kind_in_every_command():
    kinds = {name: {kind(x) for x in found.values()} for name, found in by_name().items()}
    assert {name for name, found in kinds.items() if len(found) > 1} <= HOMONYMS, kinds
    assert len(kinds) > 60


def test_no_option_has_another_spelling():
    found = {name for name in by_name() if name in SAME and name not in COUNTS}
    assert not found, {name: SAME[name] for name in found}
    assert all(kind(x) == "int" for name in COUNTS for x in by_name()[name].values())


def test_names_are_words_with_hyphens():
    assert all(re.fullmatch(r"--[a-z]+(-[a-z]+)*", name) for name in by_name())


@pytest.mark.parametrize(
    "name",
    [
        "Json",
        "Device",
        "Dtype",
        "Seed",
        "FirstSeed",
        "Limit",
        "Draws",
        "BaselinesOnly",
        "RandomModel",
    ],
)
def test_shared_options_have_one_help_text(name):
    wanted = get_args(getattr(options, name))[1].help
    spelt = "--" + {"FirstSeed": "seed"}.get(name, re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower())
    texts = {x.help for command, x in by_name()[spelt].items() if " " not in command}
    both = {get_args(options.Seed)[1].help, get_args(options.FirstSeed)[1].help}
    assert wanted in texts and texts <= (both if spelt == "--seed" else {wanted})


def test_every_command_is_quiet_or_verbose_on_demand():
    for command, found in OPTIONS.items():
        assert "-q" in found["--quiet"].opts and "-v" in found["--verbose"].opts, command


def test_every_command_gives_json():
    talks = {"translate run"}  # prints a line for each line that it reads
    assert {name for name, found in OPTIONS.items() if "--json" not in found} == talks


def test_every_command_that_runs_a_model_takes_a_device_and_a_dtype():
    model = get_args(options.Model)[1].help.partition(",")[0]  # as the help of MODEL begins
    runs = [
        name
        for name, command in COMMANDS.items()
        if any(x.name == "model" and (x.help or "").startswith(model) for x in command.params)
    ]
    assert {"view", "convert", "dependencies", "constituency", "importance", "ablate", "prune"} <= set(runs)
    for name in {*runs, "bench", "compare"}:
        assert {"--device", "--dtype"} <= OPTIONS[name].keys(), name


def test_former_spellings_stand_for_options_that_are_there():
    for command, words in FORMER.items():
        assert set(words.values()) <= OPTIONS[command].keys() and not set(words) & OPTIONS[command].keys()


def test_every_option_says_what_it_is():
    assert not [(c, name) for c, found in OPTIONS.items() for name, x in found.items() if not x.help]
