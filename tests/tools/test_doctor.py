"""`poison-t5x doctor`: a page that is right about what is broken."""

import json

import pytest

from poison_t5x.cli import main
from poison_t5x.core import errors
from poison_t5x.tools import doctor, machine
from poison_t5x.tools.machine import Finding, Level, guarded


def _doctor(capsys, *arguments):
    code = main.main(["doctor", "--json", *arguments])
    answer = json.loads(capsys.readouterr().out)
    rows: dict[str, dict] = {}
    for row in answer["findings"]:
        if row["part"] == "Settings" or row["name"] not in rows:
            rows[row["name"]] = row
    assert answer["problems"] == sum(row["level"] == "problem" for row in answer["findings"])
    return code, rows


def test_this_machine_is_well(capsys):
    code, rows = _doctor(capsys)
    assert code == 0
    assert rows["devices"]["text"].startswith("8 x cpu")
    assert "network" not in rows
    assert main.main(["doctor"]) == 0
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert last == "all is well" or last.startswith("problems: 0")


def test_a_network_that_fits_and_one_that_does_not(capsys, tmp_path):
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


def test_flags_alone_are_settings(capsys):
    code, rows = _doctor(capsys, "--gin.NUM_PARTITIONS=3", "--gin.BATCH_SIZE=8")
    assert code == 1 and "NUM_PARTITIONS=3" in rows["mesh"]["text"]


def test_files_that_are_named_and_missing(capsys, tmp_path):
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


def test_bad_gin_is_bad_input(capsys):
    assert main.main(["doctor", "--gin_file=experiments/none.gin"]) == 2
    assert "no file" in capsys.readouterr().err


def _run(monkeypatch, read_macros, make_setup=None):
    monkeypatch.setattr(
        machine, "check_devices", lambda environment: (Finding("Machine", "devices", "0"), None)
    )
    said: list[str] = []
    code = doctor.run(read_macros, make_setup, as_json=False, log=said.append)
    return code, "\n".join(said)


def test_a_broken_package_is_named_and_the_rest_told(monkeypatch):
    def read_macros():
        raise ImportError("No module named 'seqio'")

    code, text = _run(monkeypatch, read_macros)
    assert code == 1 and "can't be checked: ImportError: No module named 'seqio'" in text
    assert "cores" in text


def test_bad_settings_are_bad_input(monkeypatch):
    def read_macros():
        raise errors.InputError("BATCH_SIZE: …")

    with pytest.raises(errors.InputError, match="BATCH_SIZE"):
        _run(monkeypatch, read_macros)


def test_a_check_that_fails_is_a_finding():
    def check():
        yield Finding("A", "x", "1")
        raise OSError("the disk\nis gone")

    assert guarded("A", "y", check) == [
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
