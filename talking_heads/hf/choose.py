"""Which of a model's attention layers are meant."""

from collections.abc import Collection
from fnmatch import fnmatch

from .sites import KINDS, Site


def choose(
    sites: list[Site], layers: Collection[int | str] | None, kinds: Collection[str] | None
) -> tuple[list[Site], dict[str, str]]:
    """(the sites meant, {name: why not} of the others); see `convert`.

    Raises:
        ValueError: an unknown kind, or a number or pattern that means no layer.
    """
    if isinstance(layers, str) or isinstance(kinds, str):
        raise ValueError(
            f"convert: layers and kinds must be collections; got {layers!r}, {kinds!r}; pass for example "
            '["encoder"]'
        )
    if kinds is not None and (not kinds or set(kinds) - set(KINDS)):
        raise ValueError(
            f"convert: kinds must be some of {KINDS}; got {kinds!r}; pass for example {KINDS[:1]}"
        )
    for wanted in layers or ():
        if not any(_means(wanted, site) for site in sites):
            known = sorted({site.number for site in sites if site.number is not None})
            raise ValueError(
                f"convert: layers must be numbers of layers ({known}) or patterns of their names; got "
                f"{wanted!r}; pass for example {sites[0].name!r}"
            )
    chosen, left = [], {}
    for site in sites:
        if kinds is not None and site.kind not in kinds:
            left[site.name] = f"{site.kind} attention, not among kinds"
        elif layers is not None and not any(_means(wanted, site) for wanted in layers):
            left[site.name] = "not among layers"
        else:
            chosen.append(site)
    if not chosen:
        kinds_here = sorted({site.kind for site in sites})
        raise ValueError(
            f"convert: kinds and layers must leave a layer to convert; got none; the model has {kinds_here}"
        )
    return chosen, left


def _means(wanted: int | str, site: Site) -> bool:
    return wanted == site.number if isinstance(wanted, int) else fnmatch(site.name, wanted)
