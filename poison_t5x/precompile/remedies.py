"""Settings that would make a step need less memory, as far as they are still open."""

import dataclasses

from poison_t5x.model.config import REMAT_POLICIES
from poison_t5x.precompile.programs import Setup


def remedies(setup: Setup, num_devices: int) -> list[tuple[str, str]]:
    """(gin flag, what it does), those that cost least first."""
    found = []
    model, partition = setup.model, setup.partition
    if not model.scan_layers:
        found.append(("--gin.SCAN_LAYERS=True", "keeps products alone for the backward pass"))
    if model.dtype == "float32":
        found.append(("--gin.ACTIVATION_DTYPE=bfloat16", "halves the activations"))
    if partition.parameter_partitioning_dims == 1 and num_devices > partition.num_partitions:
        found.append(
            (
                "--gin.PARAMETER_PARTITIONING_DIMS=2",
                "shards parameters and the optimiser's state over the data axis too",
            )
        )
    if model.remat_policy != REMAT_POLICIES[-1]:
        policy = REMAT_POLICIES[REMAT_POLICIES.index(model.remat_policy) + 1]
        found.append((f"--gin.REMAT_POLICY={policy}", "keeps less for the backward pass"))
    if more := _more_microbatches(setup, num_devices):
        found.append((f"--gin.NUM_MICROBATCHES={more}", "keeps activations of fewer rows"))
    if more := _more_partitions(setup, num_devices):
        found.append((f"--gin.NUM_PARTITIONS={more}", "shares each layer by more devices"))
    if setup.optimizer.name == "adamw":
        found.append(("--gin.OPTIMIZER=adafactor", "keeps factors of the second moments alone"))
    return found


def divides(setup: Setup, num_partitions: int, num_devices: int) -> bool:
    """Whether a model axis of that size can lie over the network and the devices."""
    model = setup.model
    sizes = (num_devices, model.num_heads, model.joined_dim, model.mlp_dim, model.vocab_size)
    return all(size % num_partitions == 0 for size in sizes)


def _more_microbatches(setup: Setup, num_devices: int) -> int | None:
    num_data = num_devices // setup.partition.num_partitions
    for number in range(setup.num_microbatches + 1, setup.batch_size + 1):
        if setup.batch_size % (number * num_data) == 0:
            return number
    return None


def _more_partitions(setup: Setup, num_devices: int) -> int | None:
    for number in range(setup.partition.num_partitions + 1, num_devices + 1):
        if divides(setup, number, num_devices):
            return number
    return None


def with_settings(
    setup: Setup, num_partitions: int, dims: int, num_microbatches: int, policy: str
) -> Setup:
    """The setup on another mesh, in other microbatches, keeping other products."""
    return dataclasses.replace(
        setup,
        partition=dataclasses.replace(
            setup.partition, num_partitions=num_partitions, parameter_partitioning_dims=dims
        ),
        num_microbatches=num_microbatches,
        model=dataclasses.replace(setup.model, remat_policy=policy),
    )
