"""Recordings enter a project whatever their form, and what cannot be used is refused with a way out."""

import shutil
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from conftest import CONSENT

from retell import face, media, studio
from retell.align import align, doubtful
from retell.errors import UserError
from retell.ingest import ingest, transcript_of
from retell.phones import CLOSED, OPEN_VOWELS
from retell.project import Project, read_wav
from retell.words import Lexicon


def write(path, pictures, sound=None, rate=25, times=None, rotation=None):
    """A video file by hand: with odd times, without sound, to be turned."""
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=rate)
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        audio = file.add_stream("aac", rate=48000, layout="mono") if sound is not None else None
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
            frame.pts, frame.time_base = (
                round(1000 * (times[i] if times is not None else i / rate)),
                Fraction(1, 1000),
            )
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(sound[None], "s16", "mono")
            frame.rate, frame.pts = 48000, 0
            file.mux(audio.encode(frame))
            file.mux(audio.encode(None))
    if rotation:
        turn_display(path, rotation)
    return path


def turn_display(path, degrees):
    """Set the display matrix in the MP4's track header, as phones do."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = [cosine, sine, 0, -sine, cosine, 0, 0, 0, 1]
    fixed = [round(v * 65536) if i % 3 < 2 else round(v * 2**30) for i, v in enumerate(matrix)]
    data[at : at + 36] = b"".join(int(v).to_bytes(4, "big", signed=True) for v in fixed)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def pictures(shot):
    return [shot.frame(i) for i in range(0, 50)]


@pytest.fixture(scope="module")
def sound(shot):
    return studio.voice(shot.speech, 120.0, 0)[: 2 * 48000]


def test_alignment_is_near_the_truth(shot, ingested):
    found, truth = ingested.target.speech, shot.speech
    assert [w.text for w in found.words] == [w.text for w in truth.words]
    starts = [
        abs(found.start[a.first] - truth.start[b.first])
        for a, b in zip(found.words, truth.words, strict=True)
    ]
    assert np.median(starts) <= 0.02 and np.percentile(starts, 90) < 0.1


def test_parameters_follow_the_truth(shot, ingested):
    found, truth = ingested.target.speech.motion, shot.speech.motion
    assert np.corrcoef(found[:, 0], truth[: len(found), 0])[0, 1] > 0.99


def test_project_holds_consent_hashes_and_no_pickle(ingested):
    assert ingested.about["consent"][0]["statement"] == CONSENT
    ingested.target.check()
    for file in ingested.folder.rglob("*.npz"):
        np.load(file, allow_pickle=False)


def test_changed_files_are_noticed(project):
    (project.folder / "target" / "mouth.npz").write_bytes(b"other")
    with pytest.raises(UserError, match="as it was ingested"):
        project.target.check()


def test_goes_on_after_being_killed(shot, tmp_path):
    """The process is killed while it tracks; what came before is not done again, and the result is complete."""
    script = (
        "import sys, os; from pathlib import Path; from retell.ingest import ingest; from retell.project import Project\n"
        "def tracker(frames): os.kill(os.getpid(), 9)\n"
        f"ingest(Project(Path(sys.argv[1])), Path({str(shot.path)!r}), {shot.transcript!r}, {CONSENT!r}, tracker=tracker)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "p")], capture_output=True)
    assert done.returncode == -9
    said: list[str] = []
    project = Project(tmp_path / "p")
    ingest(project, shot.path, shot.transcript, CONSENT, tracker=shot.track, say=said.append)
    assert said == ["target: track.npz"]
    project.target.check()
    assert len(project.about["consent"]) == 1


def test_another_input_starts_over(shot, tmp_path):
    def stop(frames):
        raise KeyboardInterrupt

    project, said = Project(tmp_path / "p"), []
    with pytest.raises(KeyboardInterrupt):
        ingest(project, shot.path, shot.transcript, CONSENT, tracker=stop)
    shutil.copy(shot.path, tmp_path / "ünïcode $(x) 'name'.mp4")
    words = shot.transcript.split()
    ingest(
        project,
        tmp_path / "ünïcode $(x) 'name'.mp4",
        " ".join(words) + "\n",
        CONSENT,
        tracker=shot.track,
        say=said.append,
    )
    assert said == ["target: track.npz"]  # the same video under another name is the same input
    with pytest.raises(UserError, match="once"):
        ingest(project, shot.path, shot.transcript, CONSENT, tracker=shot.track)


def test_varying_frame_rate(pictures, sound, tmp_path):
    times = np.cumsum(np.random.default_rng(0).choice([0.02, 0.04, 0.08], 50)) - 0.02
    clip = media.probe(write(tmp_path / "v.mp4", pictures, sound, times=times))
    frames = list(media.frames(clip))
    assert any("varies" in note for note in clip.notes)
    assert abs(len(frames) / clip.rate - times[-1]) < 0.15
    middle = len(frames) // 2
    shown = pictures[
        int(np.searchsorted(times - times[0], (middle + 0.5) / float(clip.rate), side="right")) - 1
    ]
    assert np.abs(frames[middle].astype(int) - shown).mean() < 4


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_phone_video_is_upright(pictures, sound, tmp_path, degrees):
    turned = [np.rot90(p, degrees // 90).copy() for p in pictures[:10]]
    clip = media.probe(write(tmp_path / "r.mp4", turned, sound, rotation=degrees))
    frame = next(media.frames(clip))
    assert clip.size == (320, 180) and any("rotation" in note for note in clip.notes)
    assert np.abs(frame.astype(int) - pictures[0]).mean() < 4


def test_4k_is_scaled_and_said(sound, tmp_path):
    big = [np.zeros((2160, 3840, 3), np.uint8)] * 3
    clip = media.probe(write(tmp_path / "4k.mp4", big, sound))
    assert clip.size == (1280, 720) and "3840x2160 is scaled down to 1280x720" in clip.notes
    assert next(media.frames(clip)).shape == (720, 1280, 3)


def test_refusals_of_files(pictures, sound, tmp_path):
    (tmp_path / "text.mp4").write_text("no video at all")
    (tmp_path / "empty.mp4").write_bytes(b"")
    for bad in ("text.mp4", "empty.mp4", "absent.mp4", "."):
        with pytest.raises(UserError):
            media.probe(tmp_path / bad)
    with pytest.raises(UserError, match="sound track"):
        media.probe(write(tmp_path / "mute.mp4", pictures[:5]))
    with pytest.raises(UserError, match="silence"):
        media.sound(write(tmp_path / "quiet.mp4", pictures[:5], np.zeros(9600, np.int16)))
    broken = write(tmp_path / "cut.mp4", pictures, sound).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(broken[: len(broken) // 2])
    with pytest.raises(UserError):
        media.probe(tmp_path / "cut.mp4")


def test_disk_full_is_said_and_nothing_half_written(tmp_path, monkeypatch):
    import errno
    import os

    from retell import files

    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no space")))
    with pytest.raises(UserError, match="free space"):
        files.write_json(tmp_path / "a.json", {})
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="MB free"):
        files.require_space(tmp_path, 10**18)


def test_consent_and_transcript_are_required(shot, tmp_path):
    with pytest.raises(UserError, match="consent"):
        ingest(Project(tmp_path / "p"), shot.path, shot.transcript, "yes")
    assert not (tmp_path / "p" / "target").exists()
    with pytest.raises(UserError, match="transcript is needed"):
        transcript_of(shot.path, None)
    (tmp_path / "t.txt").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(UserError, match="UTF-8"):
        transcript_of(shot.path, tmp_path / "t.txt")


def test_transcript_that_does_not_match(shot):
    samples, rate = media.sound(shot.path), media.SOUND
    with pytest.raises(UserError, match="transcript"):
        align(samples[: rate // 2], rate, shot.transcript, Lexicon())
    with pytest.raises(UserError, match="hold words"):
        align(samples, rate, " -- ", Lexicon())


def test_unknown_words_are_guessed_and_said(shot, tmp_path):
    words = shot.transcript.split()
    strange = " ".join(["houze" if w == "house" else w for w in words]) + ""
    lexicon = Lexicon(own={"houze": "HH AW S"})
    speech = align(media.sound(shot.path), media.SOUND, strange, lexicon)
    assert [w.text for w in speech.words] == strange.split()
    assert not lexicon.guessed


def test_real_clips_are_aligned_and_tracked(clips, models):
    """Eleven clips: words in place, openings of open vowels larger than those of p and b."""
    from retell.clips import sentence_of

    openings: dict[bool, list[float]] = {True: [], False: []}
    from retell.mouth import measured, pose

    for path in clips[:4]:
        clip = media.probe(path)
        points, seen = face.track(media.frames(clip))
        speech = align(media.sound(path), media.SOUND, sentence_of(path), Lexicon(), float(clip.rate))
        assert seen.all() and len(speech.words) == 6
        opening = measured(points, pose(points))[:, 0]
        for phone, a, b in zip(speech.phones, speech.start, speech.end, strict=True):
            if phone in OPEN_VOWELS or phone in CLOSED:
                openings[phone in CLOSED].append(opening[min(int((a + b) / 2 * 25), len(opening) - 1)])
    better = np.mean([[o > c for o in openings[False]] for c in openings[True]])
    assert better > 0.9


def test_words_that_were_not_said_are_doubted(clips):
    """One word of each sentence replaced: most are named, hardly any of the right ones."""
    from retell.clips import sentence_of

    caught, alarms = 0, 0
    for path in clips[:4]:
        words = sentence_of(path).split()
        alarms += len(doubtful(align(media.sound(path), media.SOUND, " ".join(words), Lexicon())))
        words[1] = "green"
        caught += 1 in doubtful(align(media.sound(path), media.SOUND, " ".join(words), Lexicon()))
    assert caught >= 3 and alarms <= 2


def test_faces_that_cannot_be_used(models):
    blank = [np.full((180, 320, 3), 128, np.uint8)] * 6
    with pytest.raises(UserError, match="no face"):
        face.track(blank)


def test_two_faces_and_a_face_that_leaves(models):
    shot = studio.shoot(2, [["the", "house"]], (640, 360), 1)
    one = shot.frame(3)
    two = np.concatenate([one[:, 140:500], one[:, 140:500]], 1)
    with pytest.raises(UserError, match="2 faces"):
        face.track([two] * 3)
    gone = np.full_like(one, 128)
    points, seen = face.track([one] * 8 + [gone] * 4 + [one] * 8)
    assert seen[:8].all() and not seen[8:12].any() and seen[12:].all()
    assert np.isfinite(points).all()


def test_wav_round_trip(ingested):
    samples, rate = read_wav(ingested.folder / "target" / "sound.wav")
    assert rate == media.SOUND and samples.any()
