"""The shape of JSON that is read back: folders of results may have been edited, cut off, or made by somebody else."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError

NUMBER = (int, float, type(None))  # null: not finite, which JSON cannot write
_MOST_BYTES = 2**30


@dataclass(frozen=True)
class Each:
    """An object whose names are not known: what each value is. digits: the names are numbers."""

    shape: Any
    digits: bool = False


def fault(value: Any, shape: Any, place: str = "") -> str | None:
    """Where a value is not of a shape; None where it is.

    shape: a type or a tuple of types; [shape] for lists; {name: shape} for objects with at least these names, but for
    those written `name?`; Each.
    """
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{place or 'the file'} is no list"
        return _first(fault(x, shape[0], f"{place}[{i}]") for i, x in enumerate(value))
    if isinstance(shape, Mapping | Each):
        if not isinstance(value, dict):
            return f"{place or 'the file'} is no object"
        if isinstance(shape, Each):
            strange = [name for name in value if shape.digits and not name.isdecimal()]
            if strange:
                return f"{place} has the name {strange[0]!r}"
            return _first(fault(x, shape.shape, f"{place}.{name}".strip(".")) for name, x in value.items())
        lacking = [name for name in shape if name not in value and not name.endswith("?")]
        if lacking:
            return f"{place or 'the file'} has no {lacking[0]!r}"
        held = {name.rstrip("?"): x for name, x in shape.items() if name.rstrip("?") in value}
        return _first(fault(value[name], x, f"{place}.{name}".strip(".")) for name, x in held.items())
    kinds = shape if isinstance(shape, tuple) else (shape,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return f"{place or 'the file'} is {str(value)[:30]!r}"
    return None


class _TooLong(ValueError):
    pass


def _integer(text: str) -> int:
    if len(text) > 20:  # more than 64 bits, and than a float may hold
        raise _TooLong(f"a number of {len(text)} digits")
    return int(text)


def _first(faults: Any) -> str | None:
    return next((x for x in faults if x is not None), None)


def read_json(path: Path, shape: Any = object, todo: str = "restore the file or name another folder") -> Any:
    """The JSON of a file of a results folder.

    Raises:
        UserError: no JSON, or of another shape; the file and the place in it are named.
    """
    why: str | None
    try:
        if path.stat().st_size > _MOST_BYTES:
            why = "more than 1 GiB"
        else:
            value = json.loads(path.read_text("utf-8"), parse_int=_integer)
            why = fault(value, shape)
    except _TooLong as problem:
        why = str(problem)
    except (ValueError, RecursionError):
        why = "no JSON"
    if why:
        raise UserError("a results folder must be as it was written", f"{why} in {path}", todo)
    return value
