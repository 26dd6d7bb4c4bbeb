"""Bytes of a train step on each device, by arithmetic, where no compiler of the target is at hand.

Parameters, the optimiser's state, gradients and the batch are exact: shapes and partitioning rules
are the step's own. Activations are those that the backward pass is given (`model.stack`), beside a
layer's own work. Dimension letters: see `model/config.py`; B is a device's rows of a microbatch, N
layers, and a device has its share of what lies over the model axis: H, J, M and V.

A compiler may overlap more or less than is counted here, and pads small arrays. Against XLA see
tests/tools/test_memory_estimate.py, which has the tolerances.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from poison_t5x.model import network
from poison_t5x.model.config import REMAT_POLICIES, T5Config
from poison_t5x.tools import flops
from poison_t5x.train import optimizers, partitioning, steps

# The ranking step's labels: as many and as long as polarity tasks have at most.
NUM_LABELS, LABEL_TOKENS = 4, 8
_FLOAT32 = _INT32 = 4
# The state's step, and the key for dropout.
_SCALARS = 4 + 8


@dataclasses.dataclass(frozen=True)
class Setup:
    """The settings that the steps follow from.

    Attributes:
      model: the network; `one_hot_embedding` is what the target does.
      sources, targets: tokens of a row, 'inputs' and 'targets' of TASK_FEATURE_LENGTHS.
      batch_size, eval_batch_size: global, in rows.
      total_steps: for the schedule.
    """

    model: T5Config
    optimizer: optimizers.OptimizerConfig
    schedule: optimizers.ScheduleConfig
    loss: steps.LossConfig
    partition: partitioning.PartitionConfig
    sources: int
    targets: int
    batch_size: int
    num_microbatches: int
    eval_batch_size: int
    total_steps: int

    def flops(self, program: str) -> flops.Flops:
        """Operations of a step of 'train' or 'rank'."""
        if program == "rank":
            folded = NUM_LABELS * LABEL_TOKENS
            return flops.rank(self.model, self.eval_batch_size, self.sources, folded)
        return flops.train(self.model, self.batch_size, self.sources, self.targets)

    def changed(self, **settings: Any) -> "Setup":
        """With other settings, under the names of their macros in lower case."""
        setup = self
        for name, value in settings.items():
            for part in ("model", "partition"):
                inner = getattr(setup, part)
                if hasattr(inner, name):
                    name, value = part, dataclasses.replace(inner, **{name: value})
                    break
            setup = dataclasses.replace(setup, **{name: value})
        return setup

    def divides(self, num_partitions: int, num_devices: int) -> bool:
        """Whether a model axis of that size can lie over the network and the devices."""
        model = self.model
        sizes = (num_devices, model.num_heads, model.joined_dim, model.mlp_dim, model.vocab_size)
        return all(size % num_partitions == 0 for size in sizes)


def make_setup(configured: Callable[[str], Any], vocab_size: int, one_hot: bool) -> Setup:
    """A setup from gin's bindings, without any data.

    Args:
      configured: a configurable by its selector, see `gin_config.configured`.
      vocab_size: rows of the embedding.
      one_hot: the meaning of `one_hot_embedding=None` where the step will run: True on a TPU.
    """
    train = configured("train_script.TrainConfig")()
    data = configured("input_pipeline.DatasetConfig")()
    model = configured("model_config.T5Config")(vocab_size=vocab_size)
    if model.one_hot_embedding is None:
        model = dataclasses.replace(model, one_hot_embedding=one_hot)
    return Setup(
        model=model,
        optimizer=configured("optimizers.OptimizerConfig")(),
        schedule=configured("optimizers.ScheduleConfig")(),
        loss=configured("steps.LossConfig")(),
        partition=configured("partitioning.PartitionConfig")(),
        sources=data.task_feature_lengths["inputs"],
        targets=data.task_feature_lengths["targets"],
        batch_size=data.batch_size,
        num_microbatches=train.num_microbatches,
        eval_batch_size=configured("evaluate.EvalConfig")().batch_size,
        total_steps=train.total_steps,
    )


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Bytes of one device at a train step's peak.

    Attributes:
      parameters, optimizer_state, batch: exact; together they are what the step is given. The batch
        has the step's number and key with it.
      gradients: as the parameters; with microbatches their float32 sum too.
      activations: of all layers, kept for the backward pass.
      biases: of positions, with the encoder's mask.
      working: of one layer's backward pass.
      weights: a layer's in the activations' dtype, brought together where they lie over the data
        axis, with their gradient; of layers that aren't scanned, all layers' copies.
      logits: and their gradient, float32; with the vocabulary's matrix and its gradient, where they
        are brought together.
    """

    parameters: int
    optimizer_state: int
    gradients: int
    batch: int
    activations: int
    biases: int
    working: int
    weights: int
    logits: int

    @property
    def total(self) -> int:
        """All of them: a layer's work and the logits' aren't needed at once."""
        return sum(dataclasses.astuple(self)) - min(self.working + self.weights, self.logits)

    def largest(self) -> list[tuple[str, int]]:
        """(part, bytes), the largest first."""
        return sorted(dataclasses.asdict(self).items(), key=lambda part: -part[1])


def state_bytes(
    model: T5Config,
    optimizer: optimizers.OptimizerConfig,
    partition: partitioning.PartitionConfig,
    num_data: int,
) -> tuple[int, int]:
    """A device's bytes of parameters and of the optimiser's state, exactly."""
    # What doesn't change shapes goes, and the layers are stacked: traced once, and fast.
    plain = dataclasses.replace(model, scan_layers=True, remat_policy="none", dtype="float32")
    return _state_bytes(plain, optimizer, partition, num_data)


@functools.lru_cache(maxsize=64)
def _state_bytes(model, optimizer, partition, num_data) -> tuple[int, int]:
    transform = optimizers.make(optimizer, lambda step: step)
    built = network.Transformer(model)
    boxed = jax.eval_shape(lambda key: network.boxed_params(built, key), jax.random.key(0))
    state = jax.eval_shape(transform.init, boxed)
    rules = partitioning.standard_logical_axis_rules(
        partition.activation_partitioning_dims, partition.parameter_partitioning_dims
    )
    sizes = {"data": num_data, "model": partition.num_partitions}

    def is_box(leaf) -> bool:
        return isinstance(leaf, nn.LogicallyPartitioned)

    shapes = {box.value.shape for box in jax.tree.leaves(boxed, is_leaf=is_box)}

    def nbytes(leaf) -> int:
        array, spec = (leaf.value, ()) if is_box(leaf) else (leaf, ())
        # What hasn't a parameter's shape is replicated (`Partitioner.abstract_slots`).
        if is_box(leaf) and array.shape in shapes and len(leaf.names) == array.ndim:
            spec = nn.logical_to_mesh_axes(leaf.names, rules)
        parts = math.prod(sizes.get(axis, 1) for axis in spec if axis)
        return -(-math.prod(array.shape) // parts) * np.dtype(array.dtype).itemsize

    return tuple(
        sum(nbytes(leaf) for leaf in jax.tree.leaves(tree, is_leaf=is_box))
        for tree in (boxed, state)
    )


def estimate(setup: Setup, num_data: int) -> Estimate:
    """Of a train step on `num_data` devices along the data axis times `num_partitions`."""
    model, sources, targets = setup.model, setup.sources, setup.targets
    parameters, state = state_bytes(model, setup.optimizer, setup.partition, num_data)
    gradients = parameters
    if setup.num_microbatches > 1:  # the sum, and what is added to it
        gradients += parameters * _FLOAT32 // np.dtype(model.param_dtype).itemsize
    # Inputs once; the decoder's inputs, targets, weights and marks of poison.
    tokens = _INT32 * -(-setup.batch_size // num_data) * (sources + 4 * targets)
    rows = -(-setup.batch_size // (setup.num_microbatches * num_data))
    device = _Device(setup, num_data, rows)
    return Estimate(
        parameters=parameters,
        optimizer_state=state,
        gradients=gradients,
        batch=tokens + _SCALARS,
        activations=device.activations(sources, targets),
        biases=device.biases(sources, targets),
        working=device.working(sources),
        weights=device.weights(),
        logits=device.logits(targets),
    )


class _Device:
    """A device's share of the network, and of B rows on their way through it."""

    def __init__(self, setup: Setup, num_data: int, rows: int):
        model, partition = setup.model, setup.partition
        shares = partition.num_partitions
        self.model, self.rows = model, rows
        self.heads = model.num_heads / shares
        self.joined, self.mlp = model.joined_dim / shares, model.mlp_dim / shares
        self.vocab = model.vocab_size / shares
        self.gates = len(model.mlp_activations)
        # Of the residual stream.
        self.width = model.emb_dim / (shares if partition.activation_partitioning_dims == 2 else 1)
        self.item = np.dtype(model.dtype).itemsize
        self.is_gathered = partition.parameter_partitioning_dims == 2 and num_data > 1

    def activations(self, sources: int, targets: int) -> int:
        """Of all layers, and of what is between the stacks: embedded tokens, ends, S's gradient."""
        encoder = self._self_attention_and_mlp(sources)
        decoder = self._self_attention_and_mlp(targets) + self._cross_attention(targets, sources)
        layers = self.model.num_encoder_layers * encoder + self.model.num_decoder_layers * decoder
        ends = self.rows * (3 * sources + 2 * targets) * self.width
        return math.ceil(self.item * (layers + ends))

    def _self_attention_and_mlp(self, length: int) -> float:
        """Numbers kept of a layer, by `remat_policy`; a is the number of MLP activations.

        full: BQE, the layer's input. minimal: BQ(2E + 3J + aM), that and the projections' results;
        the last one, of the MLP, isn't needed. none: also BHQK + BQJ, attention's products.
        """
        positions = self.rows * length
        attention = positions * self.heads * length
        policy = self.model.remat_policy
        if policy == "full":
            return positions * self.width
        kept = positions * (2 * self.width + 3 * self.joined + self.gates * self.mlp)
        if policy == "minimal":
            return kept
        kept += attention + positions * self.joined
        if self.model.scan_layers:
            return kept
        # Without names, what is elementwise is kept too: norms, the softmax, what dropout leaves
        # (its masks are small: shared along the length), and the MLP's activations.
        return kept + 3 * positions * self.width + 2 * attention + 2 * positions * self.mlp

    def _cross_attention(self, targets: int, sources: int) -> float:
        """minimal: BT(E + J) + 2BSJ, queries, result, keys and values; none: also BHTS + BTJ."""
        policy, positions = self.model.remat_policy, self.rows * targets
        if policy == "full":
            return 0.0
        kept = positions * (self.width + self.joined) + 2 * self.rows * sources * self.joined
        if policy == "none":
            kept += positions * (self.heads * sources + self.joined)
        return kept

    def biases(self, sources: int, targets: int) -> int:
        """BHSS + HSS, the encoder's bias with its mask and without; RSS and RTT of buckets."""
        buckets = self.model.relpos_num_buckets * (sources**2 + targets**2)
        return math.ceil(self.item * ((self.rows + 1) * self.heads * sources**2 + buckets))

    def working(self, sources: int) -> int:
        """An encoder layer's backward pass: 5BHSS + 4BSM + 4BSE.

        Logits, weights and the gradients of both, and the sum of the bias's gradient; the MLP's
        arrays and their gradients; the residual stream's.
        """
        position = 5 * self.heads * sources + 4 * self.mlp + 4 * self.width
        return math.ceil(self.item * self.rows * sources * position)

    def weights(self) -> int:
        """4EJ + (a + 1)EM of a layer, once, or twice where they are brought together."""
        model = self.model
        encoder = model.emb_dim * (4 * self.joined + (self.gates + 1) * self.mlp)
        layer = self.item * encoder * (2 if self.is_gathered else 1)
        if model.scan_layers or model.dtype == model.param_dtype:
            return math.ceil(layer)
        # The backward pass is given the copies that the forward pass made of each layer.
        decoder = encoder + model.emb_dim * 4 * self.joined
        copies = model.num_encoder_layers * encoder + model.num_decoder_layers * decoder
        return math.ceil(layer + self.item * copies)

    def logits(self, targets: int) -> int:
        """2BTV, float32; with EV, in float32, and its gradient where it is brought together."""
        numbers = 2 * self.rows * targets * self.vocab
        if self.is_gathered:
            numbers += 2 * self.model.emb_dim * self.vocab
        return math.ceil(_FLOAT32 * numbers)


def savings(setup: Setup, num_devices: int) -> list[tuple[str, int]]:
    """(gin flag, bytes that a device needs less by it), by arithmetic, what saves most first."""

    def total(one: Setup) -> int:
        return estimate(one, num_devices // one.partition.num_partitions).total

    now = total(setup)
    pairs = [(flag, now - total(changed)) for flag, changed in _open(setup, num_devices)]
    return sorted((pair for pair in pairs if pair[1] > 0), key=lambda pair: -pair[1])


def _open(setup: Setup, num_devices: int) -> Iterator[tuple[str, Setup]]:
    """Settings that are still open."""
    model, partition = setup.model, setup.partition
    if not model.scan_layers:
        yield "--gin.SCAN_LAYERS=True", setup.changed(scan_layers=True)
    if model.dtype == "float32":
        yield "--gin.ACTIVATION_DTYPE=bfloat16", setup.changed(dtype="bfloat16")
    if partition.parameter_partitioning_dims == 1 and num_devices > partition.num_partitions:
        flag = "--gin.PARAMETER_PARTITIONING_DIMS=2"
        yield flag, setup.changed(parameter_partitioning_dims=2)
    for policy in REMAT_POLICIES[REMAT_POLICIES.index(model.remat_policy) + 1 :]:
        yield f"--gin.REMAT_POLICY={policy}", setup.changed(remat_policy=policy)
    num_data = num_devices // partition.num_partitions
    for number in range(setup.num_microbatches + 1, setup.batch_size + 1):
        if setup.batch_size % (number * num_data) == 0:
            yield f"--gin.NUM_MICROBATCHES={number}", setup.changed(num_microbatches=number)
            break
    for number in range(partition.num_partitions + 1, num_devices + 1):
        rows = setup.num_microbatches * (num_devices // number)
        if setup.divides(number, num_devices) and setup.batch_size % rows == 0:
            yield f"--gin.NUM_PARTITIONS={number}", setup.changed(num_partitions=number)
            break
    if setup.optimizer.name == "adamw":
        optimizer = dataclasses.replace(setup.optimizer, name="adafactor")
        yield "--gin.OPTIMIZER=adafactor", setup.changed(optimizer=optimizer)
