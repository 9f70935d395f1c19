"""Maximum spanning arborescences by Chu-Liu/Edmonds, of many score matrices at once."""

from typing import NamedTuple

import numpy as np


class _Step(NamedTuple):
    """One cycle contracted in each of some matrices, as it was before."""

    rows: np.ndarray  # [k] which matrices
    node: np.ndarray  # [k] the node that stands for the cycle from here on
    cycle: np.ndarray  # [k, n] bool
    arcs: np.ndarray  # [k, n] each node's best arc, as child * n + parent of the original nodes
    within: np.ndarray  # [k, n] the node that stood for each original node


def arborescences(scores: np.ndarray) -> np.ndarray:
    """[matrices, nodes]: each node's parent in the arborescence from node 0 with the greatest sum; -1 at node 0.

    Args:
        scores: [matrices, nodes, nodes], how good the second node is as the parent of the first.
    """
    count, n = scores.shape[:2]
    scores = np.where(np.eye(n, dtype=bool), -np.inf, scores.astype(np.float64))
    scores[:, 0] = -np.inf
    arcs = np.tile(np.arange(n * n).reshape(n, n), (count, 1, 1))  # the original arc behind each arc
    within = np.tile(np.arange(n), (count, 1))
    steps, rows = [], np.arange(count)
    while len(rows):
        parents, on_cycle = _cycles(scores[rows])
        rows, parents, on_cycle = (x[on_cycle > 0] for x in (rows, parents, on_cycle))
        if len(rows):
            steps.append(_contract(scores, arcs, within, rows, parents, on_cycle))
    return _expand(scores, arcs, within, steps)


def _cycles(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each node's best parent, and a node on a cycle of best parents, 0 where there is none."""
    parents = scores.argmax(-1)  # 0 for node 0 and for nodes that were contracted into another
    reached = parents
    for _ in range(scores.shape[1].bit_length()):  # parents of parents, enough steps up to reach a cycle
        reached = np.take_along_axis(reached, reached, 1)
    return parents, reached.max(1, initial=0)


def _contract(
    scores: np.ndarray,
    arcs: np.ndarray,
    within: np.ndarray,
    rows: np.ndarray,
    parents: np.ndarray,
    node: np.ndarray,
) -> _Step:
    """Replaces, in place, the cycle through `node` by that node."""
    here = np.arange(len(rows))
    cycle = np.zeros(parents.shape, bool)
    place = node
    while not cycle[here, place].all():
        cycle[here, place] = True
        place = parents[here, place]
    s, a = scores[rows], arcs[rows]
    best = np.where(cycle, np.take_along_axis(s, parents[..., None], 2)[..., 0], 0)
    own = np.take_along_axis(a, parents[..., None], 2)[..., 0]
    step = _Step(rows, node, cycle, own, within[rows])
    # an arc into the cycle replaces the best arc of the node that it enters
    into = np.where(cycle[:, :, None], s - best[:, :, None], -np.inf)
    entered = into.argmax(1)[:, None]
    out = np.where(cycle[:, None], s, -np.inf)
    left = out.argmax(2)[..., None]
    arcs_in, arcs_out = np.take_along_axis(a, entered, 1)[:, 0], np.take_along_axis(a, left, 2)[..., 0]
    s[cycle[:, :, None] | cycle[:, None]] = -np.inf
    s[here, node] = np.where(cycle, -np.inf, into.max(1))
    s[here, :, node] = np.where(cycle, -np.inf, out.max(2))
    a[here, node], a[here, :, node] = arcs_in, arcs_out
    scores[rows], arcs[rows] = s, a
    within[rows] = np.where(np.take_along_axis(cycle, within[rows], 1), node[:, None], within[rows])
    return step


def _expand(scores: np.ndarray, arcs: np.ndarray, within: np.ndarray, steps: list[_Step]) -> np.ndarray:
    """The parents among the original nodes: cycles are opened, the last first, where an arc enters them."""
    count, n = within.shape
    found, entered = np.full((count, n), -1), np.zeros((count, n), int)

    def take(rows: np.ndarray, nodes: np.ndarray, chosen: np.ndarray) -> None:
        child, parent = np.divmod(chosen, n)
        found[rows, child], entered[rows, nodes] = parent, child

    standing = np.zeros((count, n), bool)
    np.put_along_axis(standing, within, True, 1)
    standing[:, 0] = False
    best = np.take_along_axis(arcs, scores.argmax(-1)[..., None], 2)[..., 0]
    rows, nodes = np.nonzero(standing)
    take(rows, nodes, best[standing])
    for step in reversed(steps):
        child = entered[step.rows, step.node]
        opened = step.within[np.arange(len(step.rows)), child]
        kept = step.cycle & (np.arange(n) != opened[:, None])
        at, nodes = np.nonzero(kept)
        take(step.rows[at], nodes, step.arcs[kept])
        entered[step.rows, opened] = child
    return found
