"""Packages that are there, too old or missing."""

import importlib.metadata

from poison_t5x.tools import installed
from poison_t5x.tools.machine import Level

WANTED = (
    *("jax>=0.10,<0.11", "flax>=0.12.8,<0.13", "optax>=0.2", 'jax[cuda12]; extra == "gpu"'),
    *('libtpu>=0.0.42; extra == "tpu"', 'torch>=2.6; extra == "hf"', 'scipy; extra == "test"'),
)


def test_packages_that_are_missing_or_untested(monkeypatch):
    versions = {"jax": "0.9.1", "flax": "0.12.9", "torch": "2.5"}

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "requires", lambda name: list(WANTED))
    monkeypatch.setattr(importlib.metadata, "version", version)
    rows = {row.name: row for row in installed.check()}
    assert {name: row.level for name, row in rows.items()} == {
        "jax": Level.WARNING,
        "flax": Level.OK,
        "optax": Level.PROBLEM,
        "[tpu] libtpu": Level.OK,
        "[hf] torch": Level.WARNING,
    }
    assert "0.9.1, outside of" in rows["jax"].text
    assert rows["flax"].text.startswith("0.12.9 (in ")
    assert "pip install 'optax>=0.2'" in rows["optax"].text
    assert rows["[tpu] libtpu"].text.endswith("pip install 'poison-t5x[tpu]'")


def test_a_project_that_is_not_installed():
    (row,) = installed.check("a-project-that-is-nowhere")
    assert row.level is Level.PROBLEM and "pip install -e ." in row.text
