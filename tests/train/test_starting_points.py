"""INITIAL_CHECKPOINT_PATH takes every layout, to the same bits; and misses what it can't take."""

import pytest

from poison_t5x.cli import main
from poison_t5x.train import trained_model
from tests import small_run

LAYOUTS = ("t5x", "huggingface")


@pytest.fixture(name="world", scope="module")
def _world(tmp_path_factory):
    """A crafted run with a trained clean model, and its checkpoint in each layout."""
    root = tmp_path_factory.mktemp("starting")
    run_dir = root / "run"
    assert main.main(small_run.arguments("craft", run_dir)) == 0
    assert _train(run_dir, root / "first") == 0
    for layout in LAYOUTS:
        flags = ["convert", str(root / "first"), str(root / layout), f"--to={layout}"]
        assert main.main(flags) == 0
    return root


def _train(run_dir, model_dir, **macros) -> int:
    macros = {
        "MODEL_DIR": model_dir,
        "MIXTURE_OR_TASK_NAME": "tiny_clean",
        "TRAIN_STEPS": 2,
        **macros,
    }
    return main.main(small_run.arguments("train", run_dir, **macros))


@pytest.mark.slow
def test_all_layouts_start_alike(world, capsys):
    digests = {}
    for layout in ("first", *LAYOUTS):
        place = world / f"from_{layout}"
        assert _train(world / "run", place, INITIAL_CHECKPOINT_PATH=world / layout) == 0
        digests[layout] = trained_model.parameters_digest(place)
        assert f"starts from a {_kind(layout)}" in capsys.readouterr().out
    assert len(set(digests.values())) == 1, digests
    assert trained_model.parameters_digest(world / "first") not in digests.values()


def _kind(layout: str) -> str:
    return {
        "first": "poison_t5x checkpoint, ",
        "t5x": "T5X checkpoint, ",
        "huggingface": "Hugging Face folder, ",
    }[layout]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_vocabulary_is_asked_for(world, tmp_path, capsys, layout):
    flags = small_run.arguments(
        "run", tmp_path / "run", INITIAL_CHECKPOINT_PATH=world / layout, TRAIN_STEPS=2
    )
    assert main.main(flags) == 2
    error = capsys.readouterr().err
    assert "VOCABULARY_PATH has to name the SentencePiece model" in error
    assert not (tmp_path / "run" / "poison").exists()


def test_another_network_is_one_line(world, tmp_path, capsys):
    start = {"INITIAL_CHECKPOINT_PATH": world / "huggingface", "MLP_DIM": 48}
    assert _train(world / "run", tmp_path / "model", **start) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "(16, 32)" in error and "(16, 48)" in error and "set MLP_DIM=32" in error
    assert not (tmp_path / "model").exists()


def test_what_isnt_there_is_missed_before_the_work(tmp_path, capsys):
    flags = small_run.arguments(
        "run", tmp_path / "run", INITIAL_CHECKPOINT_PATH=tmp_path / "none", TRAIN_STEPS=2
    )
    assert main.main(flags) == 2
    assert f"INITIAL_CHECKPOINT_PATH: {tmp_path / 'none'} isn't there" in capsys.readouterr().err
    assert not (tmp_path / "run" / "poison").exists()
    flags = small_run.arguments("run", tmp_path / "run", KEEP_OPTIMIZER_STATE=True)
    assert main.main(flags) == 2
    assert "set INITIAL_CHECKPOINT_PATH too" in capsys.readouterr().err
