"""The page's server: what it does, and whom it refuses."""

import io
import time
import wave

import numpy as np
import pytest
from starlette.testclient import TestClient

from retell import studio
from retell.procedural import Speaker
from retell.server import application

TOKEN = "secret-token"


@pytest.fixture
def client(project):
    client = TestClient(application(project, TOKEN), base_url="http://127.0.0.1:8425")
    client.headers["X-Retell-Token"] = TOKEN
    return client


def rendered(client) -> dict:
    assert client.post("/api/render", json={}).status_code == 200
    for _ in range(600):
        job = client.get("/api/progress").json()
        if not job["running"]:
            return job
        time.sleep(0.05)
    raise AssertionError("never done")


def test_edit_render_undo(client):
    words = [t["text"] for t in client.get("/api/state").json()["tokens"]]
    state = client.post(
        "/api/edit", json={"op": "replace", "first": 2, "last": 3, "text": f"{words[5]} [smile]"}
    ).json()
    assert [t["text"] for t in state["tokens"]][1:5] == [words[1], words[5], "[smile]", words[3]]
    assert state["tokens"][2]["kind"] == "new" and state["tokens"][2]["phones"]
    job = rendered(client)
    assert job["stage"] == "done" and job["result"]["frames"] > 0
    video = client.get("/video/after", headers={"Range": "bytes=0-99"})
    assert video.status_code == 206 and len(video.content) == 100
    assert [t["text"] for t in client.post("/api/undo", json={}).json()["tokens"]] == words
    assert client.post("/api/redo", json={}).json()["undo"] == 1
    assert client.post("/api/redo", json={}).status_code == 400


def test_words_without_sound_are_refused_and_not_kept(client):
    answer = client.post("/api/edit", json={"op": "replace", "first": 0, "last": 1, "text": "xylophone"})
    assert answer.status_code == 400 and "new words need sound" in answer.json()["error"]
    assert client.get("/api/state").json()["undo"] == 0


def test_sound_given_by_the_user(client):
    speech = Speaker.draw(3).speak([["purple", "window"]], np.random.default_rng(0))
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes(studio.voice(speech, 120, 0).tobytes())
    name = client.post("/api/sound", content=buffer.getvalue()).json()["sound"]
    op = {"op": "replace", "first": 1, "last": 2, "text": "purple window", "sound": name}
    state = client.post("/api/edit", json=op).json()
    assert [t["text"] for t in state["tokens"]][1:3] == ["purple", "window"]
    assert any("sound given" in note for note in state["notes"])
    state = client.post("/api/edit", json={"op": "delete", "first": 1, "last": 2}).json()
    assert state["tokens"][1]["text"] == "window" and state["tokens"][1]["phones"]


def test_uploads_and_operations_that_are_no_such_thing(client):
    assert client.post("/api/sound", content=b"not a sound").status_code == 400
    assert client.post("/api/sound", content=b"").status_code == 400
    for body in (
        b"{",
        b"[1]",
        b'{"op": "format"}',
        b'{"op": "delete", "first": 0, "last": 999}',
        b'{"op":"curve","at":0}',
    ):
        assert client.post("/api/edit", content=body).status_code == 400, body
    op = {"op": "replace", "first": 0, "last": 1, "text": "x", "sound": "../../project.json"}
    assert client.post("/api/edit", json=op).status_code == 400
    assert client.get("/api/curve?parameter=x").status_code == 400
    assert client.get("/page/server.py").status_code == 404
    assert client.get("/video/project.json").status_code == client.get("/video/after").status_code == 404
    assert client.get("/api/state").json()["undo"] == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Host": "evil.example:8425"},
        {"Sec-Fetch-Site": "cross-site"},
        {"X-Retell-Token": "wrong"},
        {"X-Retell-Token": ""},
    ],
)
def test_others_are_refused(client, headers):
    for method, path in (("GET", "/api/state"), ("POST", "/api/undo"), ("GET", "/video/before")):
        assert client.request(method, path, headers=headers).status_code == 403


def test_cookie_alone_may_read_but_not_change(project):
    client = TestClient(application(project, TOKEN), base_url="http://127.0.0.1:8425")
    assert client.get("/").status_code == 403
    assert client.get("/?token=wrong").status_code == 403
    page = client.get(f"/?token={TOKEN}")
    assert (
        page.status_code == 200
        and TOKEN in page.text
        and "samesite=strict" in page.headers["set-cookie"].lower()
    )
    assert client.get("/video/before").status_code == 200
    assert client.post("/api/undo", json={}).status_code == 403
    own = {"Origin": "http://127.0.0.1:8425", "X-Retell-Token": TOKEN}
    assert client.post("/api/undo", json={}, headers=own).status_code == 400  # allowed, but nothing to undo


def test_an_edit_while_rendering_is_not_claimed_by_the_result(client, project):
    """The manifest lists the edits that were rendered, not those made meanwhile."""
    from retell import provenance

    client.post("/api/edit", json={"op": "delete", "first": 2, "last": 3})
    client.post("/api/render", json={})
    client.post("/api/edit", json={"op": "delete", "first": 5, "last": 6})
    assert client.post("/api/render", json={}).status_code in (200, 400)  # one at a time
    for _ in range(600):
        if not client.get("/api/progress").json()["running"]:
            break
        time.sleep(0.05)
    first = provenance.read(project.folder / "result.mp4")["about"]
    assert len(first["text_before"].split()) - len(first["text_after"].split()) == len(first["edits"])


def test_words_spoken_by_a_command(project, tmp_path):
    import sys

    speech = Speaker.draw(3).speak([["purple", "window"]], np.random.default_rng(0))
    from retell.project import write_wav

    write_wav(tmp_path / "said.wav", studio.voice(speech, 120, 0))
    copy = f"{sys.executable} -c 'import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])' {tmp_path / 'said.wav'} {{wav}} {{text}}"
    client = TestClient(application(project, TOKEN, copy), base_url="http://127.0.0.1:8425")
    client.headers["X-Retell-Token"] = TOKEN
    state = client.post(
        "/api/edit", json={"op": "replace", "first": 2, "last": 3, "text": "purple window"}
    ).json()
    assert [t["text"] for t in state["tokens"]][2:4] == ["purple", "window"] and state["tts"]
    assert (
        client.post("/api/edit", json={"op": "replace", "first": 2, "last": 3, "text": 5}).status_code == 400
    )
