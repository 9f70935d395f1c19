"""A real browser for tests of pages: headless Chromium, on this machine's own addresses alone."""

import json
import shutil
import subprocess
import threading
from collections.abc import Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

_FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"

# The page's own width and what sticks out of it, seen from a frame of each width in turn.
_FRAMES = """<!doctype html><body><script>
const wanted = %s, said = {};
const see = (name, width) => new Promise(done => {
  const frame = Object.assign(document.createElement("iframe"), {src: name});
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.onload = () => setTimeout(() => {
    const root = frame.contentDocument.documentElement;
    said[`${name} ${width}`] = [root.clientWidth, root.scrollWidth];
    frame.remove(); done();
  }, 50);
  document.body.append(frame);
});
(async () => {
  for (const [name, width] of wanted) await see(name, width);
  document.body.append(Object.assign(document.createElement("pre"), {id: "said", textContent: JSON.stringify(said)}));
})();
</script></body>"""


def browser(user: Path) -> list[str]:
    """The command of a browser whose profile is the folder `user`; skips where there is none."""
    found = next((x for x in ("chromium", "chromium-browser", "google-chrome") if shutil.which(x)), None)
    if found is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    return [found, *_FLAGS.split(), f"--user-data-dir={user}"]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def widths(folder: Path, pages: Sequence[str], at: Sequence[int], user: Path) -> dict[str, tuple[int, int]]:
    """{"PAGE WIDTH": (width of the window, width of what is in it)} of pages of a folder."""
    wanted = json.dumps([(name, width) for name in pages for width in at])
    (folder / "frames.html").write_text(_FRAMES % wanted)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        command = [*browser(user), "--virtual-time-budget=20000", "--window-size=2000,1200", "--dump-dom"]
        address = f"http://127.0.0.1:{server.server_port}/frames.html"
        shown = subprocess.run([*command, address], capture_output=True, text=True, timeout=120).stdout
    finally:
        server.shutdown()
        server.server_close()
        (folder / "frames.html").unlink()
    said: dict[str, tuple[int, int]] = json.loads(shown.partition('id="said">')[2].partition("</pre>")[0])
    return said
