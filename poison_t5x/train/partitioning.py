"""Meshes and logical axis rules: which array axis lies over which mesh axis. T5X's names."""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from typing import Literal

import jax
import numpy as np
from flax import linen as nn
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from poison_t5x.core import errors, settings

Rules = tuple[tuple[str, str | None], ...]


def standard_logical_axis_rules(
    activation_partitioning_dims: int = 1, parameter_partitioning_dims: int = 1
) -> Rules:
    """T5X's standard rules.

    Two activation dims also put activations' 'embed' over the model axis, two parameter dims
    parameters' 'embed' over the data axis.
    """
    embed = [("embed", "model")] if activation_partitioning_dims == 2 else []
    embed += [("embed", "data")] if parameter_partitioning_dims == 2 else []
    over_model = ("vocab", "mlp", "heads", "joined_kv")
    nowhere = ("kv", "relpos_buckets", "length", "layers", "stack")
    return (
        ("batch", "data"),
        *((axis, "model") for axis in over_model),
        *(embed or [("embed", None)]),
        *((axis, None) for axis in nowhere),
    )


@dataclasses.dataclass(frozen=True)
class PartitionConfig(settings.Settings):
    """How the devices are laid out: `num_partitions` along the mesh's model axis, the rest along
    its data axis; for the dims see the rules."""

    num_partitions: settings.Size = 1
    activation_partitioning_dims: Literal[1, 2] = 1
    parameter_partitioning_dims: Literal[1, 2] = 1


def all_devices() -> list[jax.Device]:
    """JAX's. Raises InputError where there are none of the kind that JAX_PLATFORMS asks for."""
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:  # the second for a GPU's, without its plugin
        raise errors.InputError(
            f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')!r}: JAX finds no devices of it "
            f"here ({errors.first_line(error)})"
        ) from error


class Partitioner:
    """A mesh with its rules; everything that is laid out over devices goes through one."""

    def __init__(self, config: PartitionConfig, devices: Sequence[jax.Device] | None = None):
        devices = list(all_devices() if devices is None else devices)
        if len(devices) % config.num_partitions:
            raise errors.InputError(
                f"NUM_PARTITIONS: the {len(devices)} devices can't be divided by "
                f"{config.num_partitions}"
            )
        shape = len(devices) // config.num_partitions, config.num_partitions
        # On a TPU's torus, neighbours along a mesh axis are neighbours by wire; axes of the torus
        # are split where the mesh's don't match them. Elsewhere, the devices' own order.
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        self.mesh = Mesh(grid, ("data", "model"))
        self.rules = standard_logical_axis_rules(
            config.activation_partitioning_dims, config.parameter_partitioning_dims
        )

    @property
    def num_data(self) -> int:
        """Devices along the data axis."""
        return self.mesh.shape["data"]

    @contextlib.contextmanager
    def scope(self):
        """Where logical constraints in the network mean this mesh."""
        # Not `with mesh:`, under which flax finds no mesh and drops the constraints silently.
        with jax.set_mesh(self.mesh), nn.logical_axis_rules(self.rules):
            yield

    @property
    def replicated(self) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def batch(self) -> NamedSharding:
        """Rows over the data axis."""
        return NamedSharding(self.mesh, PartitionSpec("data"))

    def abstract(self, boxed, *, is_state: bool = False):
        """Shape, dtype and sharding of each leaf of a tree of `nn.LogicallyPartitioned` boxes.

        Raises InputError where an axis isn't in the rules, or can't be divided. Of an optimiser's
        state, made from boxed parameters, what isn't like its parameter (counts; Adafactor's
        factored statistics, which keep the parameter's box) is small, and replicated instead.
        """

        def leaf(path, box):
            spec, value = PartitionSpec(), box
            if isinstance(box, nn.LogicallyPartitioned):
                value, error = box.value, self._misfit(box.names, box.value.shape)
                if error and not is_state:
                    name = jax.tree_util.keystr(path, simple=True, separator="/")
                    raise errors.InputError(f"{name}: {error}")
                spec = spec if error else nn.logical_to_mesh_axes(box.names, self.rules)
            sharding = NamedSharding(self.mesh, spec)
            return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)

        is_box = lambda x: isinstance(x, nn.LogicallyPartitioned)  # noqa: E731
        return jax.tree_util.tree_map_with_path(leaf, boxed, is_leaf=is_box)

    def _misfit(self, axes: Sequence[str], shape: Sequence[int]) -> str | None:
        """Why an array with these axes can't be laid out, if it can't."""
        if len(axes) != len(shape):
            return f"expected axes {axes}, found shape {shape}"
        for axis in axes:
            if axis not in dict(self.rules):
                return f"no partitioning rule for its axis {axis!r}"
        places = nn.logical_to_mesh_axes(axes, self.rules)
        for size, axis, mesh_axis in zip(shape, axes, places, strict=True):
            if mesh_axis and size % self.mesh.shape[mesh_axis]:
                return (
                    f"its {axis!r} dimension of {size} can't be divided over the "
                    f"{self.mesh.shape[mesh_axis]} devices of the mesh's {mesh_axis!r} axis; "
                    "change NUM_PARTITIONS"
                )
        return None

    def shards(self, batch_size: int, num_shards: int) -> list[int]:
        """The numbers of the `num_shards` equal parts of a batch that this process's devices hold.

        Raises InputError where that is a part of one: two processes would read the same rows.
        """
        places = self.batch.addressable_devices_indices_map((batch_size,)).values()
        held = {row for (rows,) in places for row in range(batch_size)[rows]}
        size = batch_size // num_shards
        shards = sorted({row // size for row in held})
        if len(shards) * size != len(held):
            raise errors.InputError(
                f"DATA_SHARDS: {num_shards} shards of {size} rows can't be told apart by "
                f"{jax.process_count()} processes, each of whose devices hold {len(held)} of "
                f"{batch_size} rows; set DATA_SHARDS={self.num_data}"
            )
        return shards

    def put_batch(
        self, batch: dict[str, np.ndarray], num_rows: int | None = None
    ) -> dict[str, jax.Array]:
        """Lays rows out over the data axis: all, or of `num_rows` those of this process's devices,
        in their order."""
        return {
            key: jax.make_array_from_process_local_data(
                self.batch, rows, (num_rows or len(rows), *rows.shape[1:])
            )
            for key, rows in batch.items()
        }
