"""The edited transcript: a list of tokens, changed by operations that are kept in a history with undo.

A token is a word of the recording (`keep`: its number), a new word (`word`) or a gesture of the mouth (`gesture`).
Every operation is a plain JSON object; the tokens are what all operations make of the recording's words, so undo
only forgets the last one.
"""

import difflib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from retell.errors import UserError
from retell.files import read_json, write_json
from retell.words import split

GESTURES = ("smile", "closed", "open")
GESTURE_SECONDS = 0.6


@dataclass(frozen=True)
class Token:
    keep: int | None = None  # number of the recording's word
    word: str | None = None  # a new word
    gesture: str | None = None
    sound: str | None = (
        None  # the WAV of the run of new words this one belongs to, in the project's sounds folder
    )
    run: int = 0  # the operation that brought it: words of one run are spoken together
    energy: float = 1.0  # scales the mouth's motion around its rest
    smooth: float = 0.0  # frames of Gaussian smoothing
    shifts: tuple = ()  # ((phone of the word, seconds), ...): the phone starts that much later
    curves: tuple = ()  # ((parameter, ((part of the word 0..1, value added in standard deviations), ...)), ...)

    @property
    def refined(self) -> bool:
        return bool(self.energy != 1 or self.smooth or self.shifts or self.curves)

    def text(self, words: list[str]) -> str:
        return words[self.keep] if self.keep is not None else self.word or f"[{self.gesture}]"


def _number(value, low: float, high: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise UserError(
            f"{name} must be a number from {low:g} to {high:g}", repr(value), "choose one in that range"
        )
    return float(value)


def _range(op: dict, tokens: list[Token], empty: bool = False) -> tuple[int, int]:
    first, last = op.get("first"), op.get("last")
    good = all(isinstance(v, int) and not isinstance(v, bool) for v in (first, last))
    if not good or not 0 <= first <= last <= len(tokens) or (first == last and not empty):
        todo = "count the words from 0; `last` is one past the last word"
        raise UserError(
            f"first and last must select words 0 to {len(tokens)}", f"{first!r} and {last!r}", todo
        )
    return first, last


def parse(text: str, run: int, sound: str | None = None) -> list[Token]:
    """New tokens of a text with marks such as [smile]."""
    if not isinstance(text, str):
        raise UserError("words must be text", repr(text), "type the new words")
    tokens = []
    for part in re.split(r"(\[[^\]]*\])", text):
        if part.startswith("["):
            name = part[1:-1].strip().lower()
            if name not in GESTURES:
                raise UserError(
                    f"a mark must be one of {', '.join(GESTURES)}", part, "write for example [smile]"
                )
            tokens.append(Token(gesture=name, run=run))
        else:
            tokens += [Token(word=word, sound=sound, run=run) for word in split(part)]
    if not tokens:
        raise UserError(
            "new words or marks are needed", repr(text), "type words, or delete the selection instead"
        )
    return tokens


def apply(op: dict, tokens: list[Token], run: int) -> list[Token]:
    """The tokens after one operation."""
    kind = op.get("op") if isinstance(op, dict) else None
    if kind == "replace":
        first, last = _range(op, tokens, empty=True)
        new = parse(op.get("text", ""), run, op.get("sound"))
        return [*tokens[:first], *new, *tokens[last:]]
    if kind == "delete":
        first, last = _range(op, tokens)
        left = [*tokens[:first], *tokens[last:]]
        if not any(t.gesture is None for t in left):
            raise UserError("at least one word must stay", "a deletion of all words", "keep a word")
        return left
    if kind == "perform":
        first, last = _range(op, tokens)
        change = {}
        if "energy" in op:
            change["energy"] = _number(op["energy"], 0, 2, "energy")
        if "smooth" in op:
            change["smooth"] = _number(op["smooth"], 0, 5, "smooth")
        if not change:
            raise UserError("energy or smooth is needed", "neither", "give at least one of them")
        return [replace(t, **change) if first <= i < last else t for i, t in enumerate(tokens)]
    if kind in ("shift", "curve"):
        at = op.get("at")
        _range({"first": at, "last": at + 1 if isinstance(at, int) else None}, tokens)
        return [*tokens[:at], _refined(op, tokens[at]), *tokens[at + 1 :]]
    raise UserError(
        "an operation must be replace, delete, perform, shift or curve", repr(kind), "use one of these"
    )


def _refined(op: dict, token: Token) -> Token:
    if token.gesture is not None:
        raise UserError("only words can be refined", f"the gesture {token.gesture}", "select a word")
    if op["op"] == "shift":
        phone = op.get("phone")
        if isinstance(phone, bool) or not isinstance(phone, int) or phone < 0:
            raise UserError(
                "phone must be a number from 0", repr(phone), "count the phones of the word from 0"
            )
        seconds = _number(op.get("seconds"), -1, 1, "seconds")
        shifts = dict(token.shifts) | {phone: seconds}
        return replace(token, shifts=tuple(sorted(shifts.items())))
    parameter = op.get("parameter")
    if isinstance(parameter, bool) or not isinstance(parameter, int) or not 0 <= parameter <= 5:
        raise UserError(
            "parameter must be a whole number from 0 to 5", repr(parameter), "choose one in that range"
        )
    points = op.get("points")
    if (
        not isinstance(points, (list, tuple))
        or not points
        or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in points)
    ):
        raise UserError(
            "points must be pairs of a place and a value", repr(points), "give for example [[0.5, 1.0]]"
        )
    clean = tuple(sorted((_number(x, 0, 1, "place"), _number(y, -4, 4, "value")) for x, y in points))
    curves = dict(token.curves) | {parameter: clean}
    return replace(token, curves=tuple(sorted(curves.items())))


@dataclass
class History:
    """Operations done, operations undone, and the file that keeps them."""

    path: Path
    words: list[str]
    done: list[dict] = field(default_factory=list)
    undone: list[dict] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path, words: list[str]) -> "History":
        stored = read_json(path) if path.exists() else {"done": [], "undone": []}
        return cls(path, words, stored["done"], stored["undone"])

    def save(self) -> None:
        write_json(self.path, {"done": self.done, "undone": self.undone})

    @property
    def tokens(self) -> list[Token]:
        tokens = [Token(keep=i) for i in range(len(self.words))]
        for run, op in enumerate(self.done, 1):
            tokens = apply(op, tokens, run)
        return tokens

    def do(self, op: dict) -> None:
        apply(op, self.tokens, len(self.done) + 1)  # refused operations leave no trace
        self.done, self.undone = [*self.done, op], []
        self.save()

    def undo(self) -> None:
        if not self.done:
            raise UserError("an edit to undo is needed", "none", "edit something first")
        self.undone.append(self.done.pop())
        self.save()

    def redo(self) -> None:
        if not self.undone:
            raise UserError("an undone edit is needed", "none", "undo something first")
        self.done.append(self.undone.pop())
        self.save()

    def text(self) -> str:
        return " ".join(t.text(self.words) for t in self.tokens)

    def rewrite(self, text: str, sound: str | None = None) -> int:
        """Operations that turn the transcript into `text`; returns how many."""
        wanted = [t.text(self.words) for t in parse(text, 0)]
        now = [t.text(self.words) for t in self.tokens]
        count, shift = 0, 0
        for tag, a, b, c, d in difflib.SequenceMatcher(None, now, wanted, autojunk=False).get_opcodes():
            if tag == "equal":
                continue
            if c == d:
                self.do({"op": "delete", "first": a + shift, "last": b + shift})
            else:
                op = {"op": "replace", "first": a + shift, "last": b + shift, "text": " ".join(wanted[c:d])}
                self.do(op | ({"sound": sound} if sound else {}))
            shift += (d - c) - (b - a)
            count += 1
        return count
