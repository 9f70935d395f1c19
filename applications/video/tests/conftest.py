"""One small drawn recording in a project, made once; each test works on a copy."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from retell import studio
from retell.ingest import ingest
from retell.procedural import sentence
from retell.project import Project

CONSENT = "The drawn speaker agrees to every edit"
CLIPS = Path(__file__).parents[4] / "shared" / "data" / "video"


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory):
    """Keys of the tests stay out of the user's home; models are taken from there if they are installed."""
    import os

    from retell import models

    real, own = models.home(), tmp_path_factory.mktemp("home")
    if (real / "models").is_dir():
        shutil.copytree(real / "models", own / "models")
    os.environ["RETELL_HOME"] = str(own)
    return own


@pytest.fixture(scope="session")
def shot(tmp_path_factory):
    random = np.random.default_rng(11)
    shot = studio.shoot(2, [sentence(random) for _ in range(4)], (320, 180), seed=3)
    shot.path = studio.film(shot, tmp_path_factory.mktemp("shot") / "drawn speaker.mp4")
    return shot


@pytest.fixture(scope="session")
def ingested(shot, tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("ingested") / "project")
    ingest(project, shot.path, shot.transcript, CONSENT, tracker=shot.track)
    return project


@pytest.fixture
def project(ingested, tmp_path):
    shutil.copytree(ingested.folder, tmp_path / "project")
    return Project.open(tmp_path / "project")


@pytest.fixture(scope="session")
def models(home):
    """The face models; installed by pip if they are not there, skipped where that fails."""
    from retell import models
    from retell.errors import UserError

    if not models.installed():
        try:
            models.install()
        except UserError as error:
            pytest.skip(f"no face models: {error}")
    return models.home()


@pytest.fixture(scope="session")
def clips():
    if not CLIPS.is_dir():
        pytest.skip("no folder of real clips")
    return sorted(CLIPS.glob("*.mpg"))
