"""The page of `view` in print and for screen readers, in headless Chromium."""

import base64
import hashlib
import html
import json
import re
import subprocess
import zlib

import pytest
import torch

from talking_heads.heads import page, view

from ..browser import browser
from .small import model, tokenizer
from .test_patches import made

# What Chromium's accessibility tree says of everything that one can use or that stands for something.
TREE = """<script>
document.dispatchEvent(new KeyboardEvent("keydown", {key: "j"}));
const wanted = "button,input,select,fieldset,svg,img,[role=grid],[role=row],[role=region]", said = {};
const shown = x => x.checkVisibility();
said.names = [...document.querySelectorAll(wanted)].filter(shown).map(x => [x.tagName.toLowerCase(), x.computedRole, x.computedName]);
said.live = [...document.querySelectorAll("[aria-live]")].map(x => x.textContent);
const reached = [...document.querySelectorAll("button,input,select,[tabindex]")].filter(x => shown(x) && x.tabIndex >= 0);
said.reached = reached.map(x => x.computedRole);
said.chosen = [...document.querySelectorAll("[aria-selected=true]")].map(x => x.computedName);
said.inside = document.querySelectorAll("[role=img] [tabindex]").length;
document.body.append(Object.assign(document.createElement("pre"), {id: "result", textContent: JSON.stringify(said)}));
</script></body>"""


def _text():
    return view(
        model("bert, talking"), tokenizer(), "the old dog chased", pair="a small ball", pieces=True
    ), "encoder.0:3"


def _picture():
    return view(made("ViT"), None, picture=torch.rand(3, 32, 32)), "encoder.1:2"


PAGES = {"text": _text, "picture": _picture}


@pytest.mark.parametrize("name", PAGES)
def test_a_screen_reader_finds_names_and_values(name, tmp_path):
    seen, first = PAGES[name]()
    path = tmp_path / "view.html"
    added = base64.b64encode(hashlib.sha256(TREE[8:-16].encode()).digest()).decode()
    text = page(seen, first).replace("script-src ", f"script-src 'sha256-{added}' ")
    path.write_text(text.replace("</body>", TREE))
    flags = ["--enable-blink-features=ComputedAccessibilityInfo", "--dump-dom"]
    command = [*browser(tmp_path / "user"), *flags, f"file://{path}"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=90).stdout
    said = json.loads(html.unescape(shown.partition('id="result">')[2].partition("</pre>")[0]))
    assert len(said["names"]) > 12 and not [x for x in said["names"] if not x[2].strip()]
    roles = {tag: role for tag, role, _ in said["names"]}
    assert roles["button"] == "gridcell" and roles["svg"] == "image" and roles["fieldset"] == "group"
    assert said["live"][0] == first and "attends to; softmax weights: " in said["live"][1]
    # one stop for all heads, then arrow keys; the head's links scroll by keys, too
    assert said["reached"].count("gridcell") == 1 and "region" in said["reached"]
    assert said["chosen"] == [first] and said["inside"] == 0


@pytest.mark.parametrize("name", PAGES)
def test_print(name, tmp_path):
    """A PDF of a page or two that has the words, without the controls; nothing of it on a page of its own."""
    path, made_pdf = tmp_path / "view.html", tmp_path / "view.pdf"
    seen, first = PAGES[name]()
    path.write_text(page(seen, first))
    flags = [f"--print-to-pdf={made_pdf}", "--no-pdf-header-footer"]
    command = [*browser(tmp_path / "user"), *flags, f"file://{path}"]
    subprocess.run(command, capture_output=True, timeout=90, check=True)
    data = made_pdf.read_bytes()
    assert data.startswith(b"%PDF") and len(data) > 15_000
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 2
    drawn = b"".join(_streams(data))
    assert drawn.count(b" Tj") + drawn.count(b" TJ") > 10  # text is text
    assert b"/Subtype /Image" in data or name == "text"


def _streams(data):
    for found in re.finditer(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL):
        try:
            yield zlib.decompress(found[1])
        except zlib.error:  # a font or a picture
            continue
