"""Pages: nothing in them runs but their own script, and nothing is asked of a network."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from talking_heads.results import page

EVIL = '</title></script><script>alert(1)</script><img src=x onerror="alert(2)"> & \u2028'


class Parsed(HTMLParser):
    """Tags with their attributes; the texts of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.raw, self.inside = [], {"script": [], "style": []}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag if tag in self.raw and "type" not in dict(attributes) else None

    def handle_data(self, data):
        if self.inside:
            self.raw[self.inside].append(data)

    def handle_endtag(self, tag):
        self.inside = None


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG")
    return path


def test_only_its_own_style_and_script_may_run(png):
    blocks = [
        page.heading(EVIL),
        page.paragraph(EVIL),
        page.preformatted(EVIL),
        page.table([EVIL], [[EVIL]], EVIL),
        page.picture(png, EVIL),
    ]
    made = page.page(EVIL, blocks, style="b{color:red}", script="let a = 1 < 2;", data='"</script><b>"')
    found = Parsed(made)
    assert found.raw["script"] == ["let a = 1 < 2;"] and len(found.raw["style"]) == 1
    assert [given for tag, given in found.tags if tag == "script"] == [
        {"type": "application/json", "id": "data"},
        {},
    ]
    assert not [given for _, given in found.tags if any(name.startswith("on") for name in given)]
    assert [given["src"][:10] for tag, given in found.tags if tag == "img"] == ["data:image"]
    policy = next(given["content"] for tag, given in found.tags if given.get("http-equiv"))
    for kind in ("script", "style"):
        digest = hashlib.sha256(found.raw[kind][0].encode()).digest()
        assert f"{kind}-src 'sha256-{base64.b64encode(digest).decode()}'" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert not re.search(r"https?:|@import|url\(", made)
    assert "script-src 'none'" in page.page("plain", [])
    assert "light dark" in found.raw["style"][0]


def test_figures_stay_on_one_line_and_long_text_does_not():
    made = page.table(["a"], [["4.176 ± 0.015\n-0.089 [-0.099, -0.078]"], ["word " * 20]])
    assert '<td class="one">4.176 ± 0.015<br>-0.089 [-0.099, -0.078]</td>' in made
    assert "<td>word word" in made and ".one{white-space:nowrap}" in page.page("", [])


def test_wide_tables_and_pictures_stay_inside_a_narrow_window(tmp_path):
    from talking_heads.results.charts import plot, save

    from ..browser import widths

    figure, _ = plot().subplots(figsize=(12, 1))
    save(figure, tmp_path / "wide.png")
    blocks = [
        page.table([f"column {i}" for i in range(12)], [["-0.0123 [-0.0456, +0.0789]"] * 12]),
        page.picture(tmp_path / "wide.png", "wide"),
        page.preformatted("long " * 100),
        page.paragraph("talking-heads " * 50),
    ]
    (tmp_path / "page.html").write_text(page.page("A page with a long title of many words", blocks))
    found = widths(tmp_path, ["page.html"], (400, 1280, 1920), tmp_path / "user")
    assert found == {f"page.html {width}": [width, width] for width in (400, 1280, 1920)}
