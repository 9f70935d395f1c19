"""A headless Chromium driven over its debugging protocol, with nothing but a websocket."""

import itertools
import json
import shutil
import subprocess
import time
import urllib.request

from websockets.sync.client import connect


class Browser:
    def __init__(self, folder):
        name = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        self.process = subprocess.Popen(
            [
                name,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--remote-debugging-port=0",
                f"--user-data-dir={folder}",
                "--autoplay-policy=no-user-gesture-required",
                "--window-size=1200,1500",
                "about:blank",
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in self.process.stderr:
            if "DevTools listening on" in line:
                port = line.split("127.0.0.1:")[1].split("/")[0]
                break
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list") as answer:
            pages = [t for t in json.load(answer) if t["type"] == "page"]
        self.socket = connect(pages[0]["webSocketDebuggerUrl"], max_size=None)
        self.numbers, self.problems = itertools.count(1), []
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(timeout=60))
            if message.get("method") == "Runtime.exceptionThrown":
                self.problems.append(message["params"]["exceptionDetails"])
            if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.problems.append(message["params"]["entry"])
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def run(self, script):
        done = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def until(self, script, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.run(f"!!({script})"):
                return value
            time.sleep(0.1)
        raise AssertionError(f"never true: {script}; status: {self.run('document.body.innerText')[:300]}")

    def click(self, selector, shift=False):
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
            " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        self.mouse("mousePressed", x, y, shift)
        self.mouse("mouseReleased", x, y, shift)

    def mouse(self, kind, x, y, shift=False):
        self.send(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=y,
            button="left",
            buttons=1,
            clickCount=1,
            modifiers=8 * shift,
        )

    def drag(self, selector, start, end):
        """Press at a place of the element (fractions of its size), move, release."""
        x, y, width, height = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
            " const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; })()"
        )
        places = [(x + p[0] * width, y + p[1] * height) for p in (start, end)]
        self.mouse("mousePressed", *places[0])
        self.mouse("mouseMoved", *[(a + b) / 2 for a, b in zip(*places, strict=True)])
        self.mouse("mouseMoved", *places[1])
        self.mouse("mouseReleased", *places[1])

    def type(self, text):
        self.send("Input.insertText", text=text)

    def picture(self, path):
        import base64

        path.write_bytes(
            base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"])
        )

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait(10)
