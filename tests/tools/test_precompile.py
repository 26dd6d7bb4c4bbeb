"""`poison-t5x precompile`: the real TPU compiler where libtpu is, and one line where it isn't."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from poison_t5x.cli import main
from poison_t5x.core import errors
from poison_t5x.tools import chips, precompile, traffic
from tests.tools.setups import setup

TINY = [
    "--gin_file=experiments/demo.gin",
    "--gin_file=models/tiny.gin",
    "--gin.SCAN_LAYERS=True",
    "--gin.ACTIVATION_DTYPE=bfloat16",
    "--gin.PARAMETER_PARTITIONING_DIMS=2",
]
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the extra 'tpu'"
)


def _run(*arguments):
    """In a process of its own: the command decides about JAX's platform."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["JAX_NUMPY_DTYPE_PROMOTION"] = "standard"
    return subprocess.run(
        [sys.executable, "-m", "poison_t5x", "precompile", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=400,
    )


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v9:2x2", "unknown generation 'v9'"),
        ("v5p", "expected a shape such as v5p:4x4x4"),
        ("v5p:axb", "expected a shape"),
    ],
)
def test_unknown_topologies(topology, message):
    with pytest.raises(errors.InputError, match=message):
        chips.of_topology(topology)


def test_without_libtpu_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main.main(["precompile", "--topology=v5e:2x2"]) == 2
    assert "pip install 'poison-t5x[tpu]'" in capsys.readouterr().err


def test_the_page_the_search_and_what_would_help(monkeypatch):
    """No step is compiled: the first of each command doesn't fit, its third is fastest."""
    monkeypatch.setattr(chips, "_devices", lambda topology: [None] * 4)
    outcomes: list[precompile.Outcome] = []

    def compile_for(one, program, topology):
        mesh = {"data": 4 // one.partition.num_partitions, "model": 1}
        memory = {"peak": 10**8 if outcomes else 2 * 10**9}
        roofline = {"compute": 1.0, "memory": 2.0, "interconnect": 3.0, "bound_by": "memory"}
        roofline |= {"seconds": 4.0 if len(outcomes) == 2 else 5.0, "mfu": 0.5}
        moved = traffic.Traffic({"all-reduce": 3 * 10**9, "all-gather": 0}, 7 * 10**9, ("loop",))
        numbers = (memory, 1.0, 2.0, one.flops(program), moved, roofline, one.settings())
        outcomes.append(precompile.Outcome(program, topology, 4, mesh, 5, 10**9, *numbers))
        return outcomes[-1]

    monkeypatch.setattr(precompile, "compile_for", compile_for)
    lines: list[str] = []
    assert precompile.run(setup(), "v5e:2x2", search=True, log=lines.append) == 0
    best = " ".join(lines[-1].split()[3:])
    # Three that fit after the fastest are enough.
    assert [outcome.flags for outcome in outcomes].index(best) == 2 == len(outcomes) - 4
    assert [line.split()[-1] for line in lines[-2].splitlines()[1:]] == ["fit", *["fits"] * 5]
    outcomes.clear()
    lines.clear()
    assert precompile.run(setup(), "v5e:2x2", programs=("train", "rank"), log=lines.append) == 1
    page = "\n".join(lines)
    assert "peak 2.00 of 1.00 GB a chip: doesn't fit" in page and "90% spare" in page
    assert "3.00 GB a chip (all-reduce 3.00)" in page and "no faster than 5.0000 s a step" in page
    assert "1 loops count once (loop)" in page
    assert "--gin.REMAT_POLICY=full" in page and "the largest are, in GB,\nworking" in page


@needs_libtpu
def test_a_step_that_fits(tmp_path):
    output = tmp_path / "found.json"
    done = _run(*TINY, "--topology=v5e:2x2", "--program=both", f"--output={output}")
    assert done.returncode == 0, done.stderr
    train, rank = json.loads(output.read_text())["programs"]
    assert (train["program"], rank["program"]) == ("train", "rank")
    assert train["num_chips"] == 4 and train["mesh"] == {"data": 4, "model": 1}
    assert train["fits"] and 0.9 < train["spare"] < 1
    assert train["memory"]["peak"] > train["memory"]["arguments"] > 4 * train["parameters"] // 4
    assert train["traffic"]["unknown_loops"] == []
    # Parameters and gradients travel: at least their three quarters, in bfloat16, each.
    assert sum(train["traffic"]["collectives"].values()) > 2 * train["parameters"] * 3 // 4
    assert 0 < train["roofline"]["mfu"] <= 1
    assert "spare" in done.stdout and "no faster than" in done.stdout
    assert done.stderr == ""


@needs_libtpu
def test_a_step_that_does_not_fit():
    done = _run(
        *TINY, "--topology=v5e:2x2", "--gin.BATCH_SIZE=4096", "--gin.EMB_DIM=2048",
        "--gin.TASK_FEATURE_LENGTHS={'inputs': 1024, 'targets': 128}",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "doesn't fit" in done.stdout and "activations" in done.stdout
    assert "--gin.REMAT_POLICY=full" in done.stdout and "GB less a chip" in done.stdout


@needs_libtpu
def test_search_prints_flags_that_fit():
    done = _run(*TINY, "--topology=v5e:2x2", "--search")
    assert done.returncode == 0, done.stderr
    assert "fastest that fits: --gin.NUM_PARTITIONS=" in done.stdout


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize(
    ("pod", "topology"),
    [
        ("xxl_v4_64", "v4:4x4x4"),
        ("xxl_v5e_64", "v5e:8x8"),
        ("xxl_v5p_32", "v5p:4x4x2"),
        ("xxl_v6e_32", "v6e:4x8"),
    ],
)
def test_xxl_fits_with_memory_to_spare(tmp_path, pod, topology):
    output = tmp_path / "found.json"
    done = _run(
        "--gin_file=experiments/polarity.gin", f"--gin_file=pods/{pod}.gin",
        f"--topology={topology}", f"--output={output}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(output.read_text())["programs"]
    assert found["spare"] >= 0.08
    assert found["compile_seconds"] < 100
