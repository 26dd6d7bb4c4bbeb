"""T5X's two layouts and ours: what is written is read, bit for bit, and damage is named."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from flax import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from poison_t5x.checkpoint_io import detect, optimizer_state, t5x_layouts
from poison_t5x.checkpoint_io.source import in_memory
from poison_t5x.core.errors import InputError
from poison_t5x.train import checkpoints
from tests.checkpoint_io import at_hand
from tests.mesh_model import CONFIG

KERNEL = "encoder/layers_0/mlp/wo/kernel"


@pytest.fixture(name="written", scope="module")
def _written(tmp_path_factory):
    """layout -> (a checkpoint's folder, its source), with AdamW's state; not to be changed."""
    source = at_hand.random_source(CONFIG)
    root = tmp_path_factory.mktemp("written")
    return {
        layout: (pathlib.Path(t5x_layouts.write(source, str(root / layout), layout)), source)
        for layout in t5x_layouts.LAYOUTS
    }


@pytest.fixture(name="copied", params=t5x_layouts.LAYOUTS)
def _copied(written, tmp_path, request):
    """A checkpoint of one's own to damage, in each layout."""
    folder = written[request.param][0]
    shutil.copytree(folder, tmp_path / folder.name)  # without our hashes, which would tell it first
    return tmp_path / folder.name


@pytest.mark.parametrize("layout", t5x_layouts.LAYOUTS)
@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", None])
def test_written_is_read_bit_for_bit(tmp_path, layout, optimizer):
    source = at_hand.random_source(CONFIG, optimizer)
    path = t5x_layouts.write(source, str(tmp_path), layout)
    assert path == f"{tmp_path}/checkpoint_7"
    at_hand.assert_same(detect.open_checkpoint(path), source, ignore_momentum=True)
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.endswith("partial")] == []
    assert checkpoints.committed_steps(tmp_path) == [7] * (layout == "poison-t5x")


def test_t5x_names_adafactors_moments_last(written, tmp_path):
    source = at_hand.random_source(CONFIG, "adafactor")
    folder = pathlib.Path(t5x_layouts.write(source, str(tmp_path), "t5x"))
    tree = serialization.msgpack_restore((folder / "checkpoint").read_bytes())
    assert tree["version"] == 3
    state = at_hand.leaf(tree["optimizer"]["state"]["param_states"], KERNEL)
    assert state.keys() == {"v_row", "v_col", "v", "m"}
    assert state["m"].tolist() == [0.0]
    assert tree["optimizer"]["state"]["step"] == 7
    # AdamW's is optax's own tree: moments, and the schedule's count, third in the chain.
    folder, source = written["t5x"]
    tree = serialization.msgpack_restore((folder / "checkpoint").read_bytes())
    states = tree["optimizer"]["state"]["param_states"]
    assert states.keys() == {"0", "2"} and states["0"].keys() == {"count", "mu", "nu"}
    assert states["2"]["count"] == source.read("count")


def test_the_index_holds_relative_places(written):
    folder, _ = written["t5x"]
    tree = serialization.msgpack_restore((folder / "checkpoint").read_bytes())
    entry = at_hand.leaf(tree["optimizer"]["target"], KERNEL)
    assert entry["kvstore"] == {
        "driver": "file",
        "path": "target." + KERNEL.replace("/", ".") + "/",
    }
    assert list(entry["metadata"]["shape"]) == [28, 16]


@pytest.mark.parametrize("form", ["bucket", "old"])
def test_an_index_written_in_a_bucket_or_long_ago_is_read(written, tmp_path, form):
    shutil.copytree(written["t5x"][0], tmp_path / "checkpoint_7")
    index = tmp_path / "checkpoint_7" / "checkpoint"
    tree = serialization.msgpack_restore(index.read_bytes())

    def change(node):
        for value in node.values():
            if isinstance(value, dict) and "kvstore" in value:
                if form == "bucket":
                    value["kvstore"] |= {"driver": "gcs", "bucket": "t5x-dummy-bucket"}
                else:
                    value["path"] = value["kvstore"].pop("path")
            elif isinstance(value, dict):
                change(value)

    change(tree["optimizer"])
    index.write_bytes(serialization.msgpack_serialize(tree))
    at_hand.assert_same(detect.open_checkpoint(str(index.parent)), written["t5x"][1])


@settings(deadline=None, max_examples=30)
@given(data=st.data(), layout=st.sampled_from(t5x_layouts.LAYOUTS))
def test_a_part_is_the_whole_ones_part(written, data, layout):
    folder, source = written[layout]
    opened = detect.open_checkpoint(str(folder))
    name = data.draw(st.sampled_from([KERNEL, "token_embedder/embedding", "nu/" + KERNEL]))
    index = data.draw(at_hand.slices(source.read(name).shape))
    assert np.array_equal(opened.read(name, index), source.read(name)[index])


def test_tensors_of_many_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(t5x_layouts, "_CHUNK_BYTES", 100)
    source = at_hand.random_source(CONFIG)
    path = pathlib.Path(t5x_layouts.write(source, str(tmp_path), "t5x"))
    chunks = list((path / f"target.{KERNEL.replace('/', '.')}").glob("[0-9]*"))
    assert len(chunks) > 1
    at_hand.assert_same(detect.open_checkpoint(str(path)), source)
    chunks[1].unlink()  # which TensorStore would read as zeros
    message = at_hand.error(detect.open_checkpoint(str(path)).read, KERNEL)
    assert f"{path}: the tensor {KERNEL} is damaged: chunks of its (28, 16) are missing" in message
    # A part whose chunks are all there is there.
    row, column = (int(number) for number in chunks[0].name.split("."))
    chunk = json.loads((chunks[0].parent / ".zarray").read_text())["chunks"]
    index = tuple(
        slice(at * n, min((at + 1) * n, size))
        for at, n, size in zip((row, column), chunk, (28, 16), strict=True)
    )
    part = detect.open_checkpoint(str(path)).read(KERNEL, index)
    assert np.array_equal(part, source.read(KERNEL)[index])


def test_damaged_tensors_are_named(written, tmp_path):
    shutil.copytree(written["t5x"][0], tmp_path / "c")
    chunk = tmp_path / "c" / f"target.{KERNEL.replace('/', '.')}" / "0.0"

    def error():
        message = at_hand.error(detect.open_checkpoint(str(tmp_path / "c")).read, KERNEL)
        assert message.startswith(f"{tmp_path / 'c'}: the tensor {KERNEL} is damaged: ")
        assert message.endswith("fetch the checkpoint again")
        return message

    content = chunk.read_bytes()
    chunk.write_bytes(content[: len(content) // 2])
    error()
    place = chunk.parent / ".zarray"
    place.write_text(json.dumps({**json.loads(place.read_text()), "shape": [28, 8]}))
    assert "its shape is (28, 16) in the index and (28, 8) in its files" in error()
    shutil.rmtree(chunk.parent)
    assert "its files aren't there" in error()


def test_a_damaged_orbax_store_is_one_line(written, tmp_path):
    for layout in ("t5x-orbax", "poison-t5x"):
        folder = tmp_path / layout
        shutil.copytree(written[layout][0], folder)
        files = [path for path in folder.rglob("d/*") if path.is_file()]
        max(files, key=lambda path: path.stat().st_size).write_bytes(b"")

        def read_all(folder=folder):
            opened = detect.open_checkpoint(str(folder))
            return [opened.read(name) for name in opened.params]

        assert str(folder) in at_hand.error(read_all)


def test_an_unreadable_index_is_refused(copied):
    index = next(copied / name for name in t5x_layouts.MARKS if (copied / name).exists())
    index.write_bytes(b"\x81\xa7not one")
    message = at_hand.error(detect.open_checkpoint, str(copied))
    assert message.startswith(str(index)) and "damaged" in message


def test_an_orbax_checkpoint_of_something_else_is_named(tmp_path):
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as writer:
        writer.save(tmp_path / "c", args=ocp.args.StandardSave({"weights": np.ones(3)}))
    message = at_hand.error(detect.open_checkpoint, str(tmp_path / "c"))
    assert "holds weights and not 'target'" in message


def test_an_occupied_place_is_refused_and_left_alone(written):
    for layout, (folder, source) in written.items():
        before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
        assert "is there already" in at_hand.error(
            t5x_layouts.write, source, str(folder.parent), layout
        )
        assert sorted(path.stat().st_mtime_ns for path in folder.rglob("*")) == before


@pytest.mark.parametrize("layout", t5x_layouts.LAYOUTS)
def test_a_failure_half_way_leaves_no_checkpoint(tmp_path, layout):
    source, broken = at_hand.random_source(CONFIG), at_hand.random_source(CONFIG)

    def fail(tensor, name, index):
        if name == KERNEL:
            raise InputError("the tensor is damaged")
        return tensor.read(index)

    at_hand.replace_read(broken, fail)
    with pytest.raises(InputError):
        t5x_layouts.write(broken, str(tmp_path), layout)
    assert not (tmp_path / "checkpoint_7").exists()
    at_hand.assert_same(
        detect.open_checkpoint(t5x_layouts.write(source, str(tmp_path), layout)), source
    )


def test_adafactors_momentum_goes_to_t5x_and_not_to_ours(tmp_path):
    source = at_hand.random_source(CONFIG, "adafactor")
    source.slots |= {f"m/{name}": in_memory(2 * source.read(name)) for name in source.params}
    path = t5x_layouts.write(source, str(tmp_path / "t5x"), "t5x")
    at_hand.assert_same(detect.open_checkpoint(path), source)
    message = at_hand.error(t5x_layouts.write, source, str(tmp_path / "ours"), "poison-t5x")
    assert "momentum" in message and "leave the optimiser's state out" in message


def test_names_of_states():
    tree = {
        ("target", "encoder", "x"): np.zeros(2),
        ("state", "step"): np.array(5),
        ("state", "param_states", "encoder", "x", "v_row"): np.zeros(3),
        ("state", "param_states", "encoder", "x", "m"): np.zeros(1),
        ("flax_mutables", "y"): np.zeros(4),
    }
    tensors = {place: in_memory(array) for place, array in tree.items()}
    source = optimizer_state.from_tree("here", "a tree", tensors)
    assert {name: one.shape for name, one in source.params.items()} == {"encoder/x": (2,)}
    shapes = {"v_row/encoder/x": (3,), "m/encoder/x": (1,), "count": ()}
    assert {name: one.shape for name, one in source.slots.items()} == shapes
    assert (source.optimizer, source.step, int(source.read("count"))) == ("adafactor", 5, 5)
    # Of an optimiser that we don't know nothing is taken.
    other = {("state", "param_states", "0", "trace", "x"): in_memory(np.zeros(1))}
    source = optimizer_state.from_tree("here", "a tree", other)
    assert (source.slots, source.optimizer, source.step) == ({}, None, 0)


def test_t5xs_adafactor_counts_by_the_step(tmp_path):
    source = at_hand.random_source(CONFIG, "adafactor", step=7)
    # Seven steps from a checkpoint whose state was kept.
    source.slots |= {"count": in_memory(np.array(1007, np.int32))}
    for layout in ("t5x", "t5x-orbax"):
        path = t5x_layouts.write(source, str(tmp_path / layout), layout)
        assert path.endswith("checkpoint_1007")
        opened = detect.open_checkpoint(path)
        assert (opened.step, int(opened.read("count"))) == (1007, 1007)
    opened = detect.open_checkpoint(t5x_layouts.write(source, str(tmp_path), "poison-t5x"))
    assert (opened.step, int(opened.read("count"))) == (7, 1007)
