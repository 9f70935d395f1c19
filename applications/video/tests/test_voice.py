"""Sound of new words: recorded, given, or spoken by a command; and edits as the transcript sees them."""

import sys
from pathlib import Path

import numpy as np
import pytest

from retell import voice
from retell.edits import History, Token, parse
from retell.errors import UserError
from retell.media import SOUND
from retell.perform import Style, perform
from retell.words import Lexicon


def test_recorded_words_come_in_the_longest_pieces(ingested):
    speech, sound = ingested.target.speech, ingested.target.sound
    texts = [w.text for w in speech.words]
    said, missing = voice.recorded([*texts[3:6], *texts[9:11]], speech, sound)
    assert not missing and said.how.endswith("2 pieces")
    assert [w.text for w in said.speech.words] == [*texts[3:6], *texts[9:11]]
    assert abs(said.speech.seconds - len(said.samples) / SOUND) < 0.001
    none, missing = voice.recorded(["xylophone", texts[0]], speech, sound)
    assert none is None and missing == ["xylophone"]


def test_joints_have_no_clicks():
    tone = (8000 * np.sin(np.arange(4800) * 2 * np.pi * 200 / SOUND)).astype(np.int16)
    joined = voice.crossfade([tone[:4700], tone[60:], tone])
    plain = np.concatenate([tone[:4700], tone[60:], tone]).astype(int)
    assert len(joined) == len(plain)
    at = 4700
    assert (
        np.abs(np.diff(joined.astype(int)))[at - 3 : at + 3].max()
        < np.abs(np.diff(plain))[at - 3 : at + 3].max()
    )


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("say hello", r"\{text\} and \{wav\}"),
        ("no-such-program {wav} {text}", "must run"),
        (f"{sys.executable} -c 'import sys; sys.exit(3)' {{wav}} {{text}}", "exit status 3"),
        (f"{sys.executable} -c pass {{wav}} {{text}}", "no WAV"),
    ],
)
def test_commands_that_do_not_speak(template, message, tmp_path):
    with pytest.raises(UserError, match=message):
        voice.command(template, ["hello"], tmp_path)


def test_a_command_speaks_without_a_shell(tmp_path):
    script = tmp_path / "speak.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(voice.__file__).parents[1])!r})\nimport numpy as np\n"
        "from retell import studio\nfrom retell.procedural import Speaker\nfrom retell.project import write_wav\n"
        "assert sys.argv[2] == 'purple window', sys.argv\n"
        "speech = Speaker.draw(3).speak([sys.argv[2].split()], np.random.default_rng(0))\n"
        "write_wav(sys.argv[1], studio.voice(speech, 120, 0))\n"
    )
    path = voice.command(
        f"{sys.executable} {script} {{wav}} {{text}}", ["purple", "window"], tmp_path / "sounds"
    )
    said = voice.from_sound(path, ["purple", "window"], Lexicon(), 25.0, "a command")
    assert [w.text for w in said.speech.words] == ["purple", "window"]
    with pytest.raises(UserError, match="must say"):
        voice.from_sound(
            path, ["the", "house", "was", "brave", "and", "the", "river", "smooth"] * 3, Lexicon(), 25.0, ""
        )


@pytest.fixture
def history(tmp_path):
    return History(tmp_path / "edits.json", ["we", "saw", "the", "old", "house", "today"])


def test_rewrite_is_the_shortest_way_and_undo_takes_it_back(history):
    history.rewrite("we [smile] saw the big old house")
    assert history.text() == "we [smile] saw the big old house"
    assert [t.keep for t in history.tokens] == [0, None, 1, 2, None, 3, 4]
    for _ in range(len(history.done)):
        history.undo()
    assert history.text() == "we saw the old house today"
    history.redo()
    assert History.load(history.path, history.words).text() == history.text()
    with pytest.raises(UserError, match="undone"):
        History(history.path, history.words).redo()


@pytest.mark.parametrize(
    "op",
    [
        {"op": "delete", "first": 0, "last": 6},
        {"op": "delete", "first": 3, "last": 3},
        {"op": "delete", "first": -1, "last": 2},
        {"op": "delete", "first": "0", "last": 2},
        {"op": "delete", "first": True, "last": 2},
        {"op": "replace", "first": 0, "last": 1, "text": "..."},
        {"op": "replace", "first": 0, "last": 1, "text": "[frown]"},
        {"op": "replace", "first": 0, "last": 1, "text": 5},
        {"op": "perform", "first": 0, "last": 1},
        {"op": "perform", "first": 0, "last": 1, "energy": 3},
        {"op": "perform", "first": 0, "last": 1, "energy": float("nan")},
        {"op": "shift", "at": 9, "phone": 0, "seconds": 0.1},
        {"op": "shift", "at": 0, "phone": -1, "seconds": 0.1},
        {"op": "curve", "at": 0, "parameter": 0, "points": [[2, 0]]},
        {"op": "curve", "at": 0, "parameter": 0, "points": []},
        {"op": "curve", "at": 0, "parameter": 0.5, "points": [[0.5, 1]]},
        {"op": "cut"},
        {},
    ],
)
def test_refused_operations_leave_no_trace(history, op):
    with pytest.raises(UserError):
        history.do(op)
    assert history.done == [] and not history.path.exists()


def test_parse():
    assert [t.word or t.gesture for t in parse("Hello, [Smile] it's 2 [open]", 1)] == [
        "hello",
        "smile",
        "it's",
        "two",
        "open",
    ]


def test_controls_do_what_they_say(ingested):
    style = Style(ingested.target.speech)
    motion = ingested.target.speech.motion
    edges = np.array([0.0, 10.0, 20.0])
    a, b = 60, 80

    def spread(x):
        return np.abs(x - style.rest).mean()

    loud = perform(motion, a, b, Token(energy=1.5), edges, style)
    quiet = perform(motion, a, b, Token(energy=0.5), edges, style)
    assert spread(quiet) < spread(motion[a:b]) < spread(loud)
    calm = perform(motion, a, b, Token(smooth=2.0), edges, style)
    assert np.abs(np.diff(calm, axis=0)).mean() < np.abs(np.diff(motion[a:b], axis=0)).mean()
    bent = perform(motion, a, b, Token(curves=((1, ((0.0, 0.0), (0.5, 2.0), (1.0, 0.0))),)), edges, style)
    assert (bent[:, 1] - motion[a:b, 1])[8:12].min() > style.spread[1] and np.allclose(
        bent[:, 2], motion[a:b, 2]
    )
    ramp = np.tile(np.arange(100.0)[:, None], (1, 6))
    late = perform(ramp, 0, 20, Token(shifts=((1, 4.0),)), edges, style)  # what was at frame 10 comes at 14
    assert late[14, 1] == pytest.approx(10.33, abs=0.01) and late[19, 1] == pytest.approx(19, abs=0.5)


def test_gestures(ingested):
    style = Style(ingested.target.speech)
    smile, closed, opened = (style.gesture(name, 15) for name in ("smile", "closed", "open"))
    assert (
        smile[7, 1] > style.high[1] and closed[7, 0] <= style.rest[0] and opened[7, 0] > 0.9 * style.high[0]
    )
    assert np.abs(smile[0] - style.rest).max() < np.abs(smile[7] - style.rest).max()
