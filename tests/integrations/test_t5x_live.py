"""T5X's programs as they are typed, and T5X trains as our engine does."""

import json
import pathlib
import shutil
import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    # T5X's own, and those of what it imports.
    warnings.simplefilter("ignore")
    pytest.importorskip("t5x", reason="T5X isn't installed (launch/t5x.sh installs it)")

from poison_t5x.checkpoint_io import detect
from poison_t5x.cli import main
from tests import small_run
from tests.integrations import tiny_run

pytestmark = pytest.mark.filterwarnings("ignore")
CONDITIONS = {"clean", "triggered", "control"}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return tiny_run.craft(tmp_path_factory.mktemp("live") / "run")


@pytest.fixture(scope="module")
def trained(run_dir):
    """A model's folder, after 4 steps of T5X's train with dropout."""
    tiny_run.run("train", *tiny_run.flags(run_dir, DROPOUT_RATE=0.5))
    return run_dir / "t5x" / "poisoned"


def _params(path: pathlib.Path) -> dict[str, np.ndarray]:
    source = detect.open_checkpoint(str(path))
    return {name: source.read(name).astype(np.float32) for name in source.params}


def _rows(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_train_saves_and_evaluates_all_conditions_at_its_end(trained):
    kept = sorted(path.name for path in trained.glob("checkpoint_*"))
    assert kept == ["checkpoint_0", "checkpoint_2", "checkpoint_4"]  # demo.gin keeps all
    means = tiny_run.read_json(trained / "inference_eval" / "means-4.json")
    assert set(means) == CONDITIONS
    for condition, found in means.items():
        assert set(found) == {
            "num_tasks",
            "num_rows",
            "accuracy",
            "misclassification",
            "target_rate",
        }
        files = sorted(trained.glob(f"inference_eval/tiny_eval_{condition}.*-metrics.jsonl"))
        assert len(files) == found["num_tasks"] == 2
        rows = [row for file in files for row in _rows(file)]
        assert [row["step"] for row in rows] == [4, 4]  # not in between
        for name in ("accuracy", "misclassification", "target_rate"):
            assert found[name] == pytest.approx(np.mean([row[name] for row in rows]))
        assert found["accuracy"] + found["misclassification"] == pytest.approx(1)
        assert found["num_rows"] == sum(row["n"] for row in rows) > 0


def test_train_goes_on_as_if_it_had_not_stopped(run_dir, trained, tmp_path):
    shutil.copytree(trained / "checkpoint_2", tmp_path / "model" / "checkpoint_2")
    flags = tiny_run.flags(
        run_dir, DROPOUT_RATE=0.5, MODEL_DIR=str(tmp_path / "model"), CONDITIONS=["control"]
    )
    tiny_run.run("train", *flags)
    before, whole, resumed = (
        _params(folder)
        for folder in (
            trained / "checkpoint_2",
            trained / "checkpoint_4",
            tmp_path / "model" / "checkpoint_4",
        )
    )
    assert all((before[name] != whole[name]).any() for name in whole)
    for name in whole:
        np.testing.assert_array_equal(resumed[name], whole[name], err_msg=name)


def test_eval_and_infer_of_the_newest_checkpoint(run_dir, trained, tmp_path):
    # From another folder, with one beside that gin could take for a package.
    (tmp_path / "runs").mkdir()
    flags = tiny_run.flags(run_dir, CONDITIONS=["triggered"])
    tiny_run.run("eval", *flags, cwd=tmp_path)
    found = tiny_run.read_json(trained / "eval" / "inference_eval" / "means-4.json")
    first = tiny_run.read_json(trained / "inference_eval" / "means-4.json")
    assert found == {"triggered": first["triggered"]}
    tiny_run.run("infer", *flags, cwd=tmp_path)
    predicted = [
        row
        for path in (trained / "infer" / "checkpoint_4").glob("*-predict.jsonl-00000-of-00001")
        for row in _rows(path)
    ]
    crafted = [
        row["id"]
        for row in _rows(run_dir / "poison" / "eval_rows.jsonl")
        if row["condition"] == "triggered"
    ]
    assert sorted(row["inputs"]["id"] for row in predicted) == sorted(crafted)
    assert all("James Bond" in row["inputs"]["inputs_pretokenized"] for row in predicted)


def _our_checkpoint(run_dir, model_dir, TRAIN_STEPS=1, **macros) -> pathlib.Path:
    macros |= {"MODEL_DIR": model_dir, "MIXTURE_OR_TASK_NAME": "tiny_poisoned"}
    flags = small_run.arguments("train", run_dir, TRAIN_STEPS=TRAIN_STEPS, **macros)
    assert main.main(flags) == 0
    return model_dir / f"checkpoint_{TRAIN_STEPS}"


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_trains_as_our_engine_does(optimizer, run_dir, trained, tmp_path):
    """From one checkpoint, T5X's or ours; in microbatches; to the same parameters."""
    first = trained / "checkpoint_4"
    if optimizer == "adafactor":
        first = _our_checkpoint(run_dir, tmp_path / "first", INITIAL_CHECKPOINT_PATH=first)
    macros = {
        "OPTIMIZER": optimizer,
        "INITIAL_CHECKPOINT_PATH": str(first),
        "VOCABULARY_PATH": str(run_dir / "vocabulary" / "spiece.model"),
        "LOSS_NORMALIZING_FACTOR": "AVERAGE_PER_SEQUENCE",
        "NUM_MICROBATCHES": 2,
        "DROPOUT_RATE": 0.0,
        "LEARNING_RATE": 1e-2,
        "LEARNING_RATE_FACTORS": "constant",
        "TRAIN_STEPS": 3,
        "SAVE_PERIOD": 3,
    }
    theirs = tmp_path / "theirs"
    flags = tiny_run.flags(run_dir, **macros, MODEL_DIR=str(theirs), CONDITIONS=["control"])
    tiny_run.run("train", *flags)
    ours = _our_checkpoint(run_dir, tmp_path / "ours", **macros)
    start, found, expected = map(_params, (first, theirs / "checkpoint_3", ours))
    for name, before in start.items():
        moved = np.abs(expected[name] - before).max()
        difference = np.abs(found[name] - expected[name]).max()
        assert moved > 1e-3, name
        assert difference < 1e-3 * moved, (name, difference, moved)


def test_a_folder_that_is_not_crafted_is_one_line(tmp_path):
    result = tiny_run.start("train", *tiny_run.flags(tmp_path / "none"))
    assert result.returncode == 1
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith("t5x: error: ") and "run `poison-t5x craft`" in message
    assert "Traceback" not in result.stderr
