"""Stages that runs have in common are made once, and each run's folder is its own."""

import multiprocessing
import os
import shutil

import pytest

from poison_t5x.core import artifacts, stage_store
from poison_t5x.core.errors import InputError

SETTINGS = {"steps": 3, "seed": 0}


def _make(store, folder, settings=SETTINGS, text="made"):
    """One stage, as a run makes it; returns what was said."""
    said = []
    with store.shared(folder, "train", settings, log=said.append):
        artifacts.run_stage(
            folder,
            "train",
            settings,
            lambda directory: artifacts.write_atomically(directory / "model.txt", text),
            log=said.append,
        )
    return said


def test_the_second_run_is_given_the_first_ones_stage(tmp_path):
    store = stage_store.Store(tmp_path / "store")
    assert "done in" in _make(store, tmp_path / "a" / "model")[0]
    folder = tmp_path / "b" / "model"
    assert _make(store, folder, text="other") == [
        f"train: taken from the store {tmp_path / 'store'} -> {folder}",
        f"train: already done in {folder}",
    ]
    first, second = (tmp_path / name / "model" / "model.txt" for name in "ab")
    assert second.read_text() == "made" and os.path.samefile(first, second)
    artifacts.verify(tmp_path / "b" / "model")


def test_other_settings_and_other_kinds_are_other_stages(tmp_path):
    store = stage_store.Store(tmp_path / "store")
    _make(store, tmp_path / "a")
    assert "done in" in _make(store, tmp_path / "b", {**SETTINGS, "seed": 1}, "other")[0]
    assert (tmp_path / "b" / "model.txt").read_text() == "other"
    with store.shared(tmp_path / "c", "eval", SETTINGS):
        assert not (tmp_path / "c").exists()


def test_deleting_a_run_leaves_the_others(tmp_path):
    store = stage_store.Store(tmp_path / "store")
    _make(store, tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    assert "taken from the store" in _make(store, tmp_path / "b")[0]


def test_a_failed_stage_is_not_kept(tmp_path):
    store = stage_store.Store(tmp_path / "store")
    with pytest.raises(ZeroDivisionError), store.shared(tmp_path / "a", "train", SETTINGS):
        raise ZeroDivisionError
    assert "done in" in _make(store, tmp_path / "b")[0]


def test_a_begun_stage_is_gone_on_with_and_kept_then(tmp_path):
    store = stage_store.Store(tmp_path / "store")
    _make(store, tmp_path / "a")
    begun = tmp_path / "b"
    begun.mkdir()
    with store.shared(begun, "train", SETTINGS):
        assert list(begun.iterdir()) == []


def _wait_and_make(root, name, ready):
    ready.wait()
    store = stage_store.Store(root / "store")
    _make(store, root / name, text=name)


def test_processes_that_want_the_same_stage_make_it_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    workers = [
        context.Process(target=_wait_and_make, args=(tmp_path, name, ready)) for name in "abcd"
    ]
    for worker in workers:
        worker.start()
    ready.set()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len({(tmp_path / name / "model.txt").read_text() for name in "abcd"}) == 1


def test_another_file_system_is_refused_in_one_line(tmp_path, monkeypatch):
    store = stage_store.Store(tmp_path / "store")

    def link(*arguments, **options):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(InputError, match=r"STAGE_STORE_DIR: .* must be on one file system"):
        _make(store, tmp_path / "a")
    assert (tmp_path / "a" / "model.txt").exists()
    assert not list((tmp_path / "store").glob("*.shared"))
