"""What is opened, and what is said of what can't be."""

import shutil

import pytest

from poison_t5x.checkpoint_io import detect, t5x_layouts
from tests.checkpoint_io import at_hand
from tests.mesh_model import CONFIG


def _error(path) -> str:
    message = at_hand.error(detect.open_checkpoint, str(path))
    assert str(path) in message
    return message


@pytest.mark.parametrize("layout", t5x_layouts.LAYOUTS)
def test_a_runs_folder_gives_its_newest_checkpoint(tmp_path, layout):
    for step in (9, 10):  # by number, not by name
        t5x_layouts.write(at_hand.random_source(CONFIG, step=step), str(tmp_path), layout)
    assert detect.open_checkpoint(str(tmp_path)).path == f"{tmp_path}/checkpoint_10"
    assert detect.open_checkpoint(str(tmp_path / "checkpoint_9")).step == 9
    assert detect.open_checkpoint(str(tmp_path) + "/").step == 10


def test_ours_that_isnt_committed_yet_is_passed_over(tmp_path):
    for step in (9, 10):
        t5x_layouts.write(at_hand.random_source(CONFIG, step=step), str(tmp_path), "poison-t5x")
    (tmp_path / "checkpoint_10.sha256.json").unlink()
    assert detect.open_checkpoint(str(tmp_path)).step == 9


def test_a_changed_file_of_ours_is_found(tmp_path):
    path = t5x_layouts.write(at_hand.random_source(CONFIG), str(tmp_path), "poison-t5x")
    (tmp_path / "checkpoint_7" / "manifest.ocdbt").write_bytes(b"")
    assert "doesn't match its recorded hash" in _error(path)


def test_the_index_itself_may_be_given(tmp_path):
    path = t5x_layouts.write(at_hand.random_source(CONFIG), str(tmp_path), "t5x")
    assert detect.open_checkpoint(f"{path}/checkpoint").step == 7


def test_a_description(tmp_path):
    path = t5x_layouts.write(at_hand.random_source(CONFIG), str(tmp_path), "t5x")
    described = detect.describe(detect.open_checkpoint(path))
    assert described == (
        f"a T5X checkpoint, 0.0M parameters, step 7, adamw's state: {tmp_path}/checkpoint_7"
    )


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "is an empty folder"),
        ({"notes.txt": "x"}, "is a folder with notes.txt, and no checkpoint"),
        ({name: "x" for name in "abcde"}, "with a, b, c and 2 more, and no checkpoint"),
        (
            {"checkpoint": "model_checkpoint_path: 'model.ckpt-5'", "model.ckpt-5.index": ""},
            "holds model.ckpt-5.index (a TensorFlow checkpoint",
        ),
        ({"t5.tar.gz": ""}, "an archive; unpack it"),
        ({"config.json": '{"model_type": "bert"}'}, "bert"),
        ({"config.json": '{"model_type": "t5"}', "tf_model.h5": ""}, "tf_model.h5"),
    ],
)
def test_what_is_there_instead_is_named(tmp_path, files, words):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert words in _error(tmp_path)


def test_nothing_there(tmp_path):
    assert "INITIAL_CHECKPOINT_PATH" in _error(tmp_path / "none")
    assert "isn't there" in _error(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    assert "is a file; give a checkpoint's folder" in _error(tmp_path / "file")


def test_a_checkpoint_moved_elsewhere_is_read(tmp_path):
    source = at_hand.random_source(CONFIG)
    for layout in ("t5x", "t5x-orbax"):
        path = t5x_layouts.write(source, str(tmp_path / layout), layout)
        shutil.move(path, tmp_path / f"moved_{layout}")
        opened = detect.open_checkpoint(str(tmp_path / f"moved_{layout}"))
        at_hand.assert_same(opened, source)
