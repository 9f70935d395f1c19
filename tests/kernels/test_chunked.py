"""The chunked backend's own promises: blocks as the cache allows, memory in proportion to positions."""

import os
from dataclasses import replace

import pytest
import torch

from talking_heads import kernels, talking_heads_attention
from talking_heads.bench import Options, bench, memory
from talking_heads.kernels import chunked
from tests.cases import DYNAMIC, Case, check
from tests.kernels.test_operator import problem

EVERYTHING = Case(
    b=3, n=11, m=13, mask="float", mask_shape=(1, 0, 1, 1), is_causal=True, dropout_p=0.3, dynamic=DYNAMIC
)
ROW = (3 + 5 + 2) * 13 * 4  # bytes of one row's scores, logits and mixed weights, float32


@pytest.mark.parametrize("rows", [1, 2, 3, 10, 11, 21, 22, 33, 1000])
def test_any_block_size_gives_the_same(rows, monkeypatch):
    """Dropout and all: a block's pattern is that of its rows, wherever the blocks are cut."""
    monkeypatch.setattr(chunked, "_cache_bytes", lambda device: rows * ROW + 1)
    blocks = list(chunked._blocks(problem(EVERYTHING)))
    if rows < 11:
        assert [b.batch for b in blocks] == [slice(i, i + 1) for i in range(3) for _ in range(-(-11 // rows))]
        assert max(b.rows.stop - b.rows.start for b in blocks) == rows
    else:  # whole elements, as many as fit
        assert len(blocks) == -(-3 // min(3, rows // 11)) and all(b.rows == slice(0, 11) for b in blocks)
    check(EVERYTHING, "chunked")


def test_a_block_is_as_large_as_the_cache_allows(monkeypatch):
    for cache in (2**16, 2**20, 2**24):
        monkeypatch.setattr(chunked, "_cache_bytes", lambda device, cache=cache: cache)
        for case in (
            Case(b=1, n=700, m=513),
            Case(b=1, i=2, h=2, j=2, n=300, m=4001),
            replace(EVERYTHING, b=9),
        ):
            p = problem(case)
            for block in chunked._blocks(p):
                held = sum(x.numel() * x.element_size() for x in (block.scores, block.weights, block.mixed))
                assert held <= cache or block.scores.shape[2] == 1
            if held < cache / 4:  # not smaller than it need be
                assert block.batch.stop == p.query.shape[0] and block.rows.stop == p.query.shape[2]


def test_the_cache_is_asked_of_the_system(monkeypatch):
    cpu = torch.device("cpu")

    def sizes(**known):
        def sysconf(name):
            if name not in known:
                raise ValueError(name)
            return known[name]

        monkeypatch.setattr(os, "sysconf", sysconf)
        chunked._cache_bytes.cache_clear()
        return chunked._cache_bytes(cpu)

    try:
        assert sizes(SC_LEVEL3_CACHE_SIZE=30 * 2**20, SC_LEVEL2_CACHE_SIZE=2**20) == 10 * 2**20
        assert sizes(SC_LEVEL3_CACHE_SIZE=0, SC_LEVEL2_CACHE_SIZE=2**20) == 4 * 2**20
        assert sizes() == 8 * 2**20
    finally:
        chunked._cache_bytes.cache_clear()


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="resident sets are read from /proc")
def test_peak_memory_grows_with_positions_not_with_their_square():
    """Forward and backward, in a process of its own: less than one tensor [heads, query_len, memory_len]."""
    options = Options(shapes=("4x16x4096x1",), forms=("chunked",), timing=False, memory=True)
    (row,) = (part["forms"]["chunked"] for part in bench(options)["memory"])
    assert row["status"] == "ok" and 0 < row["extra_mib"] < 4 * 4096 * 4096 * 4 / memory.MIB


@pytest.mark.parametrize("backend", [name for name in kernels.ALL if name != "triton"])
def test_a_row_whose_scores_all_overflow_gives_zeros(backend):
    query = torch.full((1, 1, 12, 1), 1e20)
    value = torch.randn(1, 1, 12, 4)
    assert not talking_heads_attention(query, -query, value, backend=backend).any()
