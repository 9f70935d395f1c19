"""The search is exact: equal to trying every sequence of phones."""

import time

import numpy as np
import pytest

from retell.errors import UserError
from retell.measure import equal_to_brute_force, small_case
from retell.phones import CLOSED, DISTANCE, PHONES, numbers
from retell.procedural import Speaker
from retell.search import Costs, Index
from retell.speech import Speech


def test_equals_brute_force():
    assert equal_to_brute_force(1000) == 1000


@pytest.fixture(scope="module")
def hour():
    return Index(Speaker.draw(1).talk(600, np.random.default_rng(1)))


def test_words_of_the_repository_come_in_one_piece(hour):
    for first, last in hour.speech.sentences()[3:9]:
        match = hour.search(hour.speech.phones[first:last], hour.speech.durations[first:last])
        assert match.cost == 0 and len(match.pieces) == 1


def test_pieces_cover_the_query_and_a_dearer_cut_makes_fewer(hour):
    query = numbers("W IY HH OW P T UH K IY P B AE D TH IH NG Z AW T")
    counts = []
    for cut in (5, 60, 400):
        match = Index(hour.speech, Costs(cut=cut)).search(query)
        assert [p[0] for p in match.pieces] == [0, *(p[1] for p in match.pieces[:-1])]
        assert all((match.places[a:b] == np.arange(j, j + b - a)).all() for a, b, j in match.pieces)
        counts.append(len(match.pieces))
    assert counts[0] > counts[1] > counts[2]


def test_a_closed_mouth_is_never_far_from_closed_only():
    closed, other = list(CLOSED), [i for i in range(1, len(PHONES)) if i not in CLOSED]
    assert DISTANCE[np.ix_(closed, closed)].max() < DISTANCE[np.ix_(closed, other)].min()
    assert (DISTANCE == DISTANCE.T).all() and (np.diag(DISTANCE) == 0).all() and DISTANCE.max() == 100


def test_speed(hour):
    query = hour.speech.phones[40:75]
    hour.search(query)
    best = min(_timed(hour, query) for _ in range(5))
    assert best < 0.05, "10 minutes take about 1 ms; a slow machine may take some more"


def _timed(index, query) -> float:
    start = time.perf_counter()
    index.search(query)
    return time.perf_counter() - start


def test_empty():
    speech = Speech(*(np.zeros(0, int) for _ in range(4)), [], 25.0)
    with pytest.raises(UserError):
        Index(speech)
    with pytest.raises(UserError):
        small_case(np.random.default_rng(0))[0].search([])
