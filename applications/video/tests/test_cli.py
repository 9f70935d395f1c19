"""The same operations as commands."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import CONSENT

from retell import studio
from retell.cli import main
from retell.demo import demo
from retell.ingest import ingest
from retell.procedural import Speaker
from retell.project import Project, write_wav
from retell.render import Renderer


def run(capsys, *arguments) -> tuple[int, str, str]:
    status = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_edit_and_render(project, capsys, tmp_path):
    at = ("--project", project.folder)
    words = project.history.words
    edits = [
        ("replace", 1, 2, words[6]),
        ("insert", 4, words[8]),
        ("gesture", 5, "open"),
        ("delete", 9, 10),
        ("perform", 10, 12, "--energy", 0.5, "--smooth", 1),
        ("shift", 10, 1, 0.04),
        ("curve", 11, 0, "0:0", "0.5:1.5", "1:0"),
        ("undo",),
        ("redo",),
    ]
    for edit in edits:
        status, out, err = run(capsys, "edit", *at, *edit)
        assert status == 0, err
    assert out.split()[1] == words[6] and "[open]" in out
    status, out, _ = run(capsys, "show", *at)
    assert "(new)" in out and "(refined)" in out
    status, out, _ = run(capsys, "render", *at, "--out", tmp_path / "it's a result.mp4")
    assert status == 0 and json.loads(out.splitlines()[-1])["frames_encoded"] > 0
    status, out, _ = run(capsys, "verify", tmp_path / "it's a result.mp4")
    assert status == 0 and len(json.loads(out)["about"]["edits"]) == 7


def test_text_with_a_sound(project, capsys, tmp_path):
    speech = Speaker.draw(3).speak([["purple", "window"]], np.random.default_rng(0))
    write_wav(tmp_path / "said.wav", studio.voice(speech, 120, 0))
    words = project.history.words
    text = " ".join([*words[:3], "purple", "window", *words[5:]])
    status, _, err = run(
        capsys, "edit", "--project", project.folder, "--sound", tmp_path / "said.wav", "text", text
    )
    assert status == 0, err
    plan = Renderer(Project.open(project.folder)).planner.plan()
    assert [w["text"] for w in plan.words][3:5] == ["purple", "window"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "--project", "absent"], "project folder is needed"),
        (
            ["ingest", "absent.mp4", "--project", "p", "--consent", "she agreed to this"],
            "transcript is needed",
        ),
        (["verify", "absent.mp4"], "no file"),
        (["models", "--wheel", "absent.whl"], "wheel"),
        (["pronounce", "word", "QQ", "--project", "p"], "ARPAbet"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, *arguments)
    assert status == 2 and message in err and len(err.strip().splitlines()) == 1 and err.count(";") >= 2


def test_consent_is_asked_for(shot, capsys, tmp_path):
    (tmp_path / "t.txt").write_text(shot.transcript)
    status, _, err = run(capsys, "ingest", shot.path, tmp_path / "t.txt", "--project", tmp_path / "p")
    assert status == 2 and "consent" in err and not (tmp_path / "p").exists()


def test_ingest_by_command_with_the_face_mesh(models, shot, capsys, tmp_path):
    """The real tracker on the drawn face: its opening follows the truth, as far as it can on a drawing."""
    (tmp_path / "t.txt").write_text(shot.transcript)
    arguments = ("ingest", shot.path, tmp_path / "t.txt", "--project", tmp_path / "p", "--consent", CONSENT)
    status, _, err = run(capsys, *arguments)
    assert status == 0, err
    found = Project.open(tmp_path / "p").target.speech.motion[:, 0]
    assert np.corrcoef(found, shot.speech.motion[: len(found), 0])[0, 1] > 0.5


def test_a_source_lends_its_motion(project, tmp_path):
    source = studio.shoot(
        1, [["the", "house", "was", "open"], ["my", "mother", "opens", "the", "window"]], (320, 180), 4
    )
    film = studio.film(source, tmp_path / "source.mp4")
    recording = ingest(project, film, source.transcript, CONSENT, "anna", source.track)
    recording.check()
    assert not (recording.folder / "frames.mp4").exists()
    assert len(project.repository()) == len(recording.speech)
    project.history.do({"op": "replace", "first": 1, "last": 2, "text": project.history.words[6]})
    assert Renderer(project).planner.plan().altered.any()


def test_killed_while_rendering_loses_nothing(project):
    script = (
        "import sys, os; from retell.project import Project; from retell.render import Renderer\n"
        "p = Project.open(sys.argv[1]); p.history.do({'op': 'delete', 'first': 3, 'last': 5}); r = Renderer(p)\n"
        "r.render(progress=lambda stage, part: os.kill(os.getpid(), 9) if part > 0.6 else None)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(project.folder)], capture_output=True)
    assert done.returncode == -9
    fresh = Project.open(project.folder)
    assert len(fresh.history.done) == 1
    result = Renderer(fresh).render()
    assert 0 < result.encoded < len(result.plan.background)  # finished segments are not encoded again


def test_demo_in_small(tmp_path):
    results = demo(
        tmp_path / "demo", lambda line: None, target_seconds=10, minutes=2, size=(320, 180), cases=50
    )
    assert results["search"]["equal_to_brute_force"] is True and results["search"]["repository_minutes"] > 1.5
    assert results["lip_correlation"] > 0.9 and results["outside_psnr_db"] > 40 and results["provenance"]
    assert len(results["retargeting"]) == 8 and results["seconds_per_edit"]["total"] > 0
    assert json.loads((tmp_path / "demo" / "results.json").read_text()) == results
    for name in ("edited.mp4", "index.html", "sheet.png"):
        assert (tmp_path / "demo" / name).stat().st_size > 1000
