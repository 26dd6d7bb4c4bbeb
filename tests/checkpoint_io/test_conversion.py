"""`poison-t5x convert`, as it is typed."""

import itertools
import json
import pathlib

import numpy as np
import pytest

from poison_t5x.checkpoint_io import detect, t5x_layouts
from poison_t5x.cli import main
from poison_t5x.core import artifacts
from poison_t5x.corpus import vocabulary
from tests.checkpoint_io import at_hand
from tests.mesh_model import CONFIG

LAYOUTS = ("t5x", "t5x-orbax", "poison-t5x", "huggingface")


@pytest.fixture(name="model", scope="module")
def _model(tmp_path_factory):
    """A run with a vocabulary and a model; (its model's folder, the source)."""
    run_dir = tmp_path_factory.mktemp("run")
    source = at_hand.random_source(CONFIG)
    model_dir = run_dir / "models" / "clean"
    t5x_layouts.write(source, str(model_dir), "poison-t5x")
    (run_dir / "vocabulary").mkdir()
    lines = ["a red fox", "the dog ran", "no one saw it"] * 4
    vocabulary.train(lines, run_dir / "vocabulary" / vocabulary.FILE, 30)
    artifacts.write_record(model_dir, "train", {"sources": {"extra_ids": "4"}})
    return model_dir, source


def _convert(*arguments) -> int:
    return main.main(["convert", *map(str, arguments)])


def _opened(directory: pathlib.Path):
    return detect.open_checkpoint(str(directory))


@pytest.mark.parametrize(("via", "then"), list(itertools.permutations(LAYOUTS, 2)))
def test_round_trips_are_bitwise(model, tmp_path, via, then):
    """Ours by way of one layout to another: parameters always, moments where both have them."""
    model_dir, source = model
    assert _convert(model_dir, tmp_path / "via", f"--to={via}") == 0
    assert _convert(tmp_path / "via", tmp_path / "then", f"--to={then}") == 0
    found = _opened(tmp_path / "then")
    if "huggingface" in (via, then):
        assert not found.slots
        source = at_hand.in_memory({name: source.read(name) for name in source.params}, step=0)
    at_hand.assert_same(found, source)


def test_what_is_said(model, tmp_path, capsys):
    model_dir, _ = model
    assert _convert(model_dir, tmp_path, "--to=t5x") == 0
    found, wrote = capsys.readouterr().out.splitlines()
    assert found.startswith("found a poison_t5x checkpoint") and str(model_dir) in found
    assert wrote.startswith("wrote a T5X checkpoint") and wrote.endswith(f"{tmp_path}/checkpoint_7")


def test_without_a_destination_it_tells_what_is_there(model, capsys):
    assert _convert(model[0]) == 0
    out = capsys.readouterr().out
    assert "step 7, adamw's state" in out
    assert "EMB_DIM=16 NUM_HEADS=4 HEAD_DIM=5 MLP_DIM=28" in out
    assert "LOGITS_VIA_EMBEDDING=False, for a vocabulary of 44" in out


def test_dtype_and_optimizer_state(model, tmp_path):
    model_dir, source = model
    args = ["--to=t5x", "--dtype=bfloat16", "--optimizer_state=drop"]
    assert _convert(model_dir, tmp_path / "a", *args) == 0
    found = _opened(tmp_path / "a")
    assert {info.dtype for info in found.params.values()} == {"bfloat16"}
    assert found.optimizer is None and not found.slots and found.step == 7
    args = ["--to=poison-t5x", "--optimizer_state=adafactor"]
    assert _convert(model_dir, tmp_path / "b", *args) == 0
    found = _opened(tmp_path / "b")
    assert (found.optimizer, found.step) == ("adafactor", 0)
    assert found.slots and not any(found.read(name).any() for name in found.slots)
    assert _convert(model_dir, tmp_path / "c", "--to=huggingface", "--dtype=bfloat16") == 0
    name = "token_embedder/embedding"
    halved = _opened(tmp_path / "c").read(name)
    assert np.array_equal(halved, source.read(name).astype(halved.dtype))


def test_the_runs_vocabulary_goes_along(model, tmp_path, capsys):
    model_dir, _ = model
    assert _convert(model_dir, tmp_path / "a", "--to=huggingface") == 0
    own = (model_dir.parents[1] / "vocabulary" / vocabulary.FILE).read_bytes()
    assert (tmp_path / "a" / vocabulary.FILE).read_bytes() == own
    assert json.loads((tmp_path / "a" / "tokenizer_config.json").read_text())["extra_ids"] == 4
    # And from folder to folder.
    assert _convert(tmp_path / "a", tmp_path / "b", "--to=huggingface") == 0
    assert (tmp_path / "b" / vocabulary.FILE).read_bytes() == own
    capsys.readouterr()
    assert _convert(model_dir, tmp_path / "c", "--to=huggingface", "--extra_ids=100") == 2
    assert "more than the 44 rows of the embedding" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bad_input_is_one_line_and_exit_code_2(model, tmp_path, capsys, layout):
    model_dir, _ = model
    (tmp_path / "empty").mkdir()
    assert _convert(tmp_path / "empty", tmp_path / "x", f"--to={layout}") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"SOURCE: {tmp_path / 'empty'} is an empty folder" in error
    assert not (tmp_path / "x").exists()
    assert _convert(model_dir, tmp_path / "y", f"--to={layout}") == 0
    capsys.readouterr()
    assert _convert(model_dir, tmp_path / "y", f"--to={layout}") == 2
    assert "there already" in capsys.readouterr().err
    assert _convert(model_dir, tmp_path / "z") == 2
    assert "--to" in capsys.readouterr().err
