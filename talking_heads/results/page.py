"""One self-contained HTML page from text, tables and pictures: opens from disk, needs no network, light or dark."""

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

_FIGURE = 34  # characters of the longest figure, as -0.0123 [-0.0456, +0.0789], or of a name

_STYLE = """
:root{color-scheme:light dark;--line:#8886}
body{font:16px/1.5 system-ui,sans-serif;max-width:92rem;margin:2rem auto;padding:0 1rem}
body>p,body>pre,body>div,body>figure{max-width:62rem}
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}
th,td{border-bottom:1px solid var(--line);padding:.3rem .7rem;text-align:right;vertical-align:top}
th:first-child,td:first-child{text-align:left}
.one{white-space:nowrap}
caption{text-align:left;font-weight:600;padding:.3rem 0}
figure{margin:1.5rem 0}figure img{max-width:100%;background:#fff}figcaption{opacity:.8}
pre{overflow-x:auto;padding:.7rem;border:1px solid var(--line)}
"""


def page(
    title: str, blocks: Iterable[str], *, style: str = "", script: str = "", data: str | None = None
) -> str:
    """A whole page. Its content security policy allows nothing but this style, this script and pictures in the page.

    Args:
        style: added to the pages' own. data: JSON text for the script, in the element "data".
    """
    sheet, body = _STYLE + style, "\n".join(blocks)
    if data is not None:
        inert = data.replace("<", "\\u003c")
        body += f'\n<script type="application/json" id="data">{inert}</script>'
    if script:
        body += f"\n<script>{script}</script>"
    scripts = _hash(script) if script else "'none'"
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src {_hash(sheet)}; script-src {scripts}"
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{html.escape(title)}</title><style>{sheet}</style></head>\n"
        f"<body><h1>{html.escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def in_frame(made: str, title: str) -> str:
    """A page as an element of another one (a notebook), apart from its styles and scripts."""
    frame = 'style="width:100%;height:32rem;border:1px solid #8886" sandbox="allow-scripts"'
    return f'<iframe {frame} title="{html.escape(title)}" srcdoc="{html.escape(made)}"></iframe>'


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def heading(text: str) -> str:
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def preformatted(text: str) -> str:
    return f"<pre>{html.escape(text)}</pre>"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """Cells keep their line ends; a line of a cell is broken only where it is longer than a figure with its interval."""
    head = "".join(f"<th>{html.escape(str(x))}</th>" for x in columns)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>\n" for row in rows)
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    lines = str(value).split("\n")
    short = ' class="one"' if max(map(len, lines)) <= _FIGURE else ""
    return f"<td{short}>{'<br>'.join(map(html.escape, lines))}</td>"


def picture(png: Path | str, caption: str) -> str:
    """The PNG's bytes inside the page; the caption is also its text for those who do not see it."""
    data = base64.b64encode(Path(png).read_bytes()).decode()
    text = html.escape(caption)
    image = f'<img alt="{text}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"
