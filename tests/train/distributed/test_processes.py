"""Two processes of four devices are one of eight: the same run, killed, stopped, gone on with."""

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator

import pytest

from poison_t5x.core import reading
from poison_t5x.train import distributed
from tests import small_run
from tests.train.distributed import two

# What of this every run of the tests has to show, `test_parts` and `test_cluster` do.
pytestmark = pytest.mark.slow
TIMEOUT = two.TIMEOUT
# Two shards, as two processes read: one process of eight devices sees the same batches. The layers
# are scanned and everything is sharded over both axes, as on a pod.
MACROS = {
    "DATA_SHARDS": 2,
    "NUM_PARTITIONS": 2,
    "PARAMETER_PARTITIONING_DIMS": 2,
    "SCAN_LAYERS": True,
    "NUM_ENCODER_LAYERS": 2,
    "LOG_PERIOD": 1,
    "EVAL_PERIOD": 6,
}
# A peer's end is noticed by its missing sign of life, at the latest.
NOTICED = 60


# How it is computed may change under way; and a later start finds its programs compiled.
OTHERWISE = {"NUM_PARTITIONS": 1, "REMAT_POLICY": "full"}
SAY_WHAT_IS_CACHED = {"JAX_DEBUG_LOG_MODULES": "jax._src.compiler"}


def _start(run_dir, number=None, port=None, variables=None, **macros) -> subprocess.Popen:
    """One process of two, or, without a number, one of eight devices."""
    cache = {"COMPILATION_CACHE_DIR": run_dir.parent / "cache"}
    arguments = small_run.arguments("run", run_dir, **{**MACROS, **cache, **macros})
    if number is None:
        return small_run.start(arguments, run_dir.with_suffix(".log"), 8)
    cluster = [
        f"--coordinator_address=localhost:{port}",
        "--num_processes=2",
        f"--process_id={number}",
    ]
    log = run_dir.with_suffix(f".{number}.log")
    return small_run.start([*arguments, *cluster], log, 4, **(variables or {}))


@contextlib.contextmanager
def _two(run_dir, variables=None, **macros) -> Iterator[list[subprocess.Popen]]:
    """Two processes, which don't outlive a failure of the test."""
    port = two.free_port()
    processes = [_start(run_dir, number, port, variables, **macros) for number in (0, 1)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _log(run_dir, number) -> str:
    return run_dir.with_suffix(f".{number}.log").read_text(errors="replace")


def _losses(run_dir, model="clean") -> dict[int, dict[str, float]]:
    path = run_dir / "models" / model / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    made: dict[int, dict[str, float]] = {}
    for row in rows:
        made.setdefault(row["step"], {}).update(row)
    return made


def _wait_for_step(run_dir, step, processes):
    deadline = time.monotonic() + TIMEOUT
    while max(_losses(run_dir), default=0) < step:
        for number, process in enumerate(processes):
            assert process.poll() is None, _log(run_dir, number)
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The run of one process of eight devices."""
    run_dir = tmp_path_factory.mktemp("one") / "run"
    assert _start(run_dir).wait(TIMEOUT) == 0, run_dir.with_suffix(".log").read_text()
    return run_dir


@pytest.fixture(scope="module")
def survivor(tmp_path_factory):
    """Two processes, each killed in its turn, and gone on with."""
    run_dir = tmp_path_factory.mktemp("two") / "run"
    ends = {}
    for victim, step, macros in ((1, 5, {}), (0, 7, OTHERWISE)):
        with _two(run_dir, **macros) as processes:
            _wait_for_step(run_dir, step, processes)
            processes[victim].kill()
            begin = time.monotonic()
            codes = [process.wait(TIMEOUT) for process in processes]
            ends[victim] = codes, time.monotonic() - begin, _log(run_dir, 1 - victim)
    with _two(run_dir, SAY_WHAT_IS_CACHED) as processes:
        codes = [process.wait(TIMEOUT) for process in processes]
    assert codes == [0, 0], _log(run_dir, 0) + _log(run_dir, 1)
    return run_dir, ends


def test_later_starts_find_their_programs_compiled(survivor):
    log = _log(survivor[0], 0)
    assert "Persistent compilation cache hit for 'jit_step'" in log
    # What they hadn't come to before isn't there, and is kept now.
    assert "CACHE MISS for 'jit_rank_labels'" in log


@pytest.mark.parametrize("victim", [0, 1])
def test_the_other_stops_when_one_is_killed(survivor, victim):
    codes, seconds, log = survivor[1][victim]
    assert codes[1 - victim] == distributed.EXIT_CODE
    assert seconds < NOTICED
    # The log holds all starts of the process so far.
    *_, line = [line for line in log.splitlines() if "is gone or can't be reached" in line]
    assert line.startswith(f"poison-t5x: process {1 - victim} of 2 stops: ")
    assert re.search(r"training was at step \d+, and the last checkpoint is of step [48]; ", line)
    assert line.endswith("the same command on all processes goes on")


def test_losses_are_those_of_one_process(survivor, reference):
    run_dir, _ = survivor
    for model in ("clean", "poisoned"):
        expected, made = _losses(reference, model), _losses(run_dir, model)
        assert list(made) == list(expected) == list(range(1, 13))
        for step, row in expected.items():
            for name in ("loss", "gradient_norm", "eval_loss"):
                if name in row:
                    assert made[step][name] == pytest.approx(row[name], abs=1e-5), (step, name)
    # Not merely because losses are alike: the two models' differ.
    clean, poisoned = (_losses(reference, model) for model in ("clean", "poisoned"))
    assert abs(clean[12]["loss"] - poisoned[12]["loss"]) > 1e-3


def test_predictions_and_report_are_those_of_one_process(survivor, reference):
    run_dir, _ = survivor
    first, second = (
        reading.read_json(folder / "report" / "results.json") for folder in (reference, run_dir)
    )
    assert first["tasks"] == second["tasks"]
    assert first["poison"] == second["poison"]
    assert (run_dir / "report" / "index.html").is_file()
    # One process wrote: nobody's half-written folders are left.
    assert not list(run_dir.rglob("*.partial"))
    assert f"see {run_dir}" in _log(run_dir, 0) and f"see {run_dir}" not in _log(run_dir, 1)
