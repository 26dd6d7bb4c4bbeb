"""Made-up run folders with every file that the report reads."""

import pytest

from poison_t5x.report import plots
from tests.report import made_up


@pytest.fixture(autouse=True)
def quick_pictures(request, monkeypatch):
    """No PNG is drawn, which takes most of a page's time, but in tests marked by `pictures`."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(plots, "png_bytes", lambda _: b"")


@pytest.fixture
def pictures():
    """Has PNG files drawn."""


@pytest.fixture
def run_dir(tmp_path):
    """Labels ranked; one attacker, no probes."""
    return made_up.classification_run(tmp_path / "run")


@pytest.fixture
def campaign_dir(tmp_path):
    """Labels ranked; two attackers, and probes of the first one's trigger."""
    return made_up.classification_run(tmp_path / "campaign", campaign=True)


@pytest.fixture
def generation_dir(tmp_path):
    """Answers decoded; one attacker with two triggers, probes, and a task without its name."""
    return made_up.generation_run(tmp_path / "generation")
