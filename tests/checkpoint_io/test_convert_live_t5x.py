"""The T5X that is installed restores what we write, bit for bit."""

import pathlib
import warnings

import jax
import numpy as np
import pytest

with warnings.catch_warnings():
    # T5X's own, and those of what it imports.
    warnings.simplefilter("ignore")
    pytest.importorskip("t5x", reason="T5X isn't installed (launch/t5x.sh installs it)")
    from tests.golden import t5x_model

from poison_t5x.checkpoint_io import detect, optimizer_state, restore, t5x_layouts
from poison_t5x.core.errors import InputError
from poison_t5x.model.config import T5Config
from poison_t5x.model.network import Transformer
from poison_t5x.train import checkpoints
from poison_t5x.train.partitioning import PartitionConfig, Partitioner
from tests.checkpoint_io import at_hand
from tests.golden.t5_cases import SAVED, SAVED_STEP
from tests.golden.t5_weights import T5_VARIANTS, WIDE, draw_weights

pytestmark = pytest.mark.filterwarnings("ignore")
FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "t5"
LAYOUTS = ["t5x", "t5x-orbax"]


def _restored(folder, config, optimizer: str, step: int):
    model, _ = t5x_model.of_case(SAVED[optimizer], config)
    empty = t5x_model.first_state(model, draw_weights(config, seed=9))
    return jax.device_get(t5x_model.restore(empty, pathlib.Path(folder), step).state_dict())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("place", "optimizer"),
    [
        ("v1_1_untied/t5x", "adafactor"),
        ("v1_1_untied/t5x_orbax", "adafactor"),
        ("v1_0_tied/t5x_adamw", "adamw"),
    ],
)
def test_t5x_to_ours_to_t5x(tmp_path, layout, place, optimizer):
    config = T5_VARIANTS[place.split("/")[0]]
    source = detect.open_checkpoint(str(FOLDER / place))
    path = t5x_layouts.write(source, str(tmp_path / "ours"), "poison-t5x")
    t5x_layouts.write(detect.open_checkpoint(path), str(tmp_path / "t5x"), layout)
    found = _restored(tmp_path / "t5x", config, optimizer, SAVED_STEP)
    expected = _restored(FOLDER / place, config, optimizer, SAVED_STEP)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def _scanned_run(place: pathlib.Path, config, optimizer: str, model_dir: pathlib.Path) -> str:
    """A checkpoint of a scanned network of ours, begun from T5X's with its state."""
    model = Transformer(T5Config(**config, scan_layers=True))
    transform = at_hand.make_optimizer(optimizer)
    partitioner = Partitioner(PartitionConfig(), jax.devices()[:1])
    source = detect.open_checkpoint(str(place))
    state = restore.first_state(source, model, transform, partitioner, optimizer)
    saver = checkpoints.Checkpointer(model_dir)
    saver.save(state._replace(step=state.step + SAVED_STEP), SAVED_STEP)
    saver.close()
    return str(model_dir)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("place", "optimizer"),
    [
        ("v1_1_untied/t5x", "adafactor"),
        ("wide/t5x", "adafactor"),
        ("v1_0_tied/t5x_adamw", "adamw"),
    ],
)
def test_t5x_to_scanned_layers_of_ours_to_t5x(tmp_path, layout, place, optimizer):
    config = (T5_VARIANTS | {"wide": WIDE})[place.split("/")[0]]
    path = _scanned_run(FOLDER / place, config, optimizer, tmp_path / "ours")
    t5x_layouts.write(detect.open_checkpoint(path), str(tmp_path / "t5x"), layout)
    found = _restored(tmp_path / "t5x", config, optimizer, SAVED_STEP)
    expected = _restored(FOLDER / place, config, optimizer, SAVED_STEP)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_a_fresh_state_is_t5xs_own(tmp_path, layout, optimizer):
    config = T5_VARIANTS["v1_0_untied"]
    source = optimizer_state.restarted(at_hand.in_memory(draw_weights(config)), optimizer)
    t5x_layouts.write(source, str(tmp_path), layout)
    model, _ = t5x_model.of_case(SAVED[optimizer], config)
    expected = t5x_model.first_state(model, draw_weights(config)).state_dict()
    found = _restored(tmp_path, config, optimizer, 0)
    jax.tree.map(np.testing.assert_array_equal, found, jax.device_get(expected))


def test_scanned_layers_are_refused_by_name(tmp_path):
    from t5x import train_state
    from t5x.examples.scalable_t5 import network as scalable

    config = T5_VARIANTS["v1_1_untied"]
    model = t5x_model.of_case(SAVED["adamw"], config)[0]
    model.module = scalable.Transformer(scalable.T5Config(**config, scan_layers=True))
    with jax.numpy_dtype_promotion("standard"):
        shapes = {"encoder_input_tokens": (1, 1), "decoder_input_tokens": (1, 1)}
        types = dict.fromkeys(shapes, np.int32)
        variables = model.get_initial_variables(jax.random.key(0), shapes, types)
        state = train_state.FlaxOptimTrainState.create(model.optimizer_def, variables)
        state = jax.tree.map(jax.numpy.asarray, state)
        t5x_model.save(state, tmp_path / "t5x", orbax=False)
    with pytest.raises(InputError, match="of scanned layers"):
        detect.open_checkpoint(str(tmp_path / "t5x"))
