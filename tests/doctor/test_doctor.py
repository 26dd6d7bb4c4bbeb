"""`poison-t5x doctor`: a page that is right about what is broken."""

import importlib.metadata
import json

import pytest

from poison_t5x import cli
from poison_t5x.doctor import installed, machine, settings
from poison_t5x.doctor.findings import Finding, Level, page


def _doctor(capsys, *arguments):
    code = cli.main(["doctor", "--json", *arguments])
    rows = json.loads(capsys.readouterr().out)
    return code, {row["name"]: row for row in rows}


def test_this_machine_is_well(capsys):
    code, rows = _doctor(capsys)
    assert code == 0
    assert rows["jax"]["level"] == "ok" and "tested" in rows["jax"]["text"]
    assert rows["devices"]["text"].startswith("8 x cpu")
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("warnings: 0")


def test_a_network_that_fits_and_one_that_does_not(capsys, tmp_path):
    flags = ["--gin_file=experiments/demo.gin", f"--gin.RUN_DIR={tmp_path / 'run'}"]
    code, rows = _doctor(capsys, *flags)
    assert code == 0 and rows["mesh"]["text"] == "8 data x 1 model"
    code, rows = _doctor(capsys, *flags, "--gin_file=models/t5_1_1_xxl.gin")
    assert code == 1 and rows["memory"]["level"] == "problem"
    assert "a train step needs about" in rows["memory"]["text"]
    assert "would help" in rows and rows["disk"]["level"] == "warning"


def test_files_that_are_named_and_missing(capsys, tmp_path):
    code, rows = _doctor(
        capsys,
        "--gin_file=experiments/polarity.gin",
        f"--gin.NATINST_DIR={tmp_path / 'gone'}",
        "--gin.INITIAL_CHECKPOINT_PATH=gs://bucket/checkpoint_1",
    )
    assert code == 1
    assert rows["NATINST_DIR"]["text"] == f"{tmp_path / 'gone'} isn't there"
    assert rows["INITIAL_CHECKPOINT_PATH"]["level"] == "ok"


def test_a_mesh_that_does_not_divide(capsys):
    code, rows = _doctor(capsys, "--gin_file=experiments/demo.gin", "--gin.NUM_PARTITIONS=3")
    assert code == 1 and "set --gin.NUM_PARTITIONS=1" in rows["mesh"]["text"]
    code, rows = _doctor(capsys, "--gin_file=experiments/demo.gin", "--gin.BATCH_SIZE=12")
    assert code == 1 and "use a multiple of 8" in rows["mesh"]["text"]


def test_bad_gin_is_bad_input(capsys):
    assert cli.main(["doctor", "--gin_file=experiments/none.gin"]) == 2
    assert "no file" in capsys.readouterr().err


def _requirements(monkeypatch, versions, *texts):
    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "requires", lambda name: list(texts))
    monkeypatch.setattr(importlib.metadata, "version", version)
    return {finding.name: finding for finding in installed.check()}


def test_packages_that_are_missing_or_untested(monkeypatch):
    found = _requirements(
        monkeypatch,
        {"jax": "0.9.1", "flax": "0.12.9"},
        *("jax>=0.10,<0.11", "flax>=0.12.8,<0.13", "optax>=0.2", 'libtpu>=0.0.42; extra == "tpu"'),
    )
    assert (found["jax"].level, found["flax"].level) == (Level.WARNING, Level.OK)
    assert "0.9.1, outside of the tested" in found["jax"].text
    assert (
        found["optax"].level is Level.PROBLEM and "pip install 'optax>=0.2'" in found["optax"].text
    )
    assert found["[tpu]"].text.endswith("pip install 'poison-t5x[tpu]'")


def test_an_accelerator_that_jax_does_not_see(monkeypatch):
    monkeypatch.setattr(
        machine.glob, "glob", lambda pattern: ["/dev/nvidia0"] if "nvidia" in pattern else []
    )
    rows = {finding.name: finding for finding in machine.devices()[0]}
    assert rows["NVIDIA GPUs"].level is Level.WARNING
    assert "pip install 'poison-t5x[gpu]'" in rows["NVIDIA GPUs"].text


def test_a_cluster_is_named():
    rows = {finding.name: finding for finding in machine.check({"SLURM_JOB_ID": "7", "JAX_X": "1"})}
    assert "Slurm" in rows["cluster"].text and rows["JAX_X"].text == "1"
    assert machine.check({})[-1].text == "none"


def test_memory_has_the_control_groups_limit(monkeypatch):
    whole = machine.memory_bytes()
    monkeypatch.setattr(machine.pathlib.Path, "read_text", lambda self, encoding: "1048576\n")
    assert machine.memory_bytes() == min(whole, 2**20)


def test_the_page():
    lines = page([Finding("A", "x", Level.OK, "1"), Finding("B", "yy", Level.PROBLEM, "2")])
    assert lines.splitlines() == [
        "A", "  ok       x   1", "", "B", "  problem  yy  2", "", "problems: 1, warnings: 0",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["gone/further", "."])
def test_free_space_of_a_folder_to_come(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert settings._existing(name).exists()
