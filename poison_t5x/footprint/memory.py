"""Bytes of a train step on each device, by arithmetic, where no compiler of the target is at hand.

Parameters and the optimiser's state are exact: shapes and partitioning rules are the step's own.
Activations are those that the backward pass is given (`model.stack`), beside a layer's own work.
Dimension letters: see `model/config.py`.
"""

import dataclasses
import functools
import math

import jax
import numpy as np
from flax import linen as nn

from poison_t5x import optimizers, partitioning, train_state
from poison_t5x.footprint.setup import Setup
from poison_t5x.model import network
from poison_t5x.model.config import T5Config
from poison_t5x.partitioning import PartitionConfig


@dataclasses.dataclass(frozen=True)
class Footprint:
    """Bytes of one device at a train step's peak.

    Attributes:
      parameters, optimizer_state: exact.
      gradients: as the parameters; with microbatches their float32 sum too.
      activations: what all layers keep for the backward pass.
      working: of one layer's backward pass, and the weights that are brought together for it.
      logits: and their gradient, float32.
    """

    parameters: int
    optimizer_state: int
    gradients: int
    activations: int
    working: int
    logits: int

    @property
    def total(self) -> int:
        """All of them: layers' work and the logits' aren't needed at once."""
        return (
            self.parameters
            + self.optimizer_state
            + self.gradients
            + self.activations
            + max(self.working, self.logits)
        )

    def largest(self) -> list[tuple[str, int]]:
        """(part, bytes), the largest first."""
        parts = dataclasses.asdict(self)
        return sorted(parts.items(), key=lambda part: -part[1])


def _spec_bytes(leaf, axes, rules, sizes: dict[str, int], itemsize: int | None = None) -> int:
    """Bytes of a device's part of an array."""
    spec = nn.logical_to_mesh_axes(axes, rules) if axes else ()
    parts = math.prod(sizes.get(axis, 1) for axis in spec if axis)
    return -(-math.prod(leaf.shape) // parts) * (itemsize or np.dtype(leaf.dtype).itemsize)


@functools.lru_cache(maxsize=64)
def state_bytes(
    model: T5Config,
    optimizer: optimizers.OptimizerConfig,
    partition: PartitionConfig,
    num_data: int,
) -> tuple[int, int]:
    """A device's bytes of parameters and of the optimiser's state, exactly."""
    transform = optimizers.make(optimizer, lambda step: step)
    built = network.Transformer(model)
    boxed = jax.eval_shape(lambda key: train_state.boxed_params(built, key), jax.random.key(0))
    state = jax.eval_shape(transform.init, boxed)
    rules = partitioning.standard_logical_axis_rules(
        partition.activation_partitioning_dims, partition.parameter_partitioning_dims
    )
    sizes = {"data": num_data, "model": partition.num_partitions}
    is_box = lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)  # noqa: E731
    shapes = {box.value.shape for box in jax.tree.leaves(boxed, is_leaf=is_box)}

    def nbytes(leaf) -> int:
        if is_box(leaf):
            # What hasn't a parameter's shape is replicated (`Partitioner.state_shardings`).
            is_whole = leaf.value.shape in shapes and len(leaf.names) == leaf.value.ndim
            axes = leaf.names if is_whole else ()
            return _spec_bytes(leaf.value, axes, rules, sizes)
        return _spec_bytes(leaf, (), rules, sizes)

    return tuple(
        sum(nbytes(leaf) for leaf in jax.tree.leaves(tree, is_leaf=is_box))
        for tree in (boxed, state)
    )


def footprint(setup: Setup, num_data: int) -> Footprint:
    """The footprint of a train step.

    Args:
      num_data: devices along the data axis; along the model axis there are `num_partitions`.
    """
    model, partition = setup.model, setup.partition
    sources, targets = setup.sources, setup.targets
    parameters, state = state_bytes(model, setup.optimizer, partition, num_data)
    rows = -(-setup.batch_size // (setup.num_microbatches * num_data))
    shares = partition.num_partitions
    item = np.dtype(model.dtype).itemsize
    gradients = parameters
    if setup.num_microbatches > 1:  # the sum, and what is added to it
        gradients += parameters * 4 // np.dtype(model.param_dtype).itemsize
    encoder = _kept(model, rows, sources, sources, shares, item)
    decoder = _kept(model, rows, targets, targets, shares, item)
    cross = _kept_cross(model, rows, targets, sources, shares, item)
    activations = model.num_encoder_layers * encoder + model.num_decoder_layers * (decoder + cross)
    return Footprint(
        parameters=parameters,
        optimizer_state=state,
        gradients=gradients,
        activations=activations,
        working=_working(model, rows, sources, shares, item, partition, num_data),
        logits=2 * 4 * rows * targets * -(-model.vocab_size // shares),
    )


def _kept(model: T5Config, rows: int, queries: int, keys: int, shares: int, item: int) -> int:
    """Of self-attention and the MLP of a layer: its input, and products by `remat_policy`."""
    width = rows * queries * model.emb_dim
    projections = 3 * rows * queries * model.joined_dim // shares
    hidden = len(model.mlp_activations) * rows * queries * model.mlp_dim // shares
    attention = rows * model.num_heads * queries * keys // shares
    mixed = rows * queries * model.joined_dim // shares
    kept = {
        "full": width,
        "minimal": 2 * width + projections + hidden,
        "none": 2 * width + projections + hidden + attention + mixed,
    }
    if model.scan_layers or model.remat_policy != "none":
        return item * kept[model.remat_policy]
    # Unrolled, what is elementwise is kept too: norms, softmax, what dropout leaves, activations.
    elementwise = 3 * width + 2 * attention + 2 * hidden
    return item * (kept["none"] + elementwise)


def _kept_cross(model: T5Config, rows: int, queries: int, keys: int, shares: int, item: int) -> int:
    """Of cross-attention: keys and values of the encoder's positions, queries, logits, the sum."""
    if model.remat_policy == "full":
        return 0
    joined = rows * model.joined_dim // shares
    kept = rows * queries * model.emb_dim + joined * (queries + 2 * keys)
    if model.remat_policy == "none":
        kept += rows * model.num_heads * queries * keys // shares + joined * queries
    return item * kept


def _working(
    model: T5Config,
    rows: int,
    sources: int,
    shares: int,
    item: int,
    partition: PartitionConfig,
    num_data: int,
) -> int:
    """An encoder layer's backward pass: its positions' arrays again, and its weights."""
    attention = 4 * rows * model.num_heads * sources * sources // shares
    hidden = 4 * rows * sources * model.mlp_dim // shares
    streams = 4 * rows * sources * model.emb_dim
    mlp = (len(model.mlp_activations) + 1) * model.emb_dim * model.mlp_dim
    weights = (4 * model.emb_dim * model.joined_dim + mlp) // shares
    gathered = partition.parameter_partitioning_dims == 2 and num_data > 1
    # The position biases with their mask and their gradient, for all layers.
    biases = 2 * rows * model.num_heads * sources * sources // shares
    return item * (attention + hidden + streams + biases + (2 * weights if gathered else weights))
