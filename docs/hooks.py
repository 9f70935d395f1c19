"""The site's generated pages: README as the first page, every command's help as the commands' page; new pages.

A link from a page to a file outside docs/ becomes its name: the site holds docs/ alone.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

DOCS = Path(__file__).parent
ROOT = DOCS.parent
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Pages that mkdocs.yml does not name come last in the guides, those of evidence/ in the results."""
    sections = {name: pages for section in config.nav for name, pages in section.items()}
    named = re.findall(r"[\w./-]+\.(?:md|ipynb)", str(config.nav))
    for path in sorted([*DOCS.glob("*.md"), *DOCS.glob("evidence/*.md")]):
        name = path.relative_to(DOCS).as_posix()
        if name not in named:
            sections["Results" if "/" in name else "Guides"].append(name)
    return config


def on_files(files: Files, config: Any) -> Files:
    readme = (ROOT / "README.md").read_text("utf-8")
    files.append(File.generated(config, "index.md", content=_LINK.sub(_from_docs, readme)))
    files.append(File.generated(config, "reference/cli.md", content=commands()))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    folder = posixpath.dirname(page.file.src_uri)

    def inside(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, found[3]))
        return found[2] if target.startswith("..") else found[0]

    return _LINK.sub(inside, markdown)


def _from_docs(found: re.Match[str]) -> str:
    """A link of README as it is from inside docs/."""
    mark, text, target, anchor = found.groups(default="")
    return f"{mark}[{text}]({posixpath.relpath(target, 'docs')}{anchor})"


def commands() -> str:
    """Every command with its arguments and options, from the command line itself."""
    import typer.main
    from typer.cli import get_docs_for_click

    from talking_heads.cli.app import app

    command = typer.main.get_command(app)
    context = command.make_context("talking-heads", [], resilient_parsing=True)
    text = get_docs_for_click(obj=command, ctx=context, name="talking-heads")
    first, heading, rest = text.partition("\n## ")
    for name, part in command.commands.items():  # the list of commands cuts their first sentences off
        sentence = " ".join((part.help or "").split("\n\n")[0].split()).replace("\\", "\\\\")
        first = re.sub(rf"^\* `{name}`: .*", f"* `{name}`: {sentence}", first, flags=re.MULTILINE)
    text = first + heading + rest
    text = text.replace("][", "]\\[")  # optional parts of an argument, not a link
    return re.sub(r"^# .*", "# Command line", text, count=1, flags=re.MULTILINE)
