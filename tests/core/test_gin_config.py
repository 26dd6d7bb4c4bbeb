"""Gin flags: plain strings, what wins, and unknown names that don't pass silently."""

import os

import pytest

from poison_t5x.core import errors, gin_config, gin_macros

RUN = "runs/run.gin"
DEMO = "experiments/demo.gin"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _parse(*bindings, files=(DEMO,), paths=()):
    gin_macros.read(RUN, files, paths, bindings)
    gin_config.parse(RUN, files, paths, bindings)


def _refusal(*bindings, **kwargs):
    with pytest.raises(errors.InputError) as caught:
        _parse(*bindings, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        "1",
        "-1",
        "1e-5",
        "1_000",
        "None",
        "True",
        "'x'",
        '"James Bond"',
        "[1, 'a']",
        "(1, 2)",
        "{'inputs': 32}",
        "%SEED",
    ],
)
def test_what_is_a_gin_value_stays(value):
    assert gin_macros.quoted(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "James Bond",
        "runs/demo",
        "/tmp/a folder/x",
        "gs://bucket/run-1",
        "it's",
        "O'Brien's \"x\"",
        "C:\\new",
        "a=b",
        "x # y",
        "é 🙂",
        "3.5.1",
        "007",
        "10 Cloverfield Lane",
        "1, 2",
        "None of it",
        "'a' or 'b'",
        "(",
        "[1,",
        "{'a'",
        "'open",
        "2024-01-31_run",
        "yes",
        "nan",
        "foo()",
    ],
)
def test_what_is_none_is_a_plain_string(value):
    assert gin_macros.quoted(value) == repr(value)
    _parse(("TRIGGER", value))
    assert gin_config.macro("TRIGGER") == value


def test_flags_win_over_files_and_later_files_over_earlier(tmp_path):
    (tmp_path / "a.gin").write_text("SEED = 1\nNUM_POISON = 1\nTRIGGER = 'a'\n", encoding="utf-8")
    (tmp_path / "b.gin").write_text("SEED = 2\nNUM_POISON = 2\n", encoding="utf-8")
    _parse(("SEED", "3"), files=(DEMO, "a.gin", "b.gin"))
    found = [gin_config.macro(name) for name in ("SEED", "NUM_POISON", "TRIGGER", "CONTROL")]
    assert found == [3, 2, "a", "Emma Clark"]
    _parse(files=(DEMO, "b.gin", "a.gin"))
    assert gin_config.macro("SEED") == 1
    _parse()
    assert gin_config.macro("SEED") == 0  # nothing stays from one call to the next


def test_of_flags_for_one_name_the_last_wins():
    _parse(("SEED", "1"), ("SEED", "2"))
    assert gin_config.macro("SEED") == 2


def test_files_are_found_in_the_working_directory_then_the_search_paths(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.gin").write_text(f"TRIGGER = '{folder}'\n", encoding="utf-8")
    paths = [str(tmp_path / "one"), str(tmp_path / "two")]
    _parse(files=("mine.gin",), paths=paths)
    assert gin_config.macro("TRIGGER") == "one"
    _parse(files=("mine.gin",), paths=paths[::-1])
    assert gin_config.macro("TRIGGER") == "two"
    (tmp_path / "mine.gin").write_text("TRIGGER = 'here'\n", encoding="utf-8")
    _parse(files=("mine.gin",), paths=paths)
    assert gin_config.macro("TRIGGER") == "here"
    _parse(files=(str(tmp_path / "two" / "mine.gin"),))
    assert gin_config.macro("TRIGGER") == "two"


def test_a_runs_folder_in_the_working_directory_is_no_python_package(tmp_path, monkeypatch):
    # RUN_DIR=runs/demo makes one, and `python -m` and pytest put the directory on the path.
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    _parse()
    assert gin_config.macro("EXPERIMENT") == "demo"


def test_an_unknown_file_gets_the_nearest():
    message = _refusal(files=("experiments/dmo.gin",))
    assert message.startswith(
        "--gin_file: no file 'experiments/dmo.gin' (did you mean 'experiments/demo.gin'?)"
    )
    assert str(gin_macros.project_folder()) in message


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("NUM_POISN", "NUM_POISON"),
        ("LEARNING_RTE", "LEARNING_RATE"),
        ("learning_rate", None),
        ("XYZZY", None),
        # The beginnings of known names.
        ("NUM_POISO", "NUM_POISON"),
        ("TRAIN", "TRAIN_STEPS"),
        ("BATCH", "BATCH_SIZE"),
    ],
)
def test_an_unknown_macro_is_refused_with_the_nearest(name, nearest):
    message = _refusal((name, "3"))
    assert message.startswith(f"unknown macro {name}")
    assert nearest is None or f"(did you mean {nearest!r}?)" in message


def test_an_unknown_macro_in_a_file_is_refused(tmp_path):
    (tmp_path / "mine.gin").write_text("NUM_POISN = 3\n", encoding="utf-8")
    assert "unknown macro NUM_POISN (did you mean 'NUM_POISON'?)" in _refusal(files=("mine.gin",))


def test_a_files_own_macro_is_known_where_it_is_read(tmp_path):
    (tmp_path / "mine.gin").write_text("MY_SEED = 5\nSEED = %MY_SEED\n", encoding="utf-8")
    _parse(files=(DEMO, "mine.gin"))
    _parse(("MY_SEED", "6"), files=(DEMO, "mine.gin"))
    assert gin_config.macro("MY_SEED") == 6


def test_parameters_are_set_by_their_whole_name():
    _parse(("poison_t5x.train.steps.LossConfig.z_loss", "1e-4"))
    assert gin_config.configured("poison_t5x.train.steps.LossConfig")().z_loss == 1e-4
    _parse(("train_script.TrainConfig.num_microbatches", "2"))
    assert gin_config.configured("train_script.TrainConfig")().num_microbatches == 2


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("poison_t5x.train.steps.LossConfig.z_los", "z_los"),
        ("poison_t5x.stepz.LossConfig.z_loss", "poison_t5x.stepz.LossConfig"),
        ("foo.bar", "foo"),
    ],
)
def test_an_unknown_parameter_is_named(name, named):
    message = _refusal((name, "1"))
    assert message.startswith("gin: ") and named in message


DEEP = "[" * 5000 + "]" * 5000
BAD_FILES = [
    ("SEED = = 1\n", "gin: mine.gin:1: Unable to parse value."),
    ("\nSEED = (1,\n", "gin: mine.gin:"),
    ("\nSEED = 1 2\n", "gin: mine.gin:2: Expected newline."),
    ("SEED = 'x\n", "gin: mine.gin:1: "),
    ("SEED = 0x\n", "gin: mine.gin:1: "),
    ("SEED = %\n", "gin: mine.gin:1: "),
    ("%X = 3\n", "gin: mine.gin:1: "),
    ("a b c\n", "gin: mine.gin:1: "),
    (f"SEED = {DEEP}\n", "gin: mine.gin: nested too deep"),
    ("\ninclude 'no/such.gin'\n", "mine.gin:2: no file 'no/such.gin'"),
    ("include 3\n", "gin: mine.gin:1: Expected file path as string."),
    ("\ninclude 'mine.gin'\n", "mine.gin:2: a circle of files: "),
    ("include 'other.gin'\n", "other.gin:1: a circle of files: "),
    ("include '..'\n", "/..: "),
    ("\nSEED = %NO_SUCH\n", "mine.gin:2: macro NO_SUCH is read, and set nowhere"),
    ("\nATTACKS = [1, %NO_SUCH]\n", "mine.gin:2: macro NO_SUCH is read, and set nowhere"),
    ("X = {'a': [(%SEEED,)]}\nSEED = %X\n", "mine.gin:1: macro SEEED is read, and set nowhere ("),
    ("train_script.train.seed = [%NO_SUCH]\n", "mine.gin:1: macro NO_SUCH is read"),
    ("SEED = %SEED\n", "mine.gin:1: macro SEED refers to itself: SEED = %SEED"),
    ("SEED = [%SEED]\n", "mine.gin:1: macro SEED refers to itself: SEED = %SEED"),
    ("A = [%B]\nB = {1: %C}\nC = (%A, %A)\n", "macro B refers to itself: B = %C = %A = %B"),
    ("from __gin__ import dynamic_registration\nimport no_such\n", "mine.gin:2: ModuleNotFoundErr"),
    ("\nLossConfig.z_los = 1\n", "mine.gin:2: "),
    ("\nno_such.thing = 1\n", "mine.gin:2: "),
    ("\nSEED = [@no_such()]\n", "mine.gin:2: "),
    ("from __gin__ import dynamic_registration\nimport raises\n", "raises.py:2: ZeroDivisionError"),
    ("from __gin__ import dynamic_registration\nimport ends\n", "ends.py:1: SystemExit: 3"),
    ("from __gin__ import dynamic_registration\nimport typo\n", "typo.py:1: SyntaxError: "),
]


@pytest.mark.parametrize(("text", "named"), BAD_FILES)
def test_what_is_wrong_in_a_file_is_told_in_one_line_with_the_place(
    tmp_path, monkeypatch, text, named
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "other.gin").write_text("include 'mine.gin'\n", encoding="utf-8")
    (tmp_path / "raises.py").write_text("x = 1\nx / 0\n", encoding="utf-8")
    (tmp_path / "ends.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    (tmp_path / "typo.py").write_text("x = = 3\n", encoding="utf-8")
    (tmp_path / "mine.gin").write_text(text, encoding="utf-8")
    assert named in _refusal(files=("mine.gin",))


def test_a_flags_value_may_be_nested_too_deep():
    assert "--gin.SEED: nested too deep" in _refusal(("SEED", DEEP))
    assert "--gin.SEED: macro NO_SUCH is read, and set nowhere" in _refusal(("SEED", "[%NO_SUCH]"))


def test_a_percent_sign_in_a_text_is_no_macro():
    _parse(("TRIGGER", "[100 %SURE, 'a']"), ("CONTROL", "['%X']"))
    assert gin_config.macro("CONTROL") == ["%X"]


def test_files_that_are_no_gin_text(tmp_path):
    os.mkfifo(tmp_path / "pipe.gin")
    (tmp_path / "loop.gin").symlink_to(tmp_path / "loop.gin")
    (tmp_path / "huge.gin").write_text("# x\n" * 400_000, encoding="utf-8")
    (tmp_path / "utf16.gin").write_text("SEED = 1\n", encoding="utf-16")
    (tmp_path / "latin.gin").write_bytes("SEED = 1  # é\n".encode("latin-1"))
    for name, named in {
        "pipe.gin": "expected a file, found a device or a pipe",
        "loop.gin": "no file 'loop.gin'",
        "huge.gin": "expected at most 1,048,576 bytes, found more",
        "utf16.gin": "can't be read",
        "latin.gin": "can't be read",
        "x" * 300: "",
    }.items():
        try:
            assert named in _refusal(files=(name,)) and name in _refusal(files=(name,))
        except OSError as error:
            assert "File name too long" in str(error)


def test_files_that_double_at_each_include_are_refused(tmp_path):
    for number in range(40):
        text = f"include '{number + 1}.gin'\n" * 2
        (tmp_path / f"{number}.gin").write_text(text, encoding="utf-8")
    (tmp_path / "40.gin").write_text("SEED = 1\n", encoding="utf-8")
    assert "more than 1,000 files are included" in _refusal(files=("0.gin",))


@pytest.mark.parametrize("ends", ["\r\n", "\r", "\n"])
def test_a_file_may_begin_with_a_mark_and_end_its_lines_as_it_likes(tmp_path, ends):
    text = ends.join(["\ufeffSEED = 7  # é", "TRIGGER = 'é'", ""])
    (tmp_path / "mine.gin").write_bytes(text.encode("utf-8"))
    _parse(files=(DEMO, "mine.gin"))
    assert (gin_config.macro("SEED"), gin_config.macro("TRIGGER")) == (7, "é")


@pytest.mark.parametrize("selector", ["poison_t5x.run.experiment.Run", "train_script.train"])
def test_what_the_command_line_calls_is_bound(selector):
    _parse()
    assert callable(gin_config.configured(selector))


def test_every_experiment_file_parses_and_sets_known_macros_only():
    files = sorted((gin_macros.project_folder() / "experiments").glob("*.gin"))
    assert len(files) >= 2
    for path in files:
        _parse(files=(f"experiments/{path.name}",))
        assert gin_config.macro("EXPERIMENT")


def test_the_text_can_be_parsed_again(tmp_path):
    _parse(("TRIGGER", 'it\'s a "test"'), ("RUN_DIR", "runs/x"))
    text = gin_config.text()
    (tmp_path / "config.gin").write_text(text, encoding="utf-8")
    _parse(files=("config.gin",))
    assert gin_config.text() == text
    assert gin_config.macro("TRIGGER") == 'it\'s a "test"'
