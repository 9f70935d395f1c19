"""From edits to a video: what is asked for is seen and heard, and the rest stays as it was."""

import shutil

import numpy as np
import pytest

from retell import draw, media, provenance, render, synth
from retell.background import bridge
from retell.errors import UserError
from retell.mouth import OUTER, to_image
from retell.render import Renderer


@pytest.fixture(scope="module")
def edited(ingested, tmp_path_factory):
    """A recorded word put in another place, words deleted, a gesture, more energy."""
    from retell.project import Project

    folder = tmp_path_factory.mktemp("edited") / "project"
    shutil.copytree(ingested.folder, folder)
    project = Project.open(folder)
    words = project.history.words
    project.history.do({"op": "replace", "first": 2, "last": 3, "text": " ".join(words[12:15])})
    project.history.do({"op": "delete", "first": 8, "last": 10})
    project.history.do({"op": "replace", "first": 12, "last": 12, "text": "[smile]"})
    project.history.do({"op": "perform", "first": 15, "last": 17, "energy": 1.4})
    renderer = Renderer(project)
    result = renderer.render()
    return project, renderer, result, list(media.frames(media.probe(result.path)))


def test_as_long_as_planned_with_sound_of_the_same_length(edited):
    project, _, result, frames = edited
    assert len(frames) == len(result.plan.background) != project.target.about["frames"]
    sound = media.sound(result.path)
    assert 0 <= len(sound) - len(result.plan.samples) < 2048  # AAC fills its last block


def test_untouched_area_stays(edited):
    """Above 40 dB outside the mouth and the label, after encoding, in altered frames too."""
    project, renderer, result, frames = edited
    originals = project.target.frames()
    worst = min(
        outside_psnr(frames[t], originals[int(result.plan.background[t])], renderer, result.plan, t)
        for t in range(0, len(frames), 7)
    )
    assert worst > 40


def outside_psnr(frame, original, renderer, plan, t) -> float:
    keep = np.ones(frame.shape[:2], bool)
    height, width = synth.label_box(renderer.target.size)
    keep[-height:, :width] = False
    if plan.altered[t]:
        pose = renderer.synthesiser.poses[plan.background[t]]
        lips = to_image(renderer.target.mouth.decode(plan.motion[t][None])[0][OUTER], pose)
        where = synth.region(
            renderer.synthesiser.points[plan.background[t], :, :2], lips, renderer.target.size
        )
        keep[where.box] = False
    error = (frame[keep].astype(float) - original[keep]) ** 2
    return float(10 * np.log10(255**2 / error.mean()))


def test_lips_follow_the_parameters(edited, shot):
    _, renderer, result, frames = edited
    altered = np.flatnonzero(result.plan.altered)
    seen = [
        draw.seen_opening(frames[t], renderer.synthesiser.poses[result.plan.background[t]], shot.artist.look)
        for t in altered
    ]
    assert len(altered) > 40
    assert np.corrcoef(seen, result.plan.motion[altered, 0])[0, 1] > 0.9


def test_altered_frames_are_marked_by_the_label(edited):
    _, renderer, result, frames = edited
    height, _ = synth.label_box(renderer.target.size)
    red = np.array(
        [f[-height:, :height, 2].astype(int).max() - f[-height:, :height, 1].max() for f in frames]
    )
    assert red[result.plan.altered].min() > red[~result.plan.altered].max()


def test_head_moves_on_without_a_jump(edited):
    _, renderer, result, _ = edited
    poses = renderer.synthesiser.poses[result.plan.background]
    step = np.abs(np.diff(poses[:, 1])) / np.abs(poses[:-1, 0])
    usual = np.abs(np.diff(renderer.synthesiser.poses[:, 1])).max() / np.abs(poses[:, 0]).min()
    assert step.max() < 3 * usual


def test_an_edit_encodes_only_its_neighbourhood(edited):
    project, renderer, _result, _ = edited
    again = renderer.render()
    assert again.encoded == 0 and not again.fresh
    project.history.do({"op": "perform", "first": 20, "last": 21, "smooth": 2.0})
    changed = renderer.render()
    word = changed.plan.words[20]
    frames = (word["end"] - word["start"]) * renderer.planner.rate
    assert 0 < changed.encoded < frames + 3 * renderer.planner.rate
    project.history.undo()
    assert renderer.render().encoded == 0


def test_sound_and_picture_meet(project, shot):
    """An untouched render: its sound lies on the recording's, to a quarter of a frame."""
    result = Renderer(project).render()
    sound, original = media.sound(result.path).astype(float), media.sound(shot.path).astype(float)
    n = min(len(sound), len(original)) - 2000
    scores = [float(sound[1000 + lag : n + lag] @ original[1000:n]) for lag in range(-480, 481, 8)]
    assert abs(int(np.argmax(scores)) - 60) * 8 <= 48000 / 25 / 4
    assert not result.plan.altered.any()


def test_moved_words_are_heard_where_they_are_seen(edited):
    project, _, result, _ = edited
    word = next(w for w in result.plan.words if w["token"] == 3)
    source = project.target.speech.words[13]
    start = project.target.speech.word_times(source)[0]
    piece = project.target.sound[round(start * 48000) :][
        : round((word["end"] - word["start"]) * 48000)
    ].astype(float)
    heard = result.plan.samples[round(word["start"] * 48000) :][: len(piece)].astype(float)
    assert np.corrcoef(piece, heard)[0, 1] > 0.95


def test_manifest_says_what_was_done_and_shows_tampering(edited, tmp_path):
    project, renderer, _, _ = edited
    result = renderer.render(tmp_path / "result.mp4")
    report = provenance.read(result.path)
    assert report["intact"] and report["about"]["edits"] == project.history.done
    assert report["about"]["source_sha256"] == project.target.about["source_sha256"]
    assert report["about"]["consent"][0]["statement"] and report["about"]["visible_label"] is True
    data = bytearray(result.path.read_bytes())
    data[-5000] ^= 1
    (tmp_path / "changed.mp4").write_bytes(data)
    assert not provenance.read(tmp_path / "changed.mp4")["intact"]
    renderer.render(tmp_path / "plain.mp4", labelled=False)
    assert provenance.read(tmp_path / "plain.mp4")["about"]["visible_label"] is False


def test_files_without_manifest_are_said_so(shot):
    with pytest.raises(UserError, match="manifest"):
        provenance.read(shot.path)


def test_own_mouth_pasted_back_changes_nothing(edited):
    _, renderer, _, _ = edited
    s = renderer.synthesiser
    for t in range(5, 60, 11):
        picture, where = s.draw(t, s.motion[t], t)
        inside = picture[where.box].astype(float) - s.frames[t][where.box]
        assert 10 * np.log10(255**2 / max((inside**2).mean(), 1e-9)) > 30
        outside = np.ones(picture.shape[:2], bool)
        outside[where.box] = False
        assert (picture[outside] == s.frames[t][outside]).all()


def test_damaged_cache_is_encoded_again(edited):
    project, renderer, _, _ = edited
    for file in list((project.cache / "segments").glob("*.npz"))[:40]:
        file.write_bytes(b"not an archive")
    result = renderer.render()
    assert result.encoded > 0 and provenance.read(result.path)["intact"]


@pytest.mark.parametrize(
    ("first", "last", "length"),
    [
        (100, 104, 60),
        (100, 120, 20),
        (100, 130, 0),
        (100, 112, 0),
        (2, 4, 80),
        (295, 300, 70),
        (0, 0, 30),
        (50, 290, 4),
    ],
)
def test_backgrounds_are_continuous(first, last, length):
    random = np.random.default_rng(0)
    poses = draw.head_motion(300, (640, 360), random)
    over = bridge(first, last, length, poses)
    frames = np.concatenate([[max(first - over.before - 1, 0)], over.frames, [min(last + over.after, 299)]])
    assert len(over.frames) == over.before + length + over.after
    assert (over.frames >= 0).all() and (over.frames < 300).all()
    steps = np.abs(np.diff(frames))
    assert (np.sort(steps)[:-1] <= 2).all()  # at most one cut
    if last - first < 200:
        assert steps.max() <= 3 or over.jump < 0.3


def test_runs():
    assert render._runs(np.array([1, 1, 0, 1, 0, 0, 1], bool)) == [(0, 2), (3, 4), (6, 7)]
    assert render._runs(np.zeros(3, bool)) == []


def test_segments_of_any_length_join(tmp_path):
    """Frames of segments of 1, 2, 3, 25 and 7 frames come out in order, each at its time."""
    from fractions import Fraction

    from retell.encode import encode_segment, write_result

    rate, size, number, segments = Fraction(25), (128, 96), 0, []
    for length in (1, 2, 3, 25, 7, 1):
        pictures = [np.full((96, 128, 3), 5 * (number + i) + 10, np.uint8) for i in range(length)]
        segments.append(encode_segment(pictures, rate, size))
        number += length
    path = tmp_path / "joined.mp4"
    write_result(path, segments, np.ones(number * 1920, np.int16), rate, size)
    levels = [f.mean() for f in media.frames(media.probe(path))]
    assert np.abs(np.array(levels) - (5 * np.arange(number) + 10)).max() < 4


def test_flash_and_click_come_together(tmp_path):
    """White frames at 1, 2 and 3 s with a click each: decoded, they are less than half a frame apart."""
    from fractions import Fraction

    from retell.encode import encode_segment, write_result

    rate, size = Fraction(30000, 1001), (128, 96)
    flashes = [30, 60, 90]
    pictures = [np.full((96, 128, 3), 250 if i in flashes else 20, np.uint8) for i in range(110)]
    segments = [encode_segment(pictures[a:b], rate, size) for a, b in ((0, 30), (30, 45), (45, 110))]
    sound = np.zeros(round(110 * 48000 / rate), np.int16)
    for i in flashes:
        sound[round(i * 48000 / rate) :][:48] = 20000
    path = tmp_path / "flash.mp4"
    write_result(path, segments, sound, rate, size)
    clip = media.probe(path)
    assert clip.rate == rate
    seen = [i for i, f in enumerate(media.frames(clip)) if f.mean() > 150]
    heard = media.sound(path).astype(int)
    assert seen == flashes
    for i in flashes:
        at = round(i * 48000 / rate)
        loud = np.flatnonzero(np.abs(heard[at - 2400 : at + 2400]) > 8000)[0] - 2400
        assert abs(loud) < 0.5 * 48000 / rate
