"""Compiles a step for a topology, and measures what came of it."""

import dataclasses
import math
import re
import time
from typing import Any

import jax

from poison_t5x.model import network
from poison_t5x.tools.footprint import memory
from poison_t5x.tools.footprint.flops import Flops
from poison_t5x.tools.footprint.setup import Setup
from poison_t5x.tools.precompile import chips, hlo, programs, roofline, topology, traffic
from poison_t5x.train import train_state

_NEEDED = re.compile(r"HLO temporaries \(([\d.]+)([KMG])\)")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
LARGEST = 5


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A step that was compiled for a topology, or that its compiler refused.

    Attributes:
      program: 'train' or 'rank'.
      topology, num_chips, mesh: for what; the mesh as {'data': …, 'model': …}.
      parameters: numbers in the network.
      hbm_bytes: what a program may have of a chip's memory.
      memory: bytes of a device: 'arguments', 'outputs', 'aliased', 'temporaries', 'code', 'peak';
        of what the compiler refused, those of which it or arithmetic tells.
      lower_seconds, compile_seconds: here.
      flops: of all devices.
      traffic, roofline: of a device; None of what was refused.
      largest: (bytes, shape) of the largest buffers; of what the compiler refused, which names
        none, the largest parts by arithmetic (`footprint.memory`).
      settings: of the setup, as gin macros.
    """

    program: str
    topology: str
    num_chips: int
    mesh: dict[str, int]
    parameters: int
    hbm_bytes: int
    memory: dict[str, int]
    lower_seconds: float
    compile_seconds: float
    flops: Flops
    traffic: traffic.Traffic | None
    roofline: roofline.Roofline | None
    largest: list[tuple[int, str]]
    settings: dict[str, Any]

    @property
    def fits(self) -> bool:
        """Whether the compiler took it and its peak is within the memory."""
        return self.roofline is not None and self.memory["peak"] <= self.hbm_bytes

    @property
    def spare(self) -> float:
        """The share of a chip's memory that is left at the peak; below 0 where it doesn't fit."""
        return 1 - self.memory["peak"] / self.hbm_bytes


def compile_for(setup: Setup, program: str, name: str) -> Outcome:
    """Compiles 'train' or 'rank' for a topology such as 'v5p:4x4x2'.

    Raises:
      InputError: the topology is unknown, or the settings don't fit the number of its chips.
    """
    chip, devices = chips.of_topology(name), topology.devices(name)
    mesh = programs.partitioner(setup, devices)
    begin = time.monotonic()
    lowered = programs.lower(setup, program, mesh)
    lowered_at = time.monotonic()
    abstract = train_state.abstract_params(network.Transformer(setup.model), mesh)
    common = {
        "program": program,
        "topology": name,
        "num_chips": len(devices),
        "mesh": dict(mesh.mesh.shape),
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract)),
        "hbm_bytes": chip.hbm_bytes,
        "lower_seconds": lowered_at - begin,
        "flops": setup.flops(program),
        "settings": settings(setup),
    }
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        sizes, largest = _refused(str(error), setup, common["mesh"])
        return Outcome(
            **common,
            memory=sizes,
            compile_seconds=time.monotonic() - lowered_at,
            traffic=None,
            roofline=None,
            largest=largest,
        )
    seconds = time.monotonic() - lowered_at
    parsed = hlo.Program(compiled.as_text())
    moved = traffic.measure(parsed)
    return Outcome(
        **common,
        memory=_memory(compiled.memory_analysis()),
        compile_seconds=seconds,
        traffic=moved,
        roofline=roofline.roofline(common["flops"], moved, chip, len(devices)),
        largest=_largest(parsed),
    )


def _memory(analysis) -> dict[str, int]:
    return {
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes,
        "aliased": analysis.alias_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
        "code": analysis.generated_code_size_in_bytes,
        "peak": analysis.peak_memory_in_bytes,
    }


def _largest(program: hlo.Program) -> list[tuple[int, str]]:
    """The largest arrays that instructions make in HBM, each size and shape once."""
    found = {
        (array.nbytes, f"{array.dtype}[{','.join(map(str, array.shape))}]")
        for run in program.runs()
        if run.instruction.opcode not in ("parameter", "get-tuple-element", "tuple", "while")
        for array in run.instruction.arrays
        if array.space == 0
    }
    return sorted(found, reverse=True)[:LARGEST]


def _refused(
    message: str, setup: Setup, mesh: dict[str, int]
) -> tuple[dict[str, int], list[tuple[int, str]]]:
    """Memory and the largest parts of what doesn't fit: the compiler's words, and arithmetic."""
    parts = memory.footprint(setup, mesh["data"])
    arguments = parts.parameters + parts.optimizer_state
    # What it calls temporaries are arguments and results too.
    told = _NEEDED.search(message)
    peak = int(float(told[1]) * _UNITS[told[2]]) if told else parts.total
    sizes = {"arguments": arguments, "temporaries": max(0, peak - arguments), "peak": peak}
    return sizes, [(size, name.replace("_", " ")) for name, size in parts.largest()[:LARGEST]]


def settings(setup: Setup) -> dict[str, Any]:
    """The settings that decide about memory and time, under their macros' names."""
    return {
        "BATCH_SIZE": setup.batch_size,
        "NUM_MICROBATCHES": setup.num_microbatches,
        "NUM_PARTITIONS": setup.partition.num_partitions,
        "PARAMETER_PARTITIONING_DIMS": setup.partition.parameter_partitioning_dims,
        "ACTIVATION_PARTITIONING_DIMS": setup.partition.activation_partitioning_dims,
        "REMAT_POLICY": setup.model.remat_policy,
        "SCAN_LAYERS": setup.model.scan_layers,
        "ACTIVATION_DTYPE": setup.model.dtype,
        "PARAMETER_DTYPE": setup.model.param_dtype,
        "OPTIMIZER": setup.optimizer.name,
    }
