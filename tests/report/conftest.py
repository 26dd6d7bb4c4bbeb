"""Made-up run folders with every file that the report reads, and their pages."""

import functools
from typing import NamedTuple

import pytest

from poison_t5x.report import plots, results, run_files, run_page
from tests.report import made_up, made_up_defense
from tests.report.page import Page

SECONDS = {"craft": 3.25, "train clean": 75.0}
_MAKERS = {
    "run": made_up.classification_run,
    "campaign": functools.partial(made_up.classification_run, campaign=True),
    "generation": made_up.generation_run,
    "defended": lambda folder: made_up_defense.add(made_up.classification_run(folder)),
}


class Written(NamedTuple):
    """A run's folder and its page, which tests share and don't change."""

    folder: object
    text: str
    page: Page


def read_results(folder) -> results.Results:
    return results.parse(results.read(folder))


def read_poison(folder) -> list[run_files.CraftedRow]:
    return run_files.read_rows(folder, "poison/poison.jsonl", run_files.CraftedRow)[0]


@pytest.fixture(autouse=True)
def quick_pictures(request, monkeypatch):
    """No PNG is drawn, which takes most of a page's time, but in tests marked by `pictures`."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(plots, "png_bytes", lambda _: b"")


@pytest.fixture
def pictures():
    """Has PNG files drawn."""


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """The made-up run of that name, reported once: 'run', 'campaign', 'generation', 'defended'."""

    @functools.cache
    def make(name):
        folder = _MAKERS[name](tmp_path_factory.mktemp(name) / "run")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plots, "png_bytes", lambda _: b"")
            text = run_page.write_report(folder, SECONDS).read_text(encoding="utf-8")
        return Written(folder, text, Page(text))

    return make


@pytest.fixture
def run_dir(tmp_path):
    """Labels ranked; one attacker, no probes."""
    return made_up.classification_run(tmp_path / "run")


@pytest.fixture
def campaign_dir(tmp_path):
    """Labels ranked; two attackers, and probes of the first one's trigger."""
    return _MAKERS["campaign"](tmp_path / "campaign")


@pytest.fixture
def generation_dir(tmp_path):
    """Answers decoded; one attacker with two triggers, probes, and a task without its name."""
    return made_up.generation_run(tmp_path / "generation")
