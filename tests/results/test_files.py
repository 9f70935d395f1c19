"""What is written survives a kill, a full disk and an error; what others own is left alone."""

import contextlib
import errno
import json
import os
import stat
import subprocess
import sys

import pytest

from talking_heads.errors import UserError
from talking_heads.results import files, folders
from talking_heads.results.files import reserved, sweep, write_bytes, write_json, write_text
from talking_heads.results.folders import LOCK, MARKER, check, claim, lock, new_folder
from talking_heads.results.output import Output


def mode(path):
    return oct(stat.S_IMODE(path.stat().st_mode))


def names(folder):
    return sorted(x.name for x in folder.iterdir())


def test_a_file_of_a_results_folder(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"x": float("nan"), 1: (path, 2.0)})
    assert json.loads(path.read_text()) == {"x": None, "1": [str(path), 2.0]}
    assert mode(path) == oct(0o666 & ~files.umask()) and names(path.parent) == ["a.json"]
    path.chmod(0o600)
    write_text(path, "\udcff")
    assert mode(path) == "0o600" and path.read_text() == "?"
    (tmp_path / "precious").write_text("mine")
    path.unlink()
    path.symlink_to(tmp_path / "precious")
    write_text(path, "ours")
    assert not path.is_symlink() and (tmp_path / "precious").read_text() == "mine"


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    code = (
        "import os, sys, pathlib; from talking_heads.results.files import reserved, folder_of\n"
        "with reserved(pathlib.Path(sys.argv[1])) as (path, _):\n"
        "    folder_of(path).mkdir(); (folder_of(path) / 'weights').write_text('x')\n"
        "    print('ready', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"ready\n"
    (tmp_path / ".talking-heads-mine.tmp").mkdir()
    (tmp_path / ".talking-heads-link.tmp").symlink_to(tmp_path / "elsewhere")
    with reserved(tmp_path):
        sweep(tmp_path)
        assert len(names(tmp_path)) == 5
    other.kill()
    other.communicate()
    sweep(tmp_path)
    assert names(tmp_path) == [".talking-heads-link.tmp", ".talking-heads-mine.tmp"]


@pytest.mark.parametrize("held", [None, "notes.txt", ".env", ".lock", "report.html"])
def test_a_folder_is_claimed_if_it_is_new_or_empty(tmp_path, held):
    out = tmp_path / "out"
    if held:
        out.mkdir()
        (out / held).write_text("mine")
        with pytest.raises(UserError, match="must be new or empty; got other files"):
            claim(out, "compare")
        assert names(out) == [held]
    else:
        claim(out, "compare")
        write_text(out / "results.json", "{}")
        claim(out, "compare")
        check(out, "report", "compare")
        with pytest.raises(UserError, match="this command's own; got the results of compare"):
            claim(out, "bench")


def test_a_folder_below_a_file_is_refused_before_the_work(tmp_path):
    (tmp_path / "notes").write_text("mine")
    for out in (tmp_path / "notes" / "out", tmp_path / "notes" / "a" / "b"):
        with pytest.raises(UserError, match=r"can be written; got .*notes is a file"):
            check(out, "compare")


def test_a_claimed_folder_without_results_is_free(tmp_path):
    claim(tmp_path, "compare")
    claim(tmp_path, "bench")
    assert folders.kind_of(tmp_path) == "bench"
    with pytest.raises(UserError, match="must be new or empty; got the file"):
        claim(tmp_path / MARKER, "bench")


def test_a_marker_or_a_lock_that_is_a_link_is_refused_before_the_work(tmp_path):
    (tmp_path / "precious").write_text('{"kind": "compare"}')
    for name, said in ((MARKER, "new or empty"), (LOCK, "plain file")):
        out = tmp_path / f"out-{name}"
        out.mkdir()
        (out / name).symlink_to(tmp_path / "precious")
        for code in (check, claim):
            with pytest.raises(UserError, match=said):
                code(out, "compare")
        assert names(out) == [name] and (tmp_path / "precious").read_text() == '{"kind": "compare"}'


@pytest.mark.parametrize("marker", ["[]", "{", '{"kind": 3}', "{}" + " " * 2**17])
def test_a_marker_by_somebody_else_is_none(tmp_path, marker):
    (tmp_path / MARKER).write_text(marker)
    (tmp_path / "mine").write_text("")
    with pytest.raises(UserError, match="new or empty"):
        claim(tmp_path, "compare")


def test_a_lock_is_never_followed_nor_emptied(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for make in (lambda path: path.symlink_to(precious), os.mkfifo, os.mkdir):
        folder = tmp_path / "folder"
        folder.mkdir()
        make(folder / LOCK)
        with pytest.raises(UserError, match="plain file"), lock(folder):
            pass
        assert precious.read_text() == "mine"
        folder.rename(tmp_path / f"done-{make}")
    (tmp_path / LOCK).write_text("kept")
    with lock(tmp_path) as mine, lock(tmp_path, wait=False) as theirs:
        assert mine and not theirs
    assert (tmp_path / LOCK).read_text() == "kept"


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    import fcntl

    def none(*given):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    write_text(tmp_path / "a", "x")  # one file needs none
    with pytest.raises(UserError, match="file system with locks"), lock(tmp_path):
        pass


def test_a_new_folder_follows_links_and_takes_the_current_one(tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    (tmp_path / "dangling").symlink_to(tmp_path / "later")
    monkeypatch.chdir(tmp_path / "here")
    for path in (tmp_path / "link", tmp_path / "dangling", ".", "../plain"):
        with new_folder(path) as aside:
            (aside / "config.json").write_text("{}")
        with pytest.raises(UserError, match="new or empty"), new_folder(path):
            pass
    for name in ("disk", "later", "here", "plain"):
        assert names(tmp_path / name) == ["config.json"]
    assert os.path.samefile(".", tmp_path / "here") and (tmp_path / "link").is_symlink()
    assert names(tmp_path) == ["dangling", "disk", "here", "later", "link", "plain"]


class Faults:
    """A file layer whose n-th call of write, fsync, rename, open, mkdir or rmtree's unlink fails."""

    NAMES = ("write", "fsync", "replace", "open", "mkdir", "fchmod")

    def __init__(self, monkeypatch, number):
        self.count, self.number = 0, number
        for name in self.NAMES:
            monkeypatch.setattr(os, name, self.failing(name, getattr(os, name)))

    def failing(self, name, real):
        def call(*given, **more):
            self.count += 1
            if self.count == self.number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*given, **more)

        return call


def work(folder):
    """A command's writing: claim, two results, a folder of weights, the report of what is there."""
    claim(folder, "compare")
    with lock(folder):
        for number in range(2):
            path = folder / "runs" / str(number) / "result.json"
            if not path.exists():
                write_json(path, {"number": number})
            model = path.parent / "model"
            if not model.exists():
                with new_folder(model) as aside:
                    write_bytes(aside / "weights", b"w" * 100)
                    write_bytes(aside / "config.json", b"{}")
        write_json(
            folder / "results.json", [json.loads(x.read_text()) for x in folder.glob("runs/*/result.json")]
        )
    Output(folder.parent / "copy.json").write_json({"done": 2})


def test_the_nth_call_fails_for_every_n(tmp_path):
    number, failed = 0, 0
    while True:
        number += 1
        place = tmp_path / str(number)
        place.mkdir()
        (place / "copy.json").write_text('{"done": 0}')
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, number)
            try:
                work(place / "out")
            except (OSError, UserError):
                failed += 1
        if faults.count < number:
            break
        for path in place.rglob("*.json"):  # whole, before and after
            json.loads(path.read_text())
        work(place / "out")
        assert json.loads((place / "copy.json").read_text()) == {"done": 2}
        assert sorted(str(x.relative_to(place)) for x in place.rglob("*") if x.is_file()) == [
            "copy.json", "out/.talking-heads.json", "out/.talking-heads.lock", "out/results.json",
            "out/runs/0/model/config.json", "out/runs/0/model/weights", "out/runs/0/result.json",
            "out/runs/1/model/config.json", "out/runs/1/model/weights", "out/runs/1/result.json",
        ]  # fmt: skip
    assert failed > 40


def test_an_output_that_is_a_link_a_pipe_a_descriptor_or_closed_to_others(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    Output(link).write("new")
    assert link.is_symlink() and target.read_text() == "new" and mode(target) == "0o600"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    Output(tmp_path / "pipe").write("through")
    assert os.read(reader, 99) == b"through" and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    ends = os.pipe()
    (tmp_path / "fd").symlink_to("/proc/self/fd")
    for place in (f"/dev/fd/{ends[1]}", tmp_path / "fd" / str(ends[1])):
        Output(place).write("here")
        assert os.read(ends[0], 99) == b"here"
    with pytest.raises(UserError, match="open for writing"):
        Output(f"/dev/fd/{ends[0]}")
    for end in (reader, *ends):
        os.close(end)
    Output("/dev/null").write("gone")
    assert stat.S_ISCHR(os.lstat("/dev/null").st_mode)


def test_standard_output_as_an_output(capsys):
    for name in ("-", "/dev/stdout"):
        output = Output(name)
        assert output.is_stdout and not output.is_file
        output.say("for people")
        output.write_json({"a": 1})
    out, err = capsys.readouterr()
    assert err == "for people\n" * 2 and out == '{\n "a": 1\n}\n' * 2
    Output(None).write_json({})
    Output(None).say("for people")
    assert capsys.readouterr().out == "for people\n"


def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "notes").write_text("mine")
    for name, said in (
        (tmp_path, "the folder"),
        (tmp_path / "notes" / "a.json", "below a file|Not a directory"),
    ):
        with pytest.raises(UserError, match=f"--json must .*({said})"):
            Output(name)

    def refuse(*given, **more):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match="Read-only file system"):
        Output(tmp_path / "new" / "a.json")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["new\nline.json", os.fsdecode(b"\xff.json"), "x" * 250 + ".json"])
def test_odd_names(tmp_path, name):
    with contextlib.suppress(UserError):
        output = Output(tmp_path / name)
        output.write_json({"path": tmp_path / name})
        assert json.loads((tmp_path / name).read_bytes())["path"] == str(tmp_path / name)
