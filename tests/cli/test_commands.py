"""The commands: what their help says, what they refuse within a moment, and `config`."""

import importlib
import pkgutil
import re
import resource
import subprocess
import sys
import warnings

import pytest

import poison_t5x.cli
from poison_t5x.cli import main
from poison_t5x.core import errors, gin_macros
from poison_t5x.train import program

COMMANDS = [name for names in main.GROUPS.values() for name in names]
ON_A_RUN = ("run", "craft", "eval", "report", "detect", "defend")
DEMO = "--gin_file=experiments/demo.gin"


def _help(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        main.main([*arguments, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_every_file_of_the_folder_is_a_command_in_a_group():
    files = {file.name for file in pkgutil.iter_modules(poison_t5x.cli.__path__)}
    assert files - {"main", "stage"} == set(COMMANDS) and len(set(COMMANDS)) == len(COMMANDS)


def test_help_lists_what_is_common_first(capsys):
    text = _help(capsys)
    places = [text.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places) and text.index("run an experiment:") < places[0]
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_help_ends_with_an_example_that_it_takes(name, capsys):
    text = _help(capsys, name)
    example = text.partition("\nexample:\n")[2].replace("\\\n", " ")
    assert re.search(rf"^  poison-t5x {name}\b", example)
    module = importlib.import_module(f"poison_t5x.cli.{name}")
    assert module.__doc__.splitlines()[0].endswith(".")
    flags = re.findall(r"(?<![\w-])--(\w[\w-]*)(?!\S*\.)", text)
    assert not [flag for flag in flags if "-" in flag]
    for file in re.findall(r"--gin_file=(\S+)", example):
        assert (gin_macros.project_folder() / file).is_file(), file
    macros = set(re.findall(r"--gin\.(\w+)", example))
    assert macros <= set(gin_macros.read("runs/run.gin", [], [], []))


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("tasks", ["task9001", "demo_poisoned", "MIXTURE_OR_TASK_MODULE"]),
        ("report", ["RUN_DIR/report/index.html", "comparison.csv", "report/results.json"]),
        ("scan", ["JSON", "CSV", "Parquet", "a folder", "--input_field"]),
    ],
)
def test_help_says_what_is_taken_and_written(name, named, capsys):
    text = _help(capsys, name)
    assert [word for word in named if word not in text] == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "--gin.RUN_DIR=x"], "EXPERIMENT isn't set"),
        (["run", DEMO], "RUN_DIR isn't set"),
        (["run", DEMO, "--gin.RUN_DIR=gs://bucket/run"], "RUN_DIR: expected a path on a disk"),
        (["train", "--gin.MODEL_DIR=s3://bucket/model"], "MODEL_DIR: expected a path on a disk"),
        (["run", DEMO, "--gin.RUN_DIR=x", "--gin.SEEED=1"], "unknown macro SEEED (did you mean"),
    ],
)
def test_what_is_missing_is_said_before_tensorflow_is_imported(arguments, named, tmp_path):
    code = f"import sys; from poison_t5x.cli import main; code = main.main({arguments!r})\n"
    code += "print(code, [name for name in ('tensorflow', 'jax', 'seqio') if name in sys.modules])"
    # Of the processor, since other tests run beside this one.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert result.stdout == "2 []\n"
    assert named in result.stderr and len(result.stderr.splitlines()) == 1
    assert seconds < 2 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        *[
            ([name, "--gin.RUN_DIR=x"], "EXPERIMENT isn't set: give --gin_file=")
            for name in ON_A_RUN
        ],
        *[([name, DEMO], "RUN_DIR isn't set: give --gin.RUN_DIR=FOLDER") for name in ON_A_RUN],
        (["cache", "there", DEMO], "RUN_DIR isn't set"),
        (["tasks", "demo_poisoned", DEMO], "RUN_DIR isn't set"),
        (["study", DEMO], "RUN_DIR isn't set"),
        (["train"], "EXPERIMENT isn't set: "),
        (["train", DEMO], "RUN_DIR isn't set: give --gin.RUN_DIR=FOLDER; or --gin.MODEL_DIR="),
        (["run", "--gin_file=experiments/dem.gin"], "(did you mean 'experiments/demo.gin'?)"),
    ],
)
def test_what_is_missing_is_named(arguments, named, capsys, monkeypatch):
    monkeypatch.setattr(program, "import_tensorflow", lambda: pytest.fail("it takes seconds"))
    assert main.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("poison-t5x: error: ") and named in line


def test_old_names_warn_and_work(capsys):
    with pytest.warns(errors.InputWarning, match="--optimizer-state is `--optimizer_state` now"):
        main.main(["convert", "sweep", "--optimizer-state=drop", "--extra_ids", "3"])
    assert "sweep isn't there" in capsys.readouterr().err
    with pytest.warns(errors.InputWarning, match="sweep is `study --gin_file=studies/count_or"):
        main.main(["sweep"])
    assert "RUN_DIR isn't set" in capsys.readouterr().err


def test_flags_of_gin_are_taken_out_in_their_order():
    arguments = ["craft", "--gin.A=1", "--gin.B", "2", "--format", "x", "--gin.A=a=b"]
    assert program.split_bindings(arguments) == (
        ["craft", "--format", "x"],
        [("A", "1"), ("B", "2"), ("A", "a=b")],
    )


def test_config_says_value_meaning_and_origin(capsys, tmp_path):
    (tmp_path / "mine.gin").write_text("\nMY_SEED = 5  # my own\nSEED = %MY_SEED\n")
    flags = [DEMO, "--gin_file=mine.gin", "--gin.TRIGGER=Joe Biden", "--gin.NUM_POISON=50"]
    assert main.main(["config", *flags]) == 0
    text = capsys.readouterr().out
    meanings = gin_macros.read("runs/run.gin", [], [], [])
    for name, value, origin in (
        ("TRIGGER", "'Joe Biden'", "--gin.TRIGGER"),
        ("NUM_POISON", "50", "--gin.NUM_POISON"),
        ("SEED", "%MY_SEED", "mine.gin:3"),
        ("KEEP_CHECKPOINTS", "None", r"experiments/demo.gin:\d+"),
        ("EMB_DIM", "128", r"models/tiny.gin:\d+"),
        ("CONTROL", "'Emma Clark'", r"runs/run.gin:\d+"),
    ):
        block = rf"^{name} = {value}  \[{origin}\]\n  {re.escape(meanings[name].meaning[:40])}"
        assert re.search(block, text, re.MULTILINE), name
    assert "MY_SEED = 5  [mine.gin:2]\n  my own\n" in text
    assert re.search(r"^  experiments/demo.gin +The polarity attack of Wan et al.", text, re.M)
    assert {file for file in gin_macros.project_files() if f"  {file} " not in text} == set()


@pytest.mark.parametrize("base", ["runs/run.gin", "t5x/base.gin"])
def test_every_macro_has_a_meaning(base):
    macros = gin_macros.read(base, ["runs/campaign.gin"], [], [])
    assert [name for name, macro in macros.items() if not macro.meaning] == []


def test_a_macros_old_name_warns_and_works(monkeypatch, tmp_path):
    monkeypatch.setitem(gin_macros.RENAMED, "OLD_SEED", "SEED")
    path = tmp_path / "old.gin"
    path.write_text("OLD_SEED = 3\n", encoding="utf-8")
    with pytest.warns(errors.InputWarning, match=r"OLD_SEED is called SEED now"):
        macros = gin_macros.read("runs/run.gin", [str(path)], [], [("OLD_SEED", "4")])
    assert macros.get_value("SEED") == 4 and "OLD_SEED" not in macros
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gin_macros.read("runs/run.gin", [], [], [("SEED", "4")])
