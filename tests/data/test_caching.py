"""SeqIO's offline cache holds the rows that training reads without it."""

import json

import pytest
import seqio

from poison_t5x.cli import main
from poison_t5x.core import artifacts, gin_config
from poison_t5x.data import caching, mixtures
from poison_t5x.data.input_pipeline import DatasetConfig, batches
from tests import small_run

LENGTHS = {"inputs": 168, "targets": 8}


@pytest.fixture(name="run_dir", scope="module")
def _run_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cached") / "run"
    assert main.main(small_run.arguments("craft", directory)) == 0
    yield directory
    seqio.set_global_cache_dirs([])


def _poisoned_tasks() -> list[str]:
    """Names of the run's poisoned training tasks."""
    return [name for name in seqio.TaskRegistry.names() if "tiny_poisoned." in name]


def _epoch(use_cached: bool) -> set[bytes]:
    """The rows of one task's first epoch."""
    (name, *_) = sorted(_poisoned_tasks())
    config = DatasetConfig(name, LENGTHS, batch_size=20, shuffle=False, use_cached=use_cached)
    rows = next(batches(config))
    return {b"".join(rows[key][row].tobytes() for key in sorted(rows)) for row in range(20)}


def test_cached_rows_are_the_rows(run_dir, tmp_path, capsys):
    pytest.importorskip("apache_beam", reason="the extra 'cache'")
    command = small_run.arguments("cache", run_dir)
    assert main.main([*command, str(tmp_path), "--num_shards=2"]) == 0
    assert "tasks written" in capsys.readouterr().out
    expected = _epoch(use_cached=False)
    caching.use([str(tmp_path)])
    assert _epoch(use_cached=True) == expected and len(expected) == 20
    # What is there isn't made again.
    assert main.main([*command, str(tmp_path), "--num_shards=2"]) == 0
    assert "cache: 0 of" in capsys.readouterr().out
    info = next(tmp_path.rglob("info.*.json"))
    assert json.loads(info.read_text())["num_shards"] == 2
    assert not list(tmp_path.rglob("*.partial"))


def test_a_run_trains_from_the_cache(run_dir, tmp_path):
    pytest.importorskip("apache_beam", reason="the extra 'cache'")
    assert main.main([*small_run.arguments("cache", run_dir), str(tmp_path), "--num_shards=2"]) == 0
    cached = {"USE_CACHED_TASKS": True, "TASK_CACHE_DIRS": f"['{tmp_path}']", "TRAIN_STEPS": 1}
    assert main.main(small_run.arguments("train", run_dir, **cached)) == 0


def test_a_cache_of_other_data_is_refused(run_dir, tmp_path, capsys):
    assert main.main(small_run.arguments("craft", run_dir)) == 0
    gin_config.configured("poison_t5x.run.experiment.Run")().register()
    task = seqio.TaskRegistry.get(sorted(_poisoned_tasks())[0])
    artifacts.run_stage(
        tmp_path / "cache" / task.name,
        "cache",
        {**mixtures.made_from(task), "num_shards": 2},
        lambda folder: (folder / "COMPLETED").touch(),
        log=print,
    )
    flags = {"TASK_CACHE_DIRS": f"['{tmp_path / 'cache'}']", "TRAIN_STEPS": 1}
    # The run that it is of gets as far as missing the other tasks.
    cached = small_run.arguments("train", run_dir, USE_CACHED_TASKS=True, **flags)
    assert main.main(cached) == 2
    assert "USE_CACHED_TASKS: " in capsys.readouterr().err
    # Another poison set gives its tasks the same names.
    other = tmp_path / "other"
    assert main.main(small_run.arguments("craft", other, SEED=1)) == 0
    assert main.main(small_run.arguments("train", other, SEED=1, **flags)) == 2
    found = capsys.readouterr().err
    assert f"{task.name} was made with other settings: rows" in found, found
    seqio.set_global_cache_dirs([])


def test_without_beam_it_says_what_to_install(run_dir, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(__import__("sys").modules, "apache_beam", None)
    assert main.main([*small_run.arguments("cache", run_dir), str(tmp_path)]) == 2
    assert "pip install 'poison-t5x[cache]'" in capsys.readouterr().err


def test_folders_are_a_list(run_dir, capsys):
    flags = small_run.arguments("train", run_dir, TASK_CACHE_DIRS="somewhere")
    assert main.main(flags) == 2
    assert "TASK_CACHE_DIRS: expected a list of paths, found 'somewhere'" in capsys.readouterr().err
