"""Meshes and logical axis rules: which array axis lies over which mesh axis. T5X's names."""

import contextlib
import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from flax import linen as nn
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from poison_t5x.core import checks, errors

Rules = tuple[tuple[str, str | None], ...]


def standard_logical_axis_rules(
    activation_partitioning_dims: int = 1, parameter_partitioning_dims: int = 1
) -> Rules:
    """T5X's standard rules.

    Two activation dims also put activations' 'embed' over the model axis, two parameter dims
    parameters' 'embed' over the data axis.
    """
    embed: list[tuple[str, str | None]] = []
    if activation_partitioning_dims == 2:
        embed.append(("embed", "model"))
    if parameter_partitioning_dims == 2:
        embed.append(("embed", "data"))
    return (
        ("batch", "data"),
        ("vocab", "model"),
        ("mlp", "model"),
        ("heads", "model"),
        ("kv", None),
        ("joined_kv", "model"),
        *(embed or [("embed", None)]),
        ("relpos_buckets", None),
        ("length", None),
        ("layers", None),
        ("stack", None),
    )


@dataclasses.dataclass(frozen=True)
class PartitionConfig:
    """How the devices are laid out: `num_partitions` along the mesh's model axis, the rest along
    its data axis; for the dims see the rules."""

    num_partitions: int = 1
    activation_partitioning_dims: int = 1
    parameter_partitioning_dims: int = 1

    def __post_init__(self):
        checks.whole_number("NUM_PARTITIONS", self.num_partitions)
        for name in ("activation_partitioning_dims", "parameter_partitioning_dims"):
            dims = getattr(self, name)
            if dims not in (1, 2):
                raise errors.InputError(f"{name.upper()}: expected 1 or 2, found {dims!r}")


def _name(path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _map_boxes(function, tree):
    return jax.tree_util.tree_map_with_path(
        function, tree, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)
    )


class Partitioner:
    """A mesh with its rules; everything that is laid out over devices goes through one."""

    def __init__(self, config: PartitionConfig, devices: Sequence[jax.Device] | None = None):
        devices = list(jax.devices() if devices is None else devices)
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

    def abstract(self, boxed):
        """Shape, dtype and sharding of each leaf of a tree of `nn.LogicallyPartitioned` boxes.

        Raises InputError where an axis isn't in the rules, or a dimension can't be divided.
        """

        def leaf(path, box):
            return self._placed(box.value, self._spec(_name(path), box.names, box.value.shape))

        return _map_boxes(leaf, boxed)

    def abstract_slots(self, boxed_params, boxed_state):
        """The same of an optimiser's state, made from boxed parameters.

        A leaf of its parameter's shape lies as the parameter does. Others (counts, Adafactor's
        factored statistics, which keep the parameter's box) are small, and replicated.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        _map_boxes(lambda path, box: shapes.setdefault(_name(path), box.value.shape), boxed_params)

        def leaf(path, box):
            if not isinstance(box, nn.LogicallyPartitioned):
                return self._placed(box, PartitionSpec())
            names = (_name(path[start:]) for start in range(len(path)))
            parameter = next(name for name in names if name in shapes)
            if box.value.shape != shapes[parameter]:
                return self._placed(box.value, PartitionSpec())
            return self._placed(box.value, self._spec(parameter, box.names, box.value.shape))

        return _map_boxes(leaf, boxed_state)

    def _placed(self, value, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(self.mesh, spec)
        return jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)

    def _spec(self, name: str, axes: Sequence[str], shape: Sequence[int]) -> PartitionSpec:
        known = {rule[0] for rule in self.rules}
        for axis in axes:
            if axis not in known:
                raise errors.InputError(f"{name}: no partitioning rule for its axis {axis!r}")
        spec = nn.logical_to_mesh_axes(axes, self.rules)
        for size, axis, mesh_axis in zip(shape, axes, spec, strict=True):
            if mesh_axis and size % self.mesh.shape[mesh_axis]:
                raise errors.InputError(
                    f"{name}: its {axis!r} dimension of {size} can't be divided over the "
                    f"{self.mesh.shape[mesh_axis]} devices of the mesh's {mesh_axis!r} axis; "
                    "change NUM_PARTITIONS"
                )
        return spec

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
        self, batch: dict[str, np.ndarray], shards: Sequence[int] = (0,), num_shards: int = 1
    ) -> dict[str, jax.Array]:
        """Lays rows out over the data axis: those that `shards` hold, in their order."""

        def put(rows: np.ndarray) -> jax.Array:
            size = rows.shape[0] // len(shards)
            places = {shard: number * size for number, shard in enumerate(shards)}

            def part(index):
                wanted = range(size * num_shards)[index[0]]
                # A device's rows lie in one shard, or in shards that follow each other.
                start = places[wanted.start // size] + wanted.start % size
                return rows[start : start + len(wanted)]

            shape = size * num_shards, *rows.shape[1:]
            return jax.make_array_from_callback(shape, self.batch, part)

        return {key: put(value) for key, value in batch.items()}
