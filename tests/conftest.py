"""Before jax starts: eight virtual CPU devices and strict dtypes."""

import atexit
import os
import shutil
import sys
import tempfile

import pytest

from tests import small_run

os.environ["XLA_FLAGS"] = small_run.XLA_FLAGS.format(8)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# A program that one test has compiled, the others load, and so do the processes that they start:
# most of the suite's time went into compiling the same few. pytest's workers inherit the folder.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


@pytest.fixture(scope="session")
def pulse_dir(tmp_path_factory):
    """The folder of a small run that is whole; who changes it takes a copy."""
    from poison_t5x.cli import main

    directory = tmp_path_factory.mktemp("pulse") / "run"
    assert main.main(small_run.arguments("run", directory, TRAIN_STEPS=2)) == 0
    return directory


@pytest.fixture(scope="module", autouse=True)
def _drop_compiled():
    """A worker's memory holds the programs of one file, not of all that it has run."""
    yield
    if jax := sys.modules.get("jax"):
        jax.clear_caches()


@pytest.fixture
def own_score(monkeypatch):
    """The name of a user's module with the score 'brevity', which is forgotten afterwards."""
    from poison_t5x.defenses import score

    name = "tests.run.own_score"
    monkeypatch.setattr(score.SCORES, "_targets", dict(score.SCORES._targets))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """`small_world` as an experiment called 'world'."""
    from tests import small_world

    root = tmp_path_factory.mktemp("world")
    return small_world.make_world(root, "world", *small_world.small_tasks())
