"""Maximum spanning arborescences against networkx."""

import networkx
import numpy as np
import pytest

from talking_heads.heads.arborescence import arborescences
from tests.cases import in_ci


def by_networkx(scores):
    """The greatest sum of scores."""
    graph = networkx.DiGraph()
    graph.add_weighted_edges_from(
        (parent, child, scores[child, parent])
        for child in range(1, len(scores))
        for parent in range(len(scores))
        if parent != child
    )
    return networkx.maximum_spanning_arborescence(graph).size("weight")


@pytest.mark.parametrize("graphs", in_ci([200, 10_000], 200))
def test_random_graphs(graphs):
    draw = np.random.default_rng(graphs)
    for size in range(2, 12):
        scores = draw.normal(size=(graphs // 10, size, size))
        scores[::3] = draw.random((len(scores[::3]), size, size)).round(1)  # many ties
        scores[1::3] = np.exp(4 * scores[1::3])
        found = arborescences(scores)
        for matrix, parents in zip(scores, found, strict=True):
            assert parents[0] == -1 and (parents[1:] >= 0).all()
            for node in range(1, size):  # every node comes from node 0
                for _ in range(size):
                    node = parents[node] if node else 0
                assert node == 0
            total = matrix[np.arange(1, size), parents[1:]].sum()
            assert total == pytest.approx(by_networkx(matrix), rel=1e-9, abs=1e-9)


def test_a_cycle_within_a_cycle():
    scores = np.full((1, 5, 5), 0.0)
    scores[0, 1, 2], scores[0, 2, 1] = 10, 10  # 1 and 2 choose each other,
    scores[0, 3, 1], scores[0, 2, 3] = 9, 8  # then with 3
    scores[0, 4, 3], scores[0, 3, 0] = 5, 3
    assert arborescences(scores).tolist() == [[-1, 2, 3, 0, 3]]


def test_a_node_alone_and_no_matrices():
    assert arborescences(np.zeros((3, 1, 1))).tolist() == [[-1]] * 3
    assert arborescences(np.zeros((0, 4, 4))).shape == (0, 4)
