"""Retargeting between procedural speakers whose motion is known."""

import numpy as np
import pytest

from retell import retarget
from retell.motion import follow, from_repository, smooth
from retell.procedural import Speaker, sentence
from retell.search import Index


@pytest.fixture(scope="module")
def world():
    random = np.random.default_rng(3)
    index = Index(Speaker.draw(1).talk(400, random))
    speaker = Speaker.draw(2)
    return index, speaker.talk(60, random), speaker.talk(40, random)


def error(world, method: str) -> float:
    index, target, test = world
    return retarget.nrmse(retarget.fit(index, target, method)(test, len(test.motion)), test.motion)


def test_order_of_methods(world):
    errors = {m: error(world, m) for m in retarget.methods(*world[:2]) if "network" not in m}
    assert min(errors["copy"], errors["scale"]) > errors["ridge on source window"]
    assert errors[retarget.DEFAULT] < min(0.75, errors["ridge on source window"])
    assert errors[retarget.DEFAULT] < errors["no source: search in the target"]


def test_network_beats_scaling(world):
    assert error(world, "network on source window") < error(world, "scale")


def test_predicting_the_mean_scores_one(world):
    truth = world[2].motion
    assert retarget.nrmse(np.broadcast_to(truth.mean(0), truth.shape), truth) == pytest.approx(1, abs=1e-5)


def test_closures_are_better_with_phones(world):
    index, target, test = world
    scores = {
        m: retarget.closure(retarget.fit(index, target, m)(test, len(test.motion)), test.motion, test)
        for m in ("scale", retarget.DEFAULT)
    }
    assert scores[retarget.DEFAULT] < scores["scale"]


def test_own_speech_is_followed_exactly(world):
    index = world[0]
    first, last = index.speech.sentences()[5]
    part = index.speech.part(first, last)
    motion = follow(index, index.search(part.phones, part.durations), part, len(part.motion))
    truth = index.speech.at(float(index.speech.start[first]) + np.arange(len(motion)) / part.rate)
    assert np.abs(motion - truth)[1:-1].max() < 1e-4


def test_motion_has_no_steps_at_cuts(world):
    index, target, _ = world
    steps = np.abs(np.diff(from_repository(index, target), axis=0)).max(0)
    assert (steps < 1.5 * np.abs(np.diff(index.speech.motion, axis=0)).max(0)).all()


def test_smooth_keeps_a_constant_and_calms_noise():
    noise = np.random.default_rng(0).normal(0, 1, (200, 2))
    assert smooth(noise, 2).std() < 0.5 * noise.std()
    assert np.allclose(smooth(np.ones((5, 3)), 2), 1)


def test_speakers_are_reproducible_and_close_their_lips():
    a, b = (
        Speaker.draw(7).speak([sentence(np.random.default_rng(1))], np.random.default_rng(2))
        for _ in range(2)
    )
    assert (a.motion == b.motion).all()
    speech = Speaker.draw(7).talk(60, np.random.default_rng(1))
    middles = ((speech.start + speech.end) / 2)[np.isin(speech.phones, retarget.CLOSED)]
    assert np.median(speech.motion[speech.frame(middles - 0.02), 0]) < 0.25 * speech.motion[:, 0].mean()
