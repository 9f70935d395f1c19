"""The experiments: which arms each compares, on which objective, and which directions to look for.

Arms follow the tables of "Talking-Heads Attention" (Shazeer et al., 2020). Where an arm's exact counts in the paper are
not known for sure, the nearest counts that divide the width are taken; no figure of the paper is repeated here. Maps
start at random as the paper's do. Each experiment has the arm `none`, a model without attention: a floor.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import UserError

DYNAMIC = ("query_logits", "memory_logits", "query_weights", "memory_weights")
SCALES = ("tiny", "small", "base")

_WIDTH = {"tiny": 128, "small": 512, "base": 768}
_HEADS = {
    "tiny": (4, 8, 16, 32),
    "small": (4, 8, 16, 32),
    "base": (6, 12, 24, 48),
}  # heads of 32 to 4, 128 to 16


@dataclass(frozen=True)
class Direction:
    """The loss of `arm` below (`sign` -1) or above (1) that of `less`.

    reported: the paper reports this direction (recalled, not its figures); else it is a question asked here.
    """

    says: str
    arm: str
    less: str
    sign: int = -1
    reported: bool = True


@dataclass(frozen=True)
class Experiment:
    """One table of the paper.

    Args:
        arms, directions: made from the head counts and the width of a scale.
    """

    name: str
    question: str
    objective: str
    arms: Callable[[tuple[int, ...], int], list[str]]
    directions: Callable[[tuple[int, ...], int], list[Direction]]

    def arms_at(self, scale: str) -> tuple[str, ...]:
        return (*self.arms(_HEADS[scale], _WIDTH[scale]), "none")

    def directions_at(self, scale: str) -> list[Direction]:
        return self.directions(_HEADS[scale], _WIDTH[scale])


def _multi(heads: int) -> str:
    return f"multi-head:{heads}"


def _talking(heads: int, *options: str) -> str:
    return ":".join([f"talking-heads:{heads}", "random", *options])


def _pairs(heads: tuple[int, ...], width: int) -> list[str]:
    return [arm for count in heads for arm in (_multi(count), _talking(count))]


def _head_directions(heads: tuple[int, ...], width: int) -> list[Direction]:
    most, before = heads[-1], heads[-2]
    return [
        *(
            Direction(f"talking heads below multi-head at {n} heads", _talking(n), _multi(n))
            for n in heads[1:]
        ),
        Direction(f"multi-head worse with {most} heads than with {before}", _multi(most), _multi(before), 1),
        Direction(
            f"talking heads better with {most} heads than with {before}", _talking(most), _talking(before)
        ),
    ]


def _counts(heads: tuple[int, ...], width: int) -> list[str]:
    """Few and many of each: key, softmax and value heads."""
    few, many = heads[0], heads[2]
    keys, softmax, values = (f"{name}={many}" for name in ("key_heads", "heads", "value_heads"))
    options = [[], [softmax], [keys], [values], [softmax, keys], [softmax, values]]
    return [_multi(few), *(_talking(few, *x) for x in options), _talking(many)]


def _count_directions(heads: tuple[int, ...], width: int) -> list[Direction]:
    few, many = heads[0], heads[2]
    return [
        Direction(
            f"more {name} heads alone below few of all",
            _talking(few, f"{option}={many}"),
            _talking(few),
            reported=False,
        )
        for name, option in (("softmax", "heads"), ("key", "key_heads"), ("value", "value_heads"))
    ]


def _maps(heads: tuple[int, ...], width: int) -> list[str]:
    n = heads[2]
    return [_multi(n), f"logits-map:{n}:random", f"weights-map:{n}:random", _talking(n)]


def _map_directions(heads: tuple[int, ...], width: int) -> list[Direction]:
    multi, logits, weights, both = _maps(heads, width)
    return [
        Direction("the logits map alone below multi-head", logits, multi),
        Direction("the weights map alone below multi-head", weights, multi),
        Direction("both maps below the logits map alone", both, logits),
        Direction("both maps below the weights map alone", both, weights),
    ]


_PARTS = {"encoder": "encoder-self", "decoder": "decoder-self", "cross": "encoder-decoder"}


def _where(heads: tuple[int, ...], width: int) -> list[str]:
    n = heads[2]
    return [_multi(n), *(_talking(n, f"kinds={part}") for part in _PARTS), _talking(n)]


def _where_directions(heads: tuple[int, ...], width: int) -> list[Direction]:
    n = heads[2]
    alone = [_talking(n, f"kinds={part}") for part in _PARTS]
    names = list(_PARTS.values())
    found = [
        Direction(f"in {name} attention alone below multi-head", arm, _multi(n), reported=False)
        for name, arm in zip(names, alone, strict=True)
    ]
    return found + [
        Direction(f"in all below {name} alone", _talking(n), arm, reported=False)
        for name, arm in zip(names, alone, strict=True)
    ]


def _dynamic(heads: tuple[int, ...], width: int) -> list[str]:
    n = heads[1]
    single = [_talking(n, f"dynamic={name}") for name in DYNAMIC]
    return [_multi(n), _talking(n), *single, _talking(n, f"dynamic={','.join(sorted(DYNAMIC))}")]


def _dynamic_directions(heads: tuple[int, ...], width: int) -> list[Direction]:
    _, plain, *others = _dynamic(heads, width)
    return [Direction("all dynamic projections below none", others[-1], plain)]


def _bilinear(heads: tuple[int, ...], width: int) -> list[str]:
    n = heads[1]
    return [_multi(n), f"multi-head:{n}:size={2 * width // n}", _talking(n), f"multi-head:{n}:bilinear"]


def _bilinear_directions(heads: tuple[int, ...], width: int) -> list[Direction]:
    multi, _, talking, bilinear = _bilinear(heads, width)
    return [
        Direction("general bilinear below multi-head", bilinear, multi),
        Direction("general bilinear below talking heads", bilinear, talking),
    ]


def _to_size_one(heads: tuple[int, ...], width: int) -> list[str]:
    return _pairs(_counts_to(heads, width), width)


def _counts_to(heads: tuple[int, ...], width: int) -> tuple[int, ...]:
    """The head counts, doubled on to heads of size 1."""
    found = list(heads)
    while found[-1] < width:
        found.append(2 * found[-1])
    return tuple(found)


def _one_directions(heads: tuple[int, ...], width: int) -> list[Direction]:
    return _head_directions(_counts_to(heads, width), width)


def _asked(heads: tuple[int, ...], width: int) -> list[Direction]:
    """As for `heads`; of decoder-only models the paper reports nothing that is known here."""
    return [replace(x, reported=False) for x in _head_directions(heads, width)]


_T5 = "span-corruption"
EXPERIMENTS = {
    x.name: x
    for x in (
        Experiment("heads", "Do talking heads help at each head count?", _T5, _pairs, _head_directions),
        Experiment("counts", "Which heads should be many: key, softmax or value heads?", _T5, _counts, _count_directions),
        Experiment("maps", "Is one of the two maps enough?", _T5, _maps, _map_directions),
        Experiment("where", "In which of the three kinds of attention do heads need to talk?", _T5, _where, _where_directions),
        Experiment("dynamic", "Do maps that depend on the input help?", _T5, _dynamic, _dynamic_directions),
        Experiment("bilinear", "What does attention lose by thin projections?", _T5, _bilinear, _bilinear_directions),
        Experiment("bert", "How small may heads be in BERT?", "masked-lm", _to_size_one, _one_directions),
        Experiment("albert", "How small may heads be in ALBERT?", "sentence-order", _to_size_one, _one_directions),
        Experiment("causal", "Do talking heads help decoder-only models?", "causal-lm", _pairs, _asked),
    )
}  # fmt: skip


def find(name: str) -> Experiment:
    """The experiment of this name.

    Raises:
        UserError: there is none.
    """
    if name not in EXPERIMENTS:
        raise UserError(
            f"an experiment must be one of {', '.join(EXPERIMENTS)}", repr(name), "name one of them"
        )
    return EXPERIMENTS[name]
