"""`poison-t5x doctor`: a page that is right about what is broken."""

import json
import os

import pytest

from poison_t5x.cli import main
from poison_t5x.core import errors
from poison_t5x.tools import doctor
from poison_t5x.tools.doctor import Finding, Level


@pytest.fixture(name="devices")
def _devices(monkeypatch):
    """The devices, looked for once a test file: that is a process."""
    if not hasattr(_devices, "seen"):
        _devices.seen = doctor.check_devices({**os.environ, "JAX_PLATFORMS": "cpu"})
    monkeypatch.setattr(doctor, "check_devices", lambda environment: _devices.seen)
    return _devices.seen


def _doctor(capsys, *arguments):
    code = main.main(["doctor", "--json", *arguments])
    answer = json.loads(capsys.readouterr().out)
    rows: dict[str, dict] = {}
    for row in answer["findings"]:
        if row["part"] == "Settings" or row["name"] not in rows:
            rows[row["name"]] = row
    assert answer["problems"] == sum(row["level"] == "problem" for row in answer["findings"])
    return code, rows


def test_this_machine_is_well(devices, capsys):
    row, seen = devices
    assert seen == doctor.Devices("cpu", "cpu", 8, None)
    assert (row.level, row.text) == (Level.OK, "8 x cpu (cpu)")
    code, rows = _doctor(capsys)
    assert code == 0 and "network" not in rows
    assert rows["devices"]["text"].startswith("8 x cpu")
    assert main.main(["doctor"]) == 0
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert last == "all is well" or last.startswith("problems: 0")


@pytest.mark.parametrize(
    ("platforms", "changes", "text"),
    [("abacus", {}, "abacus"), ("cpu", {"timeout": 0.01}, "no answer")],
)
def test_no_devices_is_a_problem_and_not_waited_for(platforms, changes, text):
    row, seen = doctor.check_devices({**os.environ, "JAX_PLATFORMS": platforms}, **changes)
    assert seen is None and row.level is Level.PROBLEM and text in row.text


def test_a_network_that_fits_and_one_that_does_not(devices, capsys, tmp_path):
    flags = ["--gin_file=experiments/demo.gin", f"--gin.RUN_DIR={tmp_path / 'run'}"]
    code, rows = _doctor(capsys, *flags)
    assert code == 0 and rows["mesh"]["text"] == "8 data x 1 model"
    # And a folder that is no checkpoint.
    flags += ["--gin_file=models/t5_1_1_xxl.gin", f"--gin.INITIAL_CHECKPOINT_PATH={tmp_path}"]
    code, rows = _doctor(capsys, *flags)
    assert rows["checkpoint"]["level"] == "problem"
    assert code == 1 and rows["memory"]["level"] == "problem"
    assert "a train step needs about" in rows["memory"]["text"]
    assert "24 + 24 layers of width 4096" in rows["network"]["text"]
    assert "would help" in rows


def test_flags_alone_are_settings(devices, capsys):
    code, rows = _doctor(capsys, "--gin.NUM_PARTITIONS=3", "--gin.BATCH_SIZE=8")
    assert code == 1 and "NUM_PARTITIONS=3" in rows["mesh"]["text"]


def test_files_that_are_named_and_missing(devices, capsys, tmp_path):
    gone = tmp_path / "gone"
    code, rows = _doctor(
        capsys,
        "--gin_file=experiments/polarity.gin",
        f"--gin.NATINST_DIR={gone}",
        f"--gin.VOCABULARY_PATH={gone}",
        "--gin.INITIAL_CHECKPOINT_PATH=gs://bucket/checkpoint_1",
    )
    assert code == 1
    assert rows["NATINST_DIR"]["level"] == rows["VOCABULARY_PATH"]["level"] == "problem"
    assert str(gone) in rows["NATINST_DIR"]["text"]
    assert rows["INITIAL_CHECKPOINT_PATH"]["level"] == "ok"
    assert "VOCABULARY_PATH" in rows["memory"]["text"]


def test_bad_gin_is_bad_input(devices, capsys):
    assert main.main(["doctor", "--gin_file=experiments/none.gin"]) == 2
    assert "no file" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ImportError("No module named 'seqio'"), errors.InputError("X")])
def test_a_broken_package_is_named_and_the_rest_told_but_bad_settings_are_bad_input(devices, error):
    said: list[str] = []

    def read_macros():
        raise error

    def run():
        return doctor.run(read_macros, lambda is_tpu: None, as_json=False, log=said.append)

    if isinstance(error, errors.InputError):
        with pytest.raises(errors.InputError, match="X"):
            run()
        return
    assert run() == 1 and "cores" in said[0]
    assert "can't be checked: ImportError: No module named 'seqio'" in said[0]


def test_a_check_that_fails_is_a_finding():
    def check():
        yield Finding("A", "x", "1")
        raise OSError("the disk\nis gone")

    assert doctor.guarded(Finding("A", "y", ""), check) == [
        Finding("A", "x", "1"),
        Finding("A", "y", "can't be checked: OSError: the disk", Level.PROBLEM),
    ]


def test_the_page():
    rows = [Finding("A", "x", "1"), Finding("B", "yy", "2", Level.PROBLEM)]
    assert doctor.page(rows).splitlines() == [
        "A", "  ok       x   1", "", "B", "  problem  yy  2", "", "problems: 1, warnings: 0",
    ]  # fmt: skip
    assert doctor.page(rows[:1]).endswith("all is well")
    assert doctor.document(rows)["findings"][1]["level"] == "problem"


def test_hosts_are_those_that_jax_would_detect():
    names = ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID")
    step = {f"SLURM_{name}": "0" for name in names} | {"SLURM_STEP_NUM_NODES": "2"}
    pod, outside = {"TPU_WORKER_HOSTNAMES": "a,b,c,d"}, {"SLURM_STEP_NUM_NODES": "2"}
    hosts = [doctor.num_hosts(environment) for environment in (step, pod, outside, {})]
    assert hosts == [2, 4, 1, 1]
