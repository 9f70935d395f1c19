from typing import NamedTuple
class Tile(NamedTuple):
    rows: int
    columns: int
    warps: int
    stages: int
FEW = 16
def is_few(n): return n <= FEW
def choose(kernel, p):
    if kernel in ("statistics", "values") and p.query.shape[2] == 1: return Tile(1, 32, 4, 2)
    return Tile(16, 16, 8, 2)
def choose_splits(p, tile):
    return 1
