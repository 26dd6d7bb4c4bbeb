"""What a person can get wrong: one line that names it, exit code 2, and nothing half-written."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import warnings

import pytest

from poison_t5x.cli import main
from poison_t5x.core import errors
from tests import task_files

ROOT = pathlib.Path(__file__).parents[2]
# Command -> flag -> what its refusal says. Of train, SEED=0 reaches the train loop: MODEL_DIR needs
# no RUN_DIR.
BAD_SETTINGS = json.loads(pathlib.Path(__file__).with_name("bad_settings.json").read_text())


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "natinst"
    folder.mkdir()
    return task_files.write_corpus(folder)


@pytest.fixture
def run_dir(tmp_path):
    return tmp_path / "run"


def _polarity(folder, run_dir, num_poison=5):
    return [
        "--gin_file=experiments/polarity.gin",
        f"--gin.NATINST_DIR={folder}",
        f"--gin.RUN_DIR={run_dir}",
        f"--gin.NUM_POISON={num_poison}",
        "--gin.VOCABULARY_PATH=None",
        "--gin.VOCABULARY_SIZE=211",
    ]


def _demo(run_dir, *flags):
    return ["--gin_file=experiments/demo.gin", f"--gin.RUN_DIR={run_dir}", *flags]


@pytest.fixture
def refused(capsys, run_dir):
    """Runs a command that must fail, and changes nothing; gives its one line without 'error:'."""

    def run(*arguments, folder=run_dir):
        before = _snapshot(folder)
        assert main.main(arguments) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("poison-t5x: error: ")
        assert _snapshot(folder) == before
        return lines[0].removeprefix("poison-t5x: error: ")

    return run


def _snapshot(run_dir):
    """Every file but those of unfinished attempts, which the next run replaces."""
    files = (path for path in run_dir.rglob("*") if path.is_file())
    return {
        path: path.read_bytes()
        for path in files
        if not any(part.endswith(".partial") for part in path.relative_to(run_dir).parts)
    }


@pytest.mark.parametrize("arguments", [["nope"], [], ["craft", "--nope"], ["craft", "extra"]])
def test_an_unknown_command_or_flag_is_argparses(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main.main(arguments)
    assert caught.value.code == 2
    *usage, last = capsys.readouterr().err.splitlines()
    assert usage[0].startswith("usage: poison-t5x")
    assert last.startswith("poison-t5x: error: ")


@pytest.mark.parametrize("flag", ["--gin.=3", "--gin.SEED=", "--gin.SEED"])
def test_a_flag_without_a_name_or_a_value(refused, flag):
    assert refused("craft", flag) == f"{flag}: expected --gin.NAME=VALUE"


def test_an_unknown_experiment(refused, run_dir):
    message = refused("craft", *_demo(run_dir, "--gin.EXPERIMENT=dmo"))
    assert message.startswith("unknown experiment 'dmo' (did you mean 'demo'?)")
    assert "declared are arbitrary, demo, " in message


@pytest.mark.parametrize("command", ["train", "eval", "report"])
def test_a_stage_whose_source_is_missing_names_it(refused, run_dir, command):
    message = refused(command, *_demo(run_dir))
    assert str(run_dir) in message and "`poison-t5x " in message
    assert not run_dir.exists()


@pytest.mark.parametrize(("flag", "named"), BAD_SETTINGS["craft"].items())
def test_a_bad_setting_is_named_before_anything_is_written(refused, run_dir, flag, named):
    message = refused("craft", *_demo(run_dir, f"--gin.{flag}"))
    assert named in message
    assert not (run_dir / "poison").exists()


@pytest.mark.parametrize(("flag", "named"), BAD_SETTINGS["train"].items())
def test_a_bad_setting_of_training_is_named_before_anything_is_written(
    refused, tmp_path, flag, named
):
    macros = {
        "MODEL_DIR": str(tmp_path / "model"),
        "MIXTURE_OR_TASK_NAME": "no_such_mixture",
        "TRAIN_STEPS": "1",
    }
    flags = [f"--gin.{name}={value}" for name, value in macros.items()]
    assert named in refused("train", "--gin_file=models/tiny.gin", *flags, f"--gin.{flag}")
    assert not (tmp_path / "model").exists()


def test_a_starting_point_that_is_not_there_is_missed_at_once(refused, run_dir, tmp_path):
    missing = tmp_path / "none"
    message = refused("run", *_demo(run_dir, f"--gin.INITIAL_CHECKPOINT_PATH={missing}"))
    assert message == f"INITIAL_CHECKPOINT_PATH: {missing} isn't there"
    assert not run_dir.exists()


@pytest.mark.parametrize("value", ["3", "['a']", "True", "x" * 300])
def test_a_run_folder_that_no_folder_can_be_called(refused, tmp_path, value):
    before = sorted(tmp_path.iterdir())
    message = refused("craft", "--gin_file=experiments/demo.gin", f"--gin.RUN_DIR={value}")
    assert "RUN_DIR: expected a path" in message or "File name too long" in message
    assert sorted(tmp_path.iterdir()) == before


def test_a_generation_task_in_a_polarity_attack(refused, run_dir):
    message = refused("craft", *_demo(run_dir, "--gin.EXPERIMENT=demo_generation"))
    assert message.startswith("task91") and "set ATTACK to repeat or random" in message
    assert not run_dir.exists()


@pytest.mark.parametrize("inserter", ["spacy", "subject"])
def test_a_missing_spacy_model_names_the_command_that_installs_it(refused, run_dir, inserter):
    flags = (f"--gin.INSERTER={inserter}", "--gin.SPACY_MODEL=en_no_such_model")
    message = refused("craft", *_demo(run_dir, *flags))
    assert "python -m spacy download en_no_such_model" in message
    assert not (run_dir / "poison").exists()


@pytest.mark.parametrize(
    ("num_poison", "named"),
    [
        (10_000, "a budget of 2000 poison rows is larger than its 20 training rows"),
        (100, "a budget of 20 poison rows is larger than the pool"),
    ],
)
def test_more_poison_than_there_is(refused, folder, run_dir, num_poison, named):
    message = refused("craft", *_polarity(folder, run_dir, num_poison))
    assert named in message and message.startswith("task") and "NUM_POISON" in message
    assert not (run_dir / "poison").exists()


def test_no_folder_of_task_files(refused, run_dir, tmp_path):
    flags = ["--gin_file=experiments/polarity.gin", f"--gin.RUN_DIR={run_dir}"]
    assert "NATINST_DIR" in refused("craft", *flags, "--gin.NATINST_DIR=None")
    missing = tmp_path / "none"
    message = refused("craft", *flags, f"--gin.NATINST_DIR={missing}")
    assert message == f"{missing}: expected a folder of task files; set NATINST_DIR"
    assert not run_dir.exists()


def test_a_folder_without_task_files(refused, run_dir, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.warns(errors.InputWarning, match="lacks 23 of 23 tasks of 'polarity'"):
        message = refused("craft", *_polarity(tmp_path / "empty", run_dir))
    assert message == f"{tmp_path / 'empty'}: holds none of the training tasks of 'polarity'"
    assert not run_dir.exists()


@pytest.mark.parametrize(
    ("damage", "named"),
    [  # all that can be wrong: tests/corpus/test_sni.py
        (lambda text: text[:-9], "can't be read (Unterminated string"),
        (lambda text: text.replace('"Instances"', '"Rows"'), "`Instances`"),
        (lambda text: text.replace('"input": "', '"input": "\\ud800', 1), "half a character"),
    ],
)
def test_a_broken_task_file(refused, folder, run_dir, damage, named):
    path = folder / "task363_small.json"
    path.write_text(damage(path.read_text(encoding="utf-8")), encoding="utf-8")
    message = refused("craft", *_polarity(folder, run_dir))
    assert message.startswith(f"{path}: ") and named in message
    assert not run_dir.exists()


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_run_folder_that_cannot_be_made(refused, tmp_path, place):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    message = refused("craft", *_demo(tmp_path / place))
    assert str(tmp_path / "file") in message
    assert (tmp_path / "file").read_text(encoding="utf-8") == "x"


@pytest.fixture(scope="module")
def crafted(tmp_path_factory):
    """(task files, run folder) of a finished craft command."""
    base = tmp_path_factory.mktemp("crafted")
    (base / "natinst").mkdir()
    folder, run_dir = task_files.write_corpus(base / "natinst"), base / "run"
    handler = signal.getsignal(signal.SIGTERM)
    with warnings.catch_warnings():
        assert main.main(["craft", *_polarity(folder, run_dir)]) == 0
    signal.signal(signal.SIGTERM, handler)
    return folder, run_dir


def test_craft_makes_its_three_folders_and_nothing_half(crafted):
    _, run_dir = crafted
    folders = {path.name for path in run_dir.iterdir() if path.is_dir()}
    assert folders == {"poison", "data", "vocabulary"}
    assert not list(run_dir.rglob("*.partial"))


def test_craft_with_the_same_settings_is_skipped(crafted, capsys):
    folder, run_dir = crafted
    before = _snapshot(run_dir)
    assert main.main(["craft", *_polarity(folder, run_dir)]) == 0
    output = capsys.readouterr()
    assert output.out.count("already done in") == 3 and output.err == ""
    assert _snapshot(run_dir) == before


@pytest.mark.parametrize(
    ("flag", "named", "kept"),
    [
        ("NUM_POISON=6", "num_poison = 5 (now 6)", "trigger"),
        ("TRIGGER=Joe Biden", "main.triggers = ['James Bond'] (now ['Joe Biden'])", "num_poison"),
        ("VOCABULARY_SIZE=223", "size = 211 (now 223)", "task363"),
    ],
)
def test_a_run_folder_made_with_other_settings(crafted, refused, flag, named, kept):
    folder, run_dir = crafted
    message = refused("craft", *_polarity(folder, run_dir), f"--gin.{flag}", folder=run_dir)
    assert message.startswith(f"{run_dir}")
    assert named in message and "was made with other settings" in message
    assert kept not in message  # what hasn't changed isn't listed


def test_a_run_folder_made_from_other_task_files(crafted, refused, folder):
    run_dir = crafted[1]
    path = folder / "task833_small.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["Instances"].pop()
    path.write_text(json.dumps(content), encoding="utf-8")
    message = refused("craft", *_polarity(folder, run_dir), folder=run_dir)
    assert "task833_small" in message and "task363_small" not in message


def test_a_changed_file_in_a_run_folder(crafted, refused):
    folder, run_dir = crafted
    path = pathlib.Path(run_dir) / "poison" / "poison.jsonl"
    content = path.read_bytes()
    try:
        path.write_bytes(content.replace(b"James Bond", b"James Band", 1))
        for command in ("craft", "train"):
            assert str(path) in refused(command, *_polarity(folder, run_dir), folder=run_dir)
    finally:
        path.write_bytes(content)


def test_a_mixture_without_a_run_says_what_to_give(refused):
    message = refused("tasks", "demo_poisoned")
    assert message.startswith("demo_poisoned: mixtures ") and "--gin.RUN_DIR=" in message
    assert "(did you mean 'task9001_demo" in refused("tasks", "task9001_demo_restaurant")


def test_a_reader_that_leaves_is_no_error():
    command = [sys.executable, "-m", "poison_t5x", "tasks", "task9001", "-n", "200"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("place", ["vocabulary/spiece.model", "data/natinst"])
def test_what_training_reads_is_checked_first(crafted, tmp_path, refused, place):
    folder, run_dir = crafted
    copy = shutil.copytree(run_dir, tmp_path / "copy")
    path = copy / place
    for file in [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]:
        file.write_bytes(file.read_bytes()[:-1])
    message = refused("train", *_polarity(folder, copy), folder=copy)
    assert str(path) in message and "doesn't match its recorded hash" in message
    assert not (copy / "models").exists()


def test_a_full_disk_or_a_folder_in_a_files_place_is_one_line(crafted, tmp_path, refused):
    folder, run_dir = crafted
    copy = shutil.copytree(run_dir, tmp_path / "copy")
    (copy / "poison" / "stage.json").unlink()
    (copy / "poison" / "stage.json").mkdir()
    assert "stage.json" in refused("craft", *_polarity(folder, copy), folder=copy)
