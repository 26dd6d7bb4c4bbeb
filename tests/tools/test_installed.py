"""Packages that are there, too old, missing or broken; and the lock's versions."""

import importlib.metadata

import pytest

from poison_t5x.tools import installed
from poison_t5x.tools.machine import Level


@pytest.fixture
def check(monkeypatch):
    def run(versions, *texts, pins=()):
        def version(name):
            if name not in versions:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(importlib.metadata, "requires", lambda name: list(texts))
        monkeypatch.setattr(importlib.metadata, "version", version)
        monkeypatch.setattr(importlib.metadata, "files", lambda name: ())
        monkeypatch.setattr(installed, "locked", lambda path: dict(pins))
        return {finding.name: finding for finding in installed.check()}

    return run


def test_packages_that_are_missing_or_untested(check):
    found = check(
        {"jax": "0.9.1", "flax": "0.12.9"},
        *("jax>=0.10,<0.11", "flax>=0.12.8,<0.13", "optax>=0.2", 'libtpu>=0.0.42; extra == "tpu"'),
        pins={"flax": "0.12.8"},
    )
    levels = [found[name].level for name in ("jax", "flax", "optax", "[tpu]")]
    assert levels == [Level.WARNING, Level.OK, Level.PROBLEM, Level.OK]
    assert "0.9.1, outside of" in found["jax"].text
    assert found["flax"].text.startswith("0.12.9") and "tested with 0.12.8" in found["flax"].text
    assert "pip install 'optax>=0.2'" in found["optax"].text
    assert found["[tpu]"].text.endswith("pip install 'poison-t5x[tpu]'")


def test_an_extra_of_the_wrong_version_is_a_warning(check):
    found = check({"libtpu": "0.0.40"}, 'libtpu>=0.0.42; extra == "tpu"')
    assert found["[tpu]"].level is Level.WARNING and "0.0.40 is outside" in found["[tpu]"].text


def test_an_extra_of_another_packages_extra_needs_its_plugin(monkeypatch, check):
    asked = {
        "poison-t5x": ['jax[cuda12]; extra == "gpu"'],
        "jax": ['jax-cuda12-plugin; extra == "cuda12"', "numpy", "scipy; sys_platform != 'x'"],
    }
    check({"jax": "0.10.2"})
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: asked[name])
    found = {finding.name: finding for finding in installed.check()}
    assert "not installed (jax-cuda12-plugin)" in found["[gpu]"].text


def test_metadata_without_its_files_is_broken(tmp_path, monkeypatch):
    info = tmp_path / "hollow-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hollow\nVersion: 1.0\n")
    (info / "RECORD").write_text("hollow/__init__.py,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "hollow").mkdir()
    assert installed._missing_file("hollow") == "hollow/__init__.py"
    (tmp_path / "hollow" / "__init__.py").write_text("")
    assert installed._missing_file("hollow") is None


def test_a_project_that_is_not_installed():
    found = installed.check("a-project-that-is-nowhere")
    assert found[-1].level is Level.PROBLEM and "pip install -e ." in found[-1].text


def test_versions_of_a_lock_file(tmp_path):
    path = tmp_path / "requirements.lock"
    path.write_text("jax==0.10.2 \\\n    --hash=sha256:00\nRouge_Score==0.1.2 ; x == 'y'\n")
    assert installed.locked(path) == {"jax": "0.10.2", "rouge-score": "0.1.2"}
    assert installed.locked(tmp_path / "gone") == {}
