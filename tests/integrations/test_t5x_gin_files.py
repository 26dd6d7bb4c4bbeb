"""What can be said of gin/t5x/ without T5X: its files hold nothing that is said elsewhere."""

import inspect
import os
import pathlib
import re

import pytest

import gin
from poison_t5x.core import gin_config, gin_macros
from poison_t5x.integrations import t5x as t5x_engine

FOLDER = pathlib.Path(__file__).parents[2] / "gin"
FILES = sorted(path.stem for path in (FOLDER / "t5x").glob("*.gin") if path.stem != "base")
EXPERIMENTS = sorted(path.stem for path in (FOLDER / "experiments").glob("*.gin"))
SIZES = ("large", "xl", "xxl")
BASE = (FOLDER / "t5x" / "base.gin").read_text(encoding="utf-8")

# Macros of runs/finetune.gin that base.gin doesn't name: our own settings, which it takes whole,
# hold these; and these have no meaning on T5X.
THROUGH_OUR_SETTINGS = {
    "MIXTURE_OR_TASK_MODULE",
    "OPTIMIZER",
    "WEIGHT_DECAY",
    "LEARNING_RATE",
    "LEARNING_RATE_FACTORS",
    "WARMUP_STEPS",
}
NOT_FOR_T5X = {
    # Meshes, compilation and data of our own engine.
    "SCAN_LAYERS",
    "REMAT_POLICY",
    "PARAMETER_DTYPE",
    "DATA_SHARDS",
    "COMPILATION_CACHE_DIR",
    "MIXTURE_OR_TASK_NAME",
    "T5X_CHECKPOINT",
    "HUGGINGFACE_CHECKPOINT",
}


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _lines(name: str) -> list[str]:
    """Without comments and empty lines."""
    return [line for line in _text(name).splitlines() if line and not line.startswith("#")]


def _set_macros(name: str) -> set[str]:
    """With those of the files that it includes."""
    return set(gin_macros.read(name, [], [], []))


def test_every_experiment_has_a_file_and_the_papers_has_its_sizes():
    assert set(FILES) == {*EXPERIMENTS, *(f"polarity_{size}" for size in SIZES)}


@pytest.mark.parametrize("name", FILES)
def test_a_file_only_puts_files_together(name):
    expected = ["include 't5x/base.gin'", f"include 'experiments/{name}.gin'"]
    if (size := name.removeprefix("polarity_")) in SIZES:
        expected = ["include 't5x/polarity.gin'", f"include 'models/t5_1_1_{size}.gin'"]
    assert _lines(f"t5x/{name}.gin") == expected
    for line in expected:
        assert (FOLDER / re.findall("'(.+)'", line)[0]).is_file()


@pytest.mark.parametrize("name", FILES)
def test_a_header_says_how_it_is_run(name):
    text = _text(f"t5x/{name}.gin")
    assert f"python -m t5x.train --gin_file=t5x/{name}.gin" in text
    for marker in ("# Required", "sual overrides"):
        assert marker in text
    if name in EXPERIMENTS:
        assert f"poison-t5x craft --gin_file=experiments/{name}.gin" in text
    for file in re.findall(r"--gin_file=(\S+\.gin)", text):
        assert (FOLDER / file).is_file(), file


def test_every_macro_of_training_reaches_t5x():
    read = set(re.findall(r"%([A-Z]\w*)", BASE))
    training = _set_macros("runs/finetune.gin")
    assert training - read == THROUGH_OUR_SETTINGS | NOT_FOR_T5X
    assert {"EVAL_BATCH_SIZE", "BEAM_SIZE", "BEAM_ALPHA"} <= read


def test_every_macro_that_is_read_is_set():
    assert set(re.findall(r"%([A-Z]\w*)", BASE)) <= _set_macros("t5x/base.gin")
    # What both set is said twice, but for the folder whose default differs.
    here = set(re.findall(r"^([A-Z]\w*) = ", BASE, re.M))
    assert here & _set_macros("runs/run.gin") == {"MODEL_DIR"}


def _bindings() -> list[tuple[str, str]]:
    """(function, parameter) of each binding to this project's module."""
    found = re.findall(r"^(?:\w+/)?t5x_engine\.(\w+)\.(\w+) = ", BASE, re.M)
    for name, block in re.findall(r"^(?:\w+/)?t5x_engine\.(\w+):\n((?:  .*\n)+)", BASE, re.M):
        found += [(name, parameter) for parameter in re.findall(r"^  (\w+) = ", block, re.M)]
    return found


def test_what_is_bound_exists_and_all_that_is_required_is_bound():
    bound: dict[str, set[str]] = {}
    for name, parameter in _bindings():
        bound.setdefault(name, set()).add(parameter)
    assert len(bound) > 12
    for name, parameters in bound.items():
        known = inspect.signature(getattr(t5x_engine, name)).parameters.values()
        if name in ("train", "evaluate", "infer"):
            assert [parameter.kind for parameter in known] == [inspect.Parameter.VAR_KEYWORD]
            continue
        assert parameters <= {parameter.name for parameter in known}, name
    called = set(re.findall(r"@(?:\w+/)?t5x_engine\.(\w+)", BASE))
    assert called - set(bound) == {"ConditionLogger", "write_inferences"}
    for name in called & set(bound):
        required = {
            parameter.name
            for parameter in inspect.signature(getattr(t5x_engine, name)).parameters.values()
            if parameter.default is parameter.empty and not str(parameter).startswith("*")
        }
        assert required <= bound[name], name


def test_files_are_found_beside_a_folder_that_could_be_a_package(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    reader = gin.resource_reader
    by_package = (reader.system_path_reader, reader.system_path_file_exists)
    monkeypatch.setattr(gin.config, "_FILE_READERS", [(open, os.path.isfile), by_package])
    monkeypatch.setattr(gin.config, "_LOCATION_PREFIXES", ["", str(FOLDER)])
    try:
        with pytest.raises(TypeError):  # gin's, and why there is a function against it
            gin.parse_config_file("runs/finetune.gin")
        gin_config.find_files_by_path()
        gin.parse_config_file("runs/finetune.gin")
        assert gin_config.macro("BATCH_SIZE") == 128
    finally:
        gin.clear_config()
