"""What the source of a layer's forward says: whether it asks transformers' registry for its attention function, and
which keywords it passes to it."""

import ast
import inspect
import re
import textwrap
from functools import cache
from typing import Any

REGISTRY = "ALL_ATTENTION_FUNCTIONS"
_PARENT = re.compile(r"super\([^)]*\)\.(forward|__call__)\(|\b[A-Z]\w*\.forward\(\s*self\b")


@cache
def forwards(kind: Any) -> tuple[Any, ...]:
    """The class's own forward and, as far as each of them calls its parent's, those of the classes it inherits from."""
    found = []
    for parent in kind.__mro__:
        if parent.__module__.startswith("torch."):
            break
        forward = parent.__dict__.get("forward")
        if forward is not None:
            found.append(inspect.unwrap(forward))
            if not _PARENT.search(_text(found[-1])):
                break
    return tuple(found)


@cache
def calls_registry(kind: Any) -> bool:
    """Whether the class's forward asks transformers' registry for its attention function."""
    return any(REGISTRY in _text(forward) for forward in forwards(kind))


@cache
def negates_mask(kind: Any) -> bool:
    """Whether the class's forward negates its mask, which must be boolean then: the additive one that transformers makes for
    eager attention would be inverted (Nemotron's streaming encoder gives NaN)."""
    return any("attention_mask.logical_not()" in _text(forward) for forward in forwards(kind))


@cache
def keywords(kind: Any) -> tuple[tuple[str, str], ...]:
    """(keyword, its expression) of the calls of the attention function in the class's forward."""
    found = []
    for forward in forwards(kind):
        nodes = list(ast.walk(ast.parse(_text(forward))))
        made = [x for x in nodes if isinstance(x, ast.Assign | ast.AnnAssign)]
        made = [x for x in made if x.value is not None and "get_interface" in ast.unparse(x.value)]
        names = {
            ast.unparse(y) for x in made for y in (x.targets if isinstance(x, ast.Assign) else [x.target])
        }
        calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) in names]
        found += [(x.arg, ast.unparse(x.value)) for call in calls for x in call.keywords if x.arg]
    return tuple(found)


@cache
def attention_functions(kind: Any) -> tuple[Any, ...]:
    """The functions that the class's file names for where the registry has none (its eager attention)."""
    found = []
    for forward in forwards(kind):
        asked = re.search(r"\.get_interface\(\s*[\w.]+,\s*([\w.]+)", _text(forward))
        first, *rest = asked[1].split(".") if asked is not None else [""]
        function = forward.__globals__.get(first)
        for name in rest:
            function = getattr(function, name, None)
        if inspect.isfunction(function):
            found.append(function)
    return tuple(found)


def _text(function: Any) -> str:
    try:
        return textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        return ""
