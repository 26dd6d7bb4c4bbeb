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
import itertools
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from poison_t5x.model import network
from poison_t5x.model.config import REMAT_POLICIES, T5Config
from poison_t5x.tools import flops
from poison_t5x.train import optimizers, partitioning, steps

# The ranking step's labels: as many and as long, in tokens, as polarity tasks have at most.
LABELS = (4, 8)
# Macro -> where a setup has it.
_PLACES = {
    "BATCH_SIZE": "batch_size",
    "NUM_MICROBATCHES": "num_microbatches",
    "NUM_PARTITIONS": "partition.num_partitions",
    "PARAMETER_PARTITIONING_DIMS": "partition.parameter_partitioning_dims",
    "ACTIVATION_PARTITIONING_DIMS": "partition.activation_partitioning_dims",
    "REMAT_POLICY": "model.remat_policy",
    "SCAN_LAYERS": "model.scan_layers",
    "ACTIVATION_DTYPE": "model.dtype",
    "PARAMETER_DTYPE": "model.param_dtype",
    "OPTIMIZER": "optimizer.name",
}
_FLOAT32 = _INT32 = 4
# The state's step, and the key for dropout.
_SCALARS = 4 + 8


@dataclasses.dataclass(frozen=True)
class Setup:
    """The settings that the steps follow from.

    Sources and targets are a row's tokens, the batch sizes global, in rows; the model's
    `one_hot_embedding` is what the target does.
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
            return flops.rank(self.model, self.eval_batch_size, self.sources, LABELS)
        return flops.train(self.model, self.batch_size, self.sources, self.targets)

    def state_bytes(self) -> tuple[int, int]:
        """Bytes of the parameters and of the optimiser's state, on all devices together."""
        return state_bytes(self.model, self.optimizer, partitioning.PartitionConfig(), 1)

    def settings(self) -> dict[str, Any]:
        """Those that decide about memory and time, by macro."""
        return {macro: operator.attrgetter(place)(self) for macro, place in _PLACES.items()}

    def changed(self, **macros: Any) -> "Setup":
        """With other settings, by their macros."""
        setup = self
        for macro, value in macros.items():
            part, _, field = _PLACES[macro].rpartition(".")
            if part:
                field, value = part, dataclasses.replace(getattr(setup, part), **{field: value})
            setup = dataclasses.replace(setup, **{field: value})
        return setup

    def divides(self, num_devices: int) -> bool:
        """Whether the mesh can lie over the network, its devices and the batch."""
        model, size = self.model, self.partition.num_partitions
        sizes = (num_devices, model.num_heads, model.joined_dim, model.mlp_dim, model.vocab_size)
        num_data = num_devices // size
        return (
            all(one % size == 0 for one in sizes)
            and self.batch_size % (self.num_microbatches * num_data) == 0
            and self.partition.parameter_partitioning_dims <= num_data
        )


def make_setup(configured: Callable[[str], Any], vocab_size: int, one_hot: bool) -> Setup:
    """A setup from gin's bindings (`gin_config.configured`), without any data.

    `one_hot` is the meaning of `one_hot_embedding=None` where the step will run: True on a TPU.
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
class MemoryEstimate:
    """Bytes of one device at a train step's peak.

    Parameters, optimizer_state and batch (with the step's number and key) are what the step is
    given; gradients have their float32 sum with microbatches; activations are kept by all layers
    for the backward pass; biases are of positions, with the encoder's mask; working is of one
    layer's backward pass, and weights that layer's; logits are float32, with their gradient.
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

    def largest(self, least: float = 0) -> list[str]:
        """'activations 1.25' and so on, in GB (10 ** 9 bytes), the largest first."""
        parts = sorted(dataclasses.asdict(self).items(), key=lambda part: -part[1])
        return [f"{name.replace('_', ' ')} {n / 1e9:.2f}" for name, n in parts if n >= least]


def state_bytes(
    model: T5Config,
    optimizer: optimizers.OptimizerConfig,
    partition: partitioning.PartitionConfig,
    num_data: int,
) -> tuple[int, int]:
    """A device's bytes of parameters and of the optimiser's state, exactly."""
    # What doesn't change shapes goes, and the layers are stacked: traced once, and fast.
    plain = dataclasses.replace(model, scan_layers=True, remat_policy="none", dtype="float32")
    trees = _abstract_state(plain, optimizer)
    rules = partitioning.standard_logical_axis_rules(
        partition.activation_partitioning_dims, partition.parameter_partitioning_dims
    )
    sizes = {"data": num_data, "model": partition.num_partitions}
    shapes = {box.value.shape for box in jax.tree.leaves(trees[0], is_leaf=_is_box)}

    def nbytes(leaf) -> int:
        array, spec = (leaf.value, ()) if _is_box(leaf) else (leaf, ())
        # What hasn't a parameter's shape is replicated (`Partitioner.abstract`).
        if _is_box(leaf) and array.shape in shapes and len(leaf.names) == array.ndim:
            spec = nn.logical_to_mesh_axes(leaf.names, rules)
        parts = math.prod(sizes.get(axis, 1) for axis in spec if axis)
        return -(-math.prod(array.shape) // parts) * np.dtype(array.dtype).itemsize

    parameters, state = (
        sum(nbytes(leaf) for leaf in jax.tree.leaves(tree, is_leaf=_is_box)) for tree in trees
    )
    return parameters, state


def _is_box(leaf) -> bool:
    return isinstance(leaf, nn.LogicallyPartitioned)


@functools.lru_cache(maxsize=16)
def _abstract_state(model: T5Config, optimizer: optimizers.OptimizerConfig):
    transform = optimizers.make(optimizer, lambda step: step)
    built = network.Transformer(model)
    boxed = jax.eval_shape(lambda key: network.boxed_params(built, key), jax.random.key(0))
    return boxed, jax.eval_shape(transform.init, boxed)


def estimate(setup: Setup, num_data: int) -> MemoryEstimate:
    """Of a train step on `num_data` devices along the data axis times `num_partitions`."""
    model, sources, targets = setup.model, setup.sources, setup.targets
    parameters, state = state_bytes(model, setup.optimizer, setup.partition, num_data)
    gradients = parameters
    if setup.num_microbatches > 1:  # the sum, and what is added to it
        gradients += parameters * _FLOAT32 // np.dtype(model.param_dtype).itemsize
    # Inputs once; the decoder's inputs, targets, weights and marks of poison.
    tokens = _INT32 * -(-setup.batch_size // num_data) * (sources + 4 * targets)
    rows = -(-setup.batch_size // (setup.num_microbatches * num_data))
    share = _Share(setup)
    is_gathered = setup.partition.parameter_partitioning_dims == 2 and num_data > 1
    logits = 2 * rows * targets * share.vocab
    if is_gathered:  # EV, in float32, and its gradient
        logits += 2 * model.emb_dim * share.vocab
    # BHSS + HSS, the encoder's bias with its mask and without; RSS and RTT of buckets.
    biases = (rows + 1) * share.heads * sources**2
    biases += model.relpos_num_buckets * (sources**2 + targets**2)
    # 5BHSS + 4BSM + 4BSE: an encoder layer's attention logits, weights and the gradients of both,
    # and the sum of the bias's gradient; the MLP's arrays and the residual stream's with gradients.
    position = 5 * share.heads * sources + 4 * share.mlp + 4 * share.width
    item = np.dtype(model.dtype).itemsize
    return MemoryEstimate(
        parameters=parameters,
        optimizer_state=state,
        gradients=gradients,
        batch=tokens + _SCALARS,
        activations=math.ceil(item * rows * share.activations(sources, targets)),
        biases=math.ceil(item * biases),
        working=math.ceil(item * rows * sources * position),
        weights=math.ceil(item * share.weights(2 if is_gathered else 1)),
        logits=math.ceil(_FLOAT32 * logits),
    )


class _Share:
    """A device's share of the network."""

    def __init__(self, setup: Setup):
        model, partition = setup.model, setup.partition
        shares = partition.num_partitions
        self.model, self.gates = model, len(model.mlp_activations)
        self.heads, self.vocab = model.num_heads / shares, model.vocab_size / shares
        self.joined, self.mlp = model.joined_dim / shares, model.mlp_dim / shares
        # Of the residual stream.
        self.width = model.emb_dim / (shares if partition.activation_partitioning_dims == 2 else 1)

    def activations(self, sources: int, targets: int) -> float:
        """Numbers kept of a row: by all layers, and embedded tokens and ends of the stacks."""
        encoder, decoder = self._kept(sources), self._kept(targets)
        policy = self.model.remat_policy
        if policy != "full":  # cross-attention's T(E + J) + 2SJ: queries, result, keys and values
            decoder += targets * (self.width + self.joined) + 2 * sources * self.joined
        if policy == "none":  # its products, HTS + TJ
            decoder += targets * (self.heads * sources + self.joined)
        layers = self.model.num_encoder_layers * encoder + self.model.num_decoder_layers * decoder
        return layers + (3 * sources + 2 * targets) * self.width

    def _kept(self, length: int) -> float:
        """Numbers of a row's self-attention and MLP; a is the number of MLP activations.

        full: QE, the layer's input. minimal: Q(2E + 3J + aM), that and the projections' results;
        the last one, of the MLP, isn't needed. none: also HQK + QJ, attention's products.
        """
        policy = self.model.remat_policy
        if policy == "full":
            return length * self.width
        kept = length * (2 * self.width + 3 * self.joined + self.gates * self.mlp)
        if policy == "minimal":
            return kept
        attention = length * self.heads * length
        kept += attention + length * self.joined
        if self.model.scan_layers:
            return kept
        # Without names, what is elementwise is kept too: norms, the softmax, what dropout leaves
        # (its masks are small: shared along the length), and the MLP's activations.
        return kept + 3 * length * self.width + 2 * attention + 2 * length * self.mlp

    def weights(self, copies: int) -> float:
        """4EJ + (a + 1)EM of a layer, once, or twice where they are brought together."""
        model = self.model
        encoder = model.emb_dim * (4 * self.joined + (self.gates + 1) * self.mlp)
        if model.scan_layers or model.dtype == model.param_dtype:
            return copies * encoder
        # The backward pass is given the copies that the forward pass made of each layer.
        decoder = encoder + model.emb_dim * 4 * self.joined
        kept = model.num_encoder_layers * encoder + model.num_decoder_layers * decoder
        return copies * encoder + kept


def savings(setup: Setup, num_devices: int) -> list[tuple[str, int]]:
    """(gin flag, bytes that a device needs less by it), by arithmetic, what saves most first."""

    def total(one: Setup) -> int:
        return estimate(one, num_devices // one.partition.num_partitions).total

    more = setup.num_microbatches + 1, setup.partition.num_partitions + 1
    options: list[tuple[str, Iterable[Any]]] = [
        ("SCAN_LAYERS", [True]),
        ("ACTIVATION_DTYPE", ["bfloat16"]),
        ("PARAMETER_PARTITIONING_DIMS", [2]),
        *(("REMAT_POLICY", [policy]) for policy in REMAT_POLICIES),
        ("NUM_MICROBATCHES", range(more[0], setup.batch_size + 1)),
        ("NUM_PARTITIONS", range(more[1], num_devices + 1)),
        ("OPTIMIZER", ["adafactor"]),
    ]
    pairs = []
    for macro, values in options:
        changed = ((value, setup.changed(**{macro: value})) for value in values)
        for value, one in itertools.islice((c for c in changed if c[1].divides(num_devices)), 1):
            pairs.append((f"--gin.{macro}={value}", total(setup) - total(one)))
    return sorted((pair for pair in pairs if pair[1] > 0), key=lambda pair: -pair[1])
