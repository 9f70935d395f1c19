"""The model card of a converted folder: what was done, how to load it, what cannot load it."""

import re
from pathlib import Path

from .convert import Conversion

_LIBRARY = "talking-heads-attention"


def write_card(folder: Path, old: Path, source: str, kind: str, done: Conversion) -> None:
    """Writes README.md, with the old card below."""
    front, body = _parts(old / "README.md")
    front = [line for line in front if not re.match(r"(library_name|base_model)\s*:", line)]
    kept = _without_values(front)
    base = (
        [f"base_model: {source}"]
        if re.fullmatch(r"[\w.-]+/[\w.-]+", source) and not Path(source).exists()
        else []
    )
    lines = ["---", f"library_name: {_LIBRARY}", *base, *kept, "---", "", _text(kind, source, done)]
    if body.strip():
        lines += ["", "## Card of the model before its conversion", "", body.strip()]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _without_values(front: list[str]) -> list[str]:
    """Without the items of a list whose key was taken out."""
    while front and front[0].startswith(("-", " ")):
        front = front[1:]
    return front


def _parts(card: Path) -> tuple[list[str], str]:
    """(lines of the front matter, the text) of an old card."""
    if not card.is_file() or (card.is_symlink() and card.resolve().parent.name != "blobs"):
        return [], ""
    text = card.read_text(encoding="utf-8", errors="replace")[: 2**20]
    found = re.match(r"---\n(.*?)\n?---\n?(.*)", text, re.DOTALL)
    return (found[1].splitlines(), found[2]) if found else ([], text)


def _text(kind: str, source: str, done: Conversion) -> str:
    name = Path(source).name
    return f"""# {name} with talking heads

This is {name} ({kind}) with learned maps across its attention heads (Shazeer et al., 2020), added by `talking-heads
convert` to {len(done.converted)} attention layers. It needs the package `{_LIBRARY}`:

```python
# pip install {_LIBRARY}
import talking_heads.hf

model = talking_heads.hf.load("this/folder")
```

After `import talking_heads.hf`, the Auto classes of transformers load it, too. Without the package, transformers refuses
this folder. Do not work around that by passing a plain config: the maps, tensors named `head_mixing`, would be left out
and the outputs would be wrong."""
