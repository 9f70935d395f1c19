"""An arm of a comparison: one kind of attention, with every option that `hf.convert` has, written as one word."""

import hashlib
import re
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..errors import UserError, did_you_mean

KINDS = ("multi-head", "talking-heads", "logits-map", "weights-map", "none")
_MAPS = {"logits": "logits-map", "weights": "weights-map", "both": "talking-heads"}
OPTIONS = (
    "heads=N, key_heads=N, value_heads=N, maps=logits|weights|both|none, init=identity|random (or random), "
    "dynamic=NAME,..., bilinear, layers=N,..., kinds=NAME,..., within=N, frozen, fused, plain, width=N, size=N, ff=N, rate=X"
)
FORM = "KIND:HEADS[:OPTION]..."
_LISTS = ("dynamic", "layers", "kinds")
_MAP_OPTIONS = ("heads", "key_heads", "value_heads", "dynamic", "within", "frozen")


def _option(default: Any, word: str) -> Any:
    """A field that is written `word=VALUE` in an arm's name, or `word` alone where it is a flag."""
    return field(default=default, metadata={"word": word})


@dataclass(frozen=True)
class Arm:
    """One architecture. Fields left at their default are the comparison's or the model's own.

    Args:
        heads: heads of the model. softmax_heads, key_heads, value_heads, dynamic, bilinear, layers, kinds: `num_heads`
            and so on of `hf.convert`.
        within: heads talk within groups of this size only; 1 leaves the maps diagonal.
        frozen: the maps keep their start.
        size: numbers in a head's query, key and value; default width / heads. T5 and Llama alone take another.
        fused, plain: multi-head attention by this package's operator, or by transformers' own path; with neither the
            faster of both.
        rate: peak learning rate.
    """

    kind: str
    heads: int = 0
    init: str = "identity"
    fused: bool = _option(False, "fused")
    width: int | None = _option(None, "width")
    feed_forward: int | None = _option(None, "ff")
    maps_out: bool = False  # dynamic maps alone
    softmax_heads: int | None = _option(None, "heads")
    key_heads: int | None = _option(None, "key_heads")
    value_heads: int | None = _option(None, "value_heads")
    dynamic: tuple[str, ...] = _option((), "dynamic")
    bilinear: bool = _option(False, "bilinear")
    layers: tuple[int | str, ...] = _option((), "layers")
    kinds: tuple[str, ...] = _option((), "kinds")
    within: int | None = _option(None, "within")
    frozen: bool = _option(False, "frozen")
    plain: bool = _option(False, "plain")
    size: int | None = _option(None, "size")
    rate: float | None = _option(None, "rate")

    @property
    def name(self) -> str:
        """The arm's one spelling: equal arms have equal names."""
        parts = [self.kind] + ([str(self.heads)] if self.heads else [])
        parts += ["random"] if self.init == "random" else []
        parts += ["maps=none"] if self.maps_out else []
        for option in _OPTIONS.values():
            value = getattr(self, option.name)
            if value is True:
                parts.append(option.metadata["word"])
            elif value:
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                parts.append(f"{option.metadata['word']}={text}")
        return ":".join(parts)

    @property
    def folder(self) -> str:
        """The name as a folder's; a digest keeps names apart that differ in other characters only."""
        name = self.name.replace(":", "-").replace("=", "-")
        safe = re.sub(r"[^\w.,-]", "-", name)
        return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"

    @property
    def maps(self) -> dict[str, bool]:
        return {
            "logits_mix": self.kind in ("talking-heads", "logits-map") and not self.maps_out,
            "weights_mix": self.kind in ("talking-heads", "weights-map") and not self.maps_out,
        }

    @property
    def has_maps(self) -> bool:
        return any(self.maps.values()) or bool(self.dynamic)

    @property
    def is_converted(self) -> bool:
        """Whether attention runs by this package's operator whatever is faster."""
        return self.fused or self.bilinear or self.has_maps

    @property
    def may_choose(self) -> bool:
        """Whether the same function can be computed by transformers' own path, too, and neither is asked for."""
        return self.kind == "multi-head" and not (self.is_converted or self.plain)

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of `hf.convert`."""
        given = {
            "num_heads": self.softmax_heads,
            "num_key_heads": self.key_heads,
            "num_value_heads": self.value_heads,
            "dynamic": self.dynamic,
            "bilinear": self.bilinear,
            "layers": self.layers,
            "kinds": self.kinds,
        }
        return {**self.maps, "init": self.init, **{name: x for name, x in given.items() if x}}


_OPTIONS = {x.metadata["word"]: x for x in fields(Arm) if x.metadata}


def parse_arm(text: str) -> Arm:
    """FORM, for example talking-heads:16, talking-heads:16:heads=32, multi-head:8:width=144 or none.

    Raises:
        UserError: another form, options that this kind has not, the same option twice.
    """
    kind, *rest = text.split(":")
    heads = rest.pop(0) if rest and kind != "none" else ""
    if kind not in KINDS or (kind != "none" and _number(heads) < 1):
        raise _refusal(text, "")
    arm = Arm(kind, _number(heads))
    seen: set[str] = set()
    for extra in rest:
        word = {"identity": "init", "random": "init"}.get(extra, extra.partition("=")[0])
        if word in seen:
            raise _refusal(text, f"{word} twice")
        seen.add(word)
        try:
            arm = _with(arm, extra)
        except ValueError:
            raise _refusal(text, f"an OPTION is one of {OPTIONS}") from None
    _check(arm, text)
    return arm


def _with(arm: Arm, extra: str) -> Arm:
    """The arm with one more option; ValueError where it is none."""
    word, is_assigned, value = extra.partition("=")
    if extra in ("identity", "random") or (word == "init" and value in ("identity", "random")):
        return replace(arm, init=value or extra)
    if word == "maps" and arm.kind == "talking-heads":
        if value == "none":
            return replace(arm, maps_out=True)
        if value not in _MAPS:
            raise ValueError
        return replace(arm, kind=_MAPS[value])
    option = _OPTIONS.get(word)
    if option is None:
        raise ValueError
    return replace(arm, **{option.name: _value(word, option.default, bool(is_assigned), value)})


def _value(word: str, default: Any, is_assigned: bool, text: str) -> Any:
    if default is False:
        if is_assigned:
            raise ValueError
        return True
    if word in _LISTS:
        values = [x for x in re.split(r"[,+]", text) if x]
        if not values:
            raise ValueError
        chosen = {int(x) if word == "layers" and x.isdecimal() else x for x in values}
        return tuple(sorted(chosen, key=lambda x: (isinstance(x, str), x)))
    if word == "rate":
        rate = float(text)
        if not 0 < rate < float("inf"):
            raise ValueError
        return rate
    if _number(text) < 1:
        raise ValueError
    return _number(text)


def _check(arm: Arm, text: str) -> None:
    """Refuses options that would change nothing."""
    used = [word for word, option in _OPTIONS.items() if getattr(arm, option.name)]
    learns = any(arm.maps.values()) or arm.maps_out or arm.dynamic
    if arm.maps_out and not arm.dynamic:
        raise _refusal(text, "maps=none without dynamic maps: multi-head attention")
    if arm.kind in ("multi-head", "none"):
        idle = [word for word in _MAP_OPTIONS if word in used] + (["random"] if arm.init == "random" else [])
        if not arm.bilinear:
            idle += [word for word in ("layers", "kinds") if word in used]
        if arm.kind == "none":
            idle += [word for word in ("fused", "plain", "bilinear", "size") if word in used]
        if idle:
            raise _refusal(text, f"{', '.join(dict.fromkeys(idle))} without maps")
    if learns and (arm.fused or arm.plain):
        raise _refusal(text, "plain and fused: multi-head only")
    if arm.plain and (arm.fused or arm.bilinear):
        raise _refusal(text, "plain with another path")
    if arm.within and arm.dynamic:
        raise _refusal(text, "within with dynamic maps, which it does not limit")


def _refusal(text: str, why: str) -> UserError:
    return UserError(
        f"an arm must be {FORM} with KIND one of {', '.join(KINDS)} (the last without heads)",
        repr(text) + (f" ({why})" if why else ""),
        did_you_mean(
            text.partition(":")[0], KINDS, "write for example talking-heads:8 or talking-heads:8:heads=16"
        )
        if text.partition(":")[0] not in KINDS
        else "write for example talking-heads:8 or talking-heads:8:heads=16",
    )


def _number(text: str) -> int:
    """0 where it is none."""
    return int(text) if text.isascii() and text.isdecimal() else 0
