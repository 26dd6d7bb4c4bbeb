"""A topology's devices, without the TPU: libtpu describes them, and compiles for them."""

import importlib.util
import os

from poison_t5x.core import errors
from poison_t5x.tools.precompile import chips

# What keeps libtpu from looking for a TPU, its hosts or a metadata server. JAX runs on the CPU.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_SKIP_MDS_QUERY": "1",
    # Of any host: libtpu says on the terminal that it knows none otherwise.
    "TPU_ACCELERATOR_TYPE": "v4-8",
    "TPU_LOG_DIR": "disabled",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    # Two commands may compile at once: no TPU is taken.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def prepare() -> None:
    """Sets the environment; before JAX is imported.

    Raises:
      InputError: libtpu isn't installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise errors.InputError(
            "precompile needs libtpu, TPU's compiler, which runs on any x86-64 Linux: "
            "pip install 'poison-t5x[tpu]'"
        )
    os.environ.update(ENVIRONMENT)


def devices(topology: str) -> list:
    """The devices of 'v5p:4x4x2', a chip each.

    Raises:
      InputError: libtpu knows no such topology.
    """
    chip = chips.of_topology(topology)
    from jax.experimental import topologies

    options = {"chip_config_name": chip.config} if chip.config else {}
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=topology, **options
        ).devices
    except Exception as error:  # JAX's class for it is private
        reason = str(error).strip().splitlines()[0]
        raise errors.InputError(f"--topology: {topology!r}: {reason}") from None
    return list(found)
