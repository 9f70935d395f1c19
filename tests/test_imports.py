"""Imports point one way: from the command line down to the kernels, without a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import talking_heads

ROOT = Path(talking_heads.__file__).parent
# Rooms from the bottom up; a room imports only from rows below its own. docs/design.md draws it.
ROWS = (
    ("errors",),
    ("devices",),
    ("kernels",),
    ("operands",),
    ("checks",),
    ("functional",),
    ("nn",),
    ("optim", "anatomy"),
    ("results", "reading"),
    ("hf",),
    ("training", "heads", "dynamics", "bench", "doctor"),
    ("translation", "demo", "finetune"),
    ("experiments",),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(ROWS) for room in rooms}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
    for path in ROOT.rglob("*.py")
}


def imported(name: str) -> Iterator[str]:
    """The package's modules that a module imports, at its top or inside a function; not those for type checkers."""
    path = MODULES[name]
    here = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    todo: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        todo += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [x for x in here if x][: len(here) - node.level + 1] + (node.module or "").split(".")
            base = [x for x in base if x]
            for alias in node.names:
                full = ".".join([*base, alias.name])
                yield full if full in MODULES else ".".join(base)


GRAPH = {name: {x for x in imported(name) if x and x != name} for name in MODULES if name}


def test_every_room_has_its_row():
    assert {name.partition(".")[0] for name in GRAPH} <= set(LEVEL)


def test_imports_point_down():
    up = [
        f"{name} -> {other}"
        for name, others in GRAPH.items()
        for other in others
        if (a := name.partition(".")[0]) != (b := other.partition(".")[0]) and LEVEL[a] <= LEVEL[b]
    ]
    assert not up


def test_there_is_no_circle():
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for other in GRAPH.get(name, ()):
                visit(other, (*path, name))
            done.add(name)

    for name in GRAPH:
        visit(name, ())
