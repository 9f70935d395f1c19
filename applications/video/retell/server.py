"""The editor as a page of this machine: words, sound, render, compare. Only this machine's own page may use it.

Three checks: it listens on 127.0.0.1 only; the Host header must name that address (another name that leads here is
refused); requests need a secret token, and an Origin, where sent, must be the page's own.
"""

import secrets
import tempfile
import threading
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from retell import voice
from retell.errors import UserError
from retell.media import SOUND
from retell.mouth import PARAMETERS
from retell.plan import Plan
from retell.project import Project
from retell.render import Renderer
from retell.words import split

LARGEST_UPLOAD = 50_000_000
PEAKS = 100  # a second, of the waveform shown


@dataclass
class Job:
    """The rendering under way or the last one."""

    stage: str = "idle"
    part: float = 0.0
    error: str | None = None
    version: int = 0
    result: dict | None = None
    thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self.thread is not None and self.thread.is_alive()

    def report(self) -> dict:
        return {
            "running": self.running,
            "stage": self.stage,
            "part": self.part,
            "error": self.error,
            "version": self.version,
            "result": self.result,
        }


class Editor:
    """One open project behind the page."""

    def __init__(self, project: Project, tts: str | None = None):
        self.project, self.tts = project, tts
        self.renderer = Renderer(project)
        self.lock = threading.RLock()
        self.job = Job()
        self._plan: tuple[str, Plan] | None = None

    def plan(self) -> Plan:
        with self.lock:
            key = repr(self.project.history.done)
            if self._plan is None or self._plan[0] != key:
                self._plan = (key, self.renderer.planner.plan())
            return self._plan[1]

    def state(self) -> dict:
        with self.lock:
            history = self.project.history
            plan = self.plan()
            timed = {w["token"]: w for w in plan.words}
            tokens = [
                {
                    "text": token.text(history.words),
                    "kind": "gesture" if token.gesture else "new" if token.word else "kept",
                    "refined": token.refined,
                    "energy": token.energy,
                    "smooth": token.smooth,
                    **{k: timed.get(i, {}).get(k) for k in ("start", "end", "phones")},
                }
                for i, token in enumerate(history.tokens)
            ]
            return {
                "tokens": tokens,
                "notes": [*self.project.target.about["notes"], *plan.notes],
                "seconds": len(plan.background) / self.renderer.planner.rate,
                "undo": len(history.done),
                "redo": len(history.undone),
                "tts": self.tts is not None,
                "parameters": PARAMETERS,
                "job": self.job.report(),
            }

    def edit(self, op: dict) -> dict:
        with self.lock:
            if not isinstance(op, dict):
                raise UserError("an operation must be a JSON object", repr(op), "reload the page")
            if "sound" in op and not (self.project.folder / "sounds" / Path(str(op["sound"])).name).is_file():
                raise UserError("sound must be one that was uploaded", repr(op["sound"]), "upload it again")
            if self.tts and op.get("op") == "replace" and "sound" not in op and self._unrecorded(op):
                folder = self.project.folder / "sounds"
                op = op | {"sound": voice.command(self.tts, split(op["text"]), folder).name}
            history = self.project.history
            history.do(op)
            try:
                return self.state()
            except UserError:  # words without sound, say: the edit is not kept
                history.undo()
                history.undone.pop()
                history.save()
                raise

    def _unrecorded(self, op: dict) -> bool:
        text = op.get("text")
        return isinstance(text, str) and any(w not in self.project.history.words for w in split(text))

    def step(self, name: str) -> dict:
        with self.lock:
            getattr(self.project.history, name)()
            return self.state()

    def upload(self, data: bytes, suffix: str) -> dict:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"upload{suffix}"
            path.write_bytes(data)
            return {"sound": voice.import_sound(path, self.project.folder / "sounds").name}

    def wave(self) -> dict:
        samples = np.abs(self.plan().samples.astype(np.int32))
        step = SOUND // PEAKS
        count = len(samples) // step
        peaks = samples[: count * step].reshape(count, step).max(1, initial=0)
        return {"rate": PEAKS, "peaks": (100 * peaks // max(int(peaks.max(initial=1)), 1)).tolist()}

    def curve(self, parameter: int) -> dict:
        plan = self.plan()
        if not 0 <= parameter < plan.motion.shape[1]:
            raise UserError(
                f"parameter must be 0 to {plan.motion.shape[1] - 1}", str(parameter), "choose one of the list"
            )
        style = self.renderer.planner.style
        values = (plan.motion[:, parameter] - style.rest[parameter]) / style.spread[parameter]
        return {"rate": self.renderer.planner.rate, "values": np.round(values, 3).tolist()}

    def render(self) -> dict:
        with self.lock:
            if self.job.running:
                raise UserError("one rendering at a time", "another request", "wait until it is done")
            prepared = self.renderer.prepare()
            self.job = Job("plan", 0.0, None, self.job.version, self.job.result)
            self.job.thread = threading.Thread(target=self._render, args=(self.job, prepared), daemon=True)
            self.job.thread.start()
            return self.job.report()

    def _render(self, job: Job, prepared: tuple[Plan, dict]) -> None:
        def progress(stage: str, part: float) -> None:
            job.stage, job.part = stage, part

        try:
            result = self.renderer.render(progress=progress, prepared=prepared)
            job.result = {"seconds": result.seconds, "frames": result.encoded}
            job.version += 1
            job.stage, job.part = "done", 1.0
        except UserError as error:
            job.stage, job.error = "failed", str(error)
        except Exception as error:  # the page must learn of it, whatever it is
            job.stage, job.error = "failed", f"{type(error).__name__}: {error}"
            raise


class Guard:
    """Middleware: only this machine's page, with the token."""

    def __init__(self, app, token: str):
        self.app, self.token = app, token

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request = Request(scope)
        refusal = self._refusal(request)
        if refusal:
            return await PlainTextResponse(refusal, 403)(scope, receive, send)
        return await self.app(scope, receive, send)

    def _refusal(self, request: Request) -> str | None:
        host = request.headers.get("host", "")
        if urlsplit(f"//{host}").hostname not in ("127.0.0.1", "localhost"):
            return "this editor answers on 127.0.0.1 only"
        origin = request.headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return "requests of other sites are refused"
        if request.headers.get("sec-fetch-site") not in (None, "same-origin", "none"):
            return "requests of other sites are refused"
        given = request.query_params.get("token") if request.url.path == "/" else None
        given = given or request.headers.get("x-retell-token") or request.cookies.get("retell") or ""
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return "open the address that retell serve printed: it holds the token"
        if request.method != "GET" and request.headers.get("x-retell-token") is None:
            return "changes need the token as a header"
        return None


def application(project: Project, token: str, tts: str | None = None) -> Starlette:
    editor = Editor(project, tts)

    def answer(call):
        async def endpoint(request: Request) -> Response:
            try:
                return JSONResponse(await call(request))
            except UserError as error:
                return JSONResponse({"error": str(error)}, 400)

        return endpoint

    async def page(request: Request) -> Response:
        text = (files("retell.page") / "index.html").read_text(encoding="utf-8").replace("{{token}}", token)
        response = Response(text, media_type="text/html; charset=utf-8")
        response.set_cookie("retell", token, httponly=True, samesite="strict")
        response.headers["Content-Security-Policy"] = "default-src 'self'; frame-ancestors 'none'"
        return response

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        kinds = {"app.js": "text/javascript", "style.css": "text/css"}
        if name not in kinds:
            return PlainTextResponse("not found", 404)
        return Response((files("retell.page") / name).read_text(encoding="utf-8"), media_type=kinds[name])

    async def video(request: Request) -> Response:
        names = {"before": "target/frames.mp4", "after": "result.mp4"}
        path = project.folder / names.get(request.path_params["which"], "absent")
        return (
            FileResponse(path, media_type="video/mp4")
            if path.is_file()
            else PlainTextResponse("not there", 404)
        )

    async def body(request: Request) -> bytes:
        data = b""
        async for chunk in request.stream():
            data += chunk
            if len(data) > LARGEST_UPLOAD:
                raise UserError(
                    f"an upload of up to {LARGEST_UPLOAD // 10**6} MB", "a larger one", "cut the sound"
                )
        return data

    async def edit(request: Request) -> dict:
        try:
            op = await request.json()
        except ValueError:
            raise UserError("an operation must be JSON", "something else", "reload the page") from None
        return await run_in_threadpool(editor.edit, op)

    async def upload(request: Request) -> dict:
        return await run_in_threadpool(editor.upload, await body(request), ".wav")

    async def curve(request: Request) -> dict:
        try:
            parameter = int(request.query_params.get("parameter", 0))
        except ValueError:
            raise UserError(
                "parameter must be a number", request.query_params["parameter"], "choose one"
            ) from None
        return await run_in_threadpool(editor.curve, parameter)

    def simple(function, *args):
        async def call(request: Request) -> dict:
            return await run_in_threadpool(function, *args)

        return answer(call)

    async def progress(request: Request) -> dict:
        return editor.job.report()

    routes = [
        Route("/", page),
        Route("/page/{name}", asset),
        Route("/favicon.ico", lambda request: Response(status_code=204)),
        Route("/video/{which:str}", video),
        Route("/api/state", simple(editor.state)),
        Route("/api/wave", simple(editor.wave)),
        Route("/api/curve", answer(curve)),
        Route("/api/progress", answer(progress)),
        Route("/api/edit", answer(edit), methods=["POST"]),
        Route("/api/undo", simple(editor.step, "undo"), methods=["POST"]),
        Route("/api/redo", simple(editor.step, "redo"), methods=["POST"]),
        Route("/api/sound", answer(upload), methods=["POST"]),
        Route("/api/render", simple(editor.render), methods=["POST"]),
    ]
    app = Starlette(routes=routes)
    app.add_middleware(Guard, token=token)
    app.state.editor = editor
    return app


def serve(project: Project, port: int, tts: str | None = None) -> None:
    import uvicorn

    token = secrets.token_urlsafe(24)
    app = application(project, token, tts)
    print(f"http://127.0.0.1:{port}/?token={token}", flush=True)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
