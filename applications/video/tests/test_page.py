"""The page in a headless Chromium: select, edit, drag, render, undo."""

import shutil
import socket
import subprocess
import sys
import time

import pytest
from browser import Browser

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), reason="no Chromium"
)


@pytest.fixture
def page(project, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "retell", "serve", "--project", str(project.folder), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    address = server.stdout.readline().strip()
    browser = Browser(tmp_path / "profile")
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                time.sleep(0.1)
        browser.send("Page.navigate", url=address)
        browser.until(
            "typeof state !== 'undefined' && state && document.querySelectorAll('.word').length > 5"
        )
        yield browser
    finally:
        browser.close()
        server.terminate()
        server.wait(10)


def ready(page):
    page.until("document.querySelector('#status').textContent === 'Ready'")


def text(page):
    return page.run("[...document.querySelectorAll('.word')].map((w) => w.textContent).join(' ')")


def test_loop(page, project, tmp_path):
    before = text(page).split()
    # Replace two words by one that was recorded.
    page.click("[data-number='2']")
    page.click("[data-number='3']", shift=True)
    assert page.run("document.querySelectorAll('.selected').length") == 2
    page.click("#text")
    page.type(before[7])
    page.click("#replace")
    page.until(f"document.querySelectorAll('.word').length === {len(before) - 1}")
    assert text(page).split() == [*before[:2], before[7], *before[4:]]
    # A gesture, and a word performed with more energy.
    page.click("[data-number='5']")
    page.click(".gesture[data-name=smile]")
    page.until("document.querySelector('.word.gesture')")
    page.click("[data-number='8']")
    page.click("#energetic")
    page.until("document.querySelector('.word.refined')")
    ready(page)
    # Drag the start of the word's second phone, then bend its opening.
    start = page.run(
        "(() => { const c = document.querySelector('#wave'); return toX(state.tokens[8].phones[1].start, c) / c.width; })()"
    )
    page.drag("#wave", (start, 0.5), (start + 0.04, 0.5))
    page.until("state.undo === 4")
    ready(page)
    middle = page.run(
        "(() => { const t = state.tokens[8], c = document.querySelector('#curve'); return toX((t.start + t.end) / 2, c) / c.width; })()"
    )
    page.drag("#curve", (middle, 0.5), (middle, 0.2))
    page.until("state.undo === 5")
    ready(page)
    ops = [op["op"] for op in project.history.load(project.folder / "edits.json", project.history.words).done]
    assert ops == ["replace", "replace", "perform", "shift", "curve"]
    # Render and play.
    page.click("#render")
    page.until("document.querySelector('#status').textContent.startsWith('Rendered')", 120)
    page.until(
        "document.querySelector('#after').readyState >= 1 && document.querySelector('#after').duration > 3"
    )
    page.click("#compare")
    page.until("document.querySelector('#after').currentTime > 0 && !document.querySelector('#after').paused")
    page.picture(tmp_path / "page.png")  # kept by pytest for looking at
    # Undo everything.
    for left in range(4, -1, -1):
        page.click("#undo")
        page.until(f"state.undo === {left}")
    page.until("document.querySelector('#undo').disabled")
    assert text(page).split() == before
    # A word that was never recorded is refused in plain words.
    page.click("#text")
    page.type("xylophone")
    page.click("#insert")
    page.until("document.querySelector('#status').className === 'error'")
    assert "new words need sound" in page.run("document.querySelector('#status').textContent")
    assert [(p.get("url"), p.get("text")) for p in page.problems if "400" not in str(p)] == []
