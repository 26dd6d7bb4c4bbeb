"""Checkpoints in a bucket, served by a small server of our own in the cloud's place."""

import jax
import numpy as np
import pytest

from poison_t5x.checkpoint_io import detect, restore, t5x_layouts
from poison_t5x.core.errors import InputError
from poison_t5x.model.network import Transformer
from poison_t5x.train.partitioning import PartitionConfig, Partitioner
from tests.checkpoint_io import at_hand, bucket_server
from tests.mesh_model import CONFIG

KERNEL = "encoder/layers_0/mlp/wo/kernel"


@pytest.fixture(name="bucket", scope="module")
def _bucket(tmp_path_factory):
    """The folder behind gs://bucket. TensorStore reads the address once a process."""
    root = tmp_path_factory.mktemp("bucket")
    with pytest.MonkeyPatch.context() as patch, bucket_server.serve(root) as address:
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", address)
        patch.setenv("GCE_METADATA_ROOT", "localhost:1")  # no credentials to look for
        yield root


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_a_public_layout_is_written_to_and_read_from_a_bucket(bucket, optimizer):
    source = at_hand.random_source(CONFIG, optimizer)
    path = t5x_layouts.write(source, f"gs://bucket/{optimizer}", "t5x")
    assert path == f"gs://bucket/{optimizer}/checkpoint_7"
    assert (bucket / optimizer / "checkpoint_7" / "checkpoint").is_file()
    opened = detect.open_checkpoint(path)
    at_hand.assert_same(opened, source, ignore_momentum=True)
    part = (slice(3, 9), slice(5, 16))
    assert np.array_equal(opened.read(KERNEL, part), source.read(KERNEL)[part])
    with pytest.raises(InputError, match="is there already"):
        t5x_layouts.write(source, f"gs://bucket/{optimizer}", "t5x")


def test_from_a_bucket_straight_into_shards(bucket):
    source = at_hand.random_source(CONFIG)
    path = t5x_layouts.write(source, "gs://bucket/sharded", "t5x")
    partitioner = Partitioner(PartitionConfig(4, 1, 2), jax.devices())
    params = restore.restore_params(detect.open_checkpoint(path), Transformer(CONFIG), partitioner)
    for name, array in at_hand.flat_arrays(params).items():
        assert array.tobytes() == source.read(name).tobytes(), name


def test_an_orbax_checkpoint_is_read_from_a_bucket(bucket):
    source = at_hand.random_source(CONFIG)
    t5x_layouts.write(source, str(bucket / "orbax"), "t5x-orbax")  # copied there, as a user would
    at_hand.assert_same(detect.open_checkpoint("gs://bucket/orbax/checkpoint_7"), source)
    for layout in ("t5x-orbax", "poison-t5x"):
        with pytest.raises(InputError, match="copy the folder there"):
            t5x_layouts.write(source, "gs://bucket/refused", layout)


def test_a_tensor_that_a_bucket_lacks_is_named(bucket):
    source = at_hand.random_source(CONFIG)
    path = t5x_layouts.write(source, "gs://bucket/lacking", "t5x")
    (bucket / "lacking" / "checkpoint_7" / f"target.{KERNEL.replace('/', '.')}" / "0.0").unlink()
    with pytest.raises(InputError, match=f"the tensor {KERNEL} is damaged: chunks"):
        detect.open_checkpoint(path).read(KERNEL)


def test_nothing_there_is_named(bucket):
    with pytest.raises(InputError) as caught:
        detect.open_checkpoint("gs://bucket/nothing")
    assert "INITIAL_CHECKPOINT_PATH: gs://bucket/nothing holds no checkpoint" in str(caught.value)
    assert "checkpoint_1100000" in str(caught.value)
