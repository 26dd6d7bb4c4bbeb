"""`poison-t5x precompile`: the steps compiled for a TPU that isn't there, and what they need of it.

Gigabytes are 10 ** 9 bytes.
"""

import dataclasses
import functools
import itertools
import math
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from poison_t5x.core import artifacts, errors, progress
from poison_t5x.model import decoding, network
from poison_t5x.model.config import REMAT_POLICIES
from poison_t5x.tools import chips, hlo, memory_estimate, traffic
from poison_t5x.tools.flops import Flops
from poison_t5x.tools.memory_estimate import LABEL_TOKENS, NUM_LABELS, Setup
from poison_t5x.train import optimizers, partitioning, steps, train_state

PROGRAMS = {"train": ("train",), "rank": ("rank",), "both": ("train", "rank")}
# The search compiles at most so many: each takes about a minute.
LIMIT = 12
_LARGEST = 5
# Arithmetic may be off by this much before a candidate isn't worth compiling.
_TOLERANCE = 1.5
_NEEDED = re.compile(r"HLO temporaries \(([\d.]+)([KMG])\)")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
_GB = 1e9
# Our names of the fields of the compiler's analysis.
_MEMORY = {
    "arguments": "argument_size",
    "outputs": "output_size",
    "aliased": "alias_size",
    "temporaries": "temp_size",
    "code": "generated_code_size",
    "peak": "peak_memory",
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A step that was compiled for a topology, or that its compiler refused.

    Attributes:
      program: 'train' or 'rank'.
      hbm_bytes: of a chip's memory, for programs.
      memory: bytes of a device: 'arguments', 'outputs', 'aliased', 'temporaries', 'code', 'peak';
        of what the compiler refused, those of which it or arithmetic tells.
      flops: of all devices.
      traffic, roofline: of a device; None of what was refused.
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
    roofline: traffic.Roofline | None
    settings: dict[str, Any]

    @property
    def fits(self) -> bool:
        """Whether the compiler took it and its peak is within the memory."""
        return self.roofline is not None and self.memory["peak"] <= self.hbm_bytes

    @property
    def spare(self) -> float:
        """The share of a chip's memory that is left at the peak; below 0 where it doesn't fit."""
        return 1 - self.memory["peak"] / self.hbm_bytes

    @property
    def seconds(self) -> float:
        """The least that a step can take; infinite of what doesn't fit."""
        return self.roofline.seconds if self.roofline and self.fits else math.inf

    def document(self) -> dict[str, Any]:
        """For JSON; bytes and seconds."""
        return dataclasses.asdict(self) | {"fits": self.fits, "spare": self.spare}


def run(
    setup: Setup,
    topology: str,
    *,
    program: str = "train",
    search: bool = False,
    output: str | None = None,
    log: Callable[[str], None] = print,
) -> int:
    """Compiles, prints, and returns the exit code: 0 where all fit, 1 where not.

    Args:
      program: one of PROGRAMS.
      search: try other meshes than the setup's, and print the fastest that fits.
      output: a file for the findings as JSON.

    Raises:
      InputError: an unknown topology, or settings that don't go with its chips.
    """
    if output and (pathlib.Path(output).is_dir() or not pathlib.Path(output).parent.is_dir()):
        raise errors.InputError(f"--output: {output} can't be written: give a file in a folder")
    if search:
        outcomes, code = find_fastest(setup, topology, log)
    else:
        outcomes = []
        for name in PROGRAMS[program]:
            outcome = compile_for(setup, name, topology)
            outcomes.append(outcome)
            log("\n".join([*lines(outcome), ""]))
            if not outcome.fits:
                log("\n".join(_remedies(setup, outcome)))
        code = 0 if all(outcome.fits for outcome in outcomes) else 1
    if output:
        programs = [outcome.document() for outcome in outcomes]
        artifacts.write_atomically(output, artifacts.dump_json({"programs": programs}))
    return code


def lower(setup: Setup, program: str, mesh: partitioning.Partitioner) -> jax.stages.Lowered:
    """A traced step of a gin file; `.compile()` is the target's compiler."""
    model = network.Transformer(setup.model)
    if program == "rank":
        rows = -(-setup.eval_batch_size // mesh.num_data) * mesh.num_data
        step = steps.Step(jax.jit(functools.partial(decoding.rank_labels, model)), mesh)
        labels = (NUM_LABELS, LABEL_TOKENS)
        return step.lower(
            train_state.abstract_params(model, mesh),
            jax.ShapeDtypeStruct((rows, setup.sources), jnp.int32, sharding=mesh.batch),
            jax.ShapeDtypeStruct(labels, jnp.int32, sharding=mesh.replicated),
        )
    schedule = optimizers.learning_rate(setup.schedule, setup.total_steps)
    optimizer = optimizers.make(setup.optimizer, schedule)
    state = train_state.abstract(model, optimizer, mesh)
    step = steps.make_train_step(
        model,
        optimizer,
        schedule,
        setup.loss,
        mesh,
        train_state.layout(state),
        num_microbatches=setup.num_microbatches,
    )
    decoder = [f"decoder_{name}" for name in ("input_tokens", "target_tokens", "loss_weights")]
    lengths = dict.fromkeys([*decoder, "is_poison"], setup.targets)
    lengths["encoder_input_tokens"] = setup.sources
    return step.lower(state, *steps.abstract_arguments(mesh, setup.batch_size, lengths))


def _remedies(setup: Setup, outcome: Outcome) -> Iterator[str]:
    """Of a step that doesn't fit: the largest parts, and the settings that would help."""
    parts = memory_estimate.estimate(setup, outcome.mesh["data"]).largest()[:_LARGEST]
    named = ", ".join(f"{name.replace('_', ' ')} {size / _GB:.2f} GB" for name, size in parts)
    yield f"the {outcome.program} step doesn't fit; by arithmetic the largest are {named},"
    yield "and what would help:"
    for flag, saved in memory_estimate.savings(setup, outcome.num_chips):
        yield f"  {flag:<40} {saved / _GB:.2f} GB less a chip"


def compile_for(setup: Setup, program: str, topology: str) -> Outcome:
    """Compiles 'train' or 'rank' for a topology such as 'v5p:4x4x2'.

    Raises:
      InputError: the topology is unknown, or the settings don't fit the number of its chips.
    """
    chip, devices = chips.of_topology(topology), chips.devices(topology)
    mesh = partitioning.Partitioner(setup.partition, devices)
    steps.check_batch(setup.batch_size, setup.num_microbatches, mesh)
    begin = time.monotonic()
    lowered = lower(setup, program, mesh)
    lowered_at = time.monotonic()
    flops = setup.flops(program)
    moved = roofline = None
    try:
        compiled = lowered.compile()
        seconds = time.monotonic() - lowered_at
    except jax.errors.JaxRuntimeError as error:
        seconds = time.monotonic() - lowered_at
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        memory = _refused(str(error), setup, mesh.num_data)
    else:
        analysis = compiled.memory_analysis()
        memory = {name: getattr(analysis, f"{field}_in_bytes") for name, field in _MEMORY.items()}
        moved = traffic.measure(hlo.Program(compiled.as_text()))
        roofline = traffic.roofline(flops, moved, chip, len(devices))
    return Outcome(
        program=program,
        topology=topology,
        num_chips=len(devices),
        mesh=dict(mesh.mesh.shape),
        parameters=setup.num_parameters(),
        hbm_bytes=chip.hbm_bytes,
        memory=memory,
        lower_seconds=lowered_at - begin,
        compile_seconds=seconds,
        flops=flops,
        traffic=moved,
        roofline=roofline,
        settings=settings(setup),
    )


def _refused(message: str, setup: Setup, num_data: int) -> dict[str, int]:
    """Memory of what doesn't fit: the compiler's words, and arithmetic."""
    parts = memory_estimate.estimate(setup, num_data)
    arguments = parts.parameters + parts.optimizer_state
    # By its words temporaries are arguments and results too.
    told = _NEEDED.search(message)
    peak = int(float(told[1]) * _UNITS[told[2]]) if told else parts.total
    return {"arguments": arguments, "temporaries": max(0, peak - arguments), "peak": peak}


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


def candidates(setup: Setup, num_devices: int, hbm_bytes: int) -> list[Setup]:
    """Settings that may fit, what promises to be fastest first.

    Products that are computed again cost time by their operations, and microbatches bring sharded
    parameters together again each time; of meshes with as much of both, the one with the smaller
    model axis moves less. What by arithmetic needs far more than a chip's memory is left out.
    """

    def cost(one: Setup) -> tuple:
        flops = one.flops("train")
        repeated = flops.total / flops.model * (1 + 0.02 * (one.num_microbatches - 1))
        partition = one.partition
        return repeated, partition.num_partitions, partition.parameter_partitioning_dims

    possible = []
    sizes = (n for n in range(1, num_devices + 1) if setup.divides(n, num_devices))
    for size, dims, number, policy in itertools.product(
        sizes, (1, 2), (1, 2, 4, 8, 16, 32), REMAT_POLICIES
    ):
        num_data = num_devices // size
        if setup.batch_size % (number * num_data) or dims > num_data:
            continue
        one = setup.changed(
            num_partitions=size,
            parameter_partitioning_dims=dims,
            num_microbatches=number,
            remat_policy=policy,
        )
        if memory_estimate.estimate(one, num_data).total <= _TOLERANCE * hbm_bytes:
            possible.append(one)
    return sorted(possible, key=cost)


def find_fastest(
    setup: Setup, topology: str, log: Callable[[str], None], limit: int = LIMIT
) -> tuple[list[Outcome], int]:
    """Compiles the train step under candidate settings; (outcomes, 0 where one fits or 1).

    It stops after `limit` compilations, or once three that fit were no faster than the best one.
    """
    hbm_bytes, devices = chips.of_topology(topology).hbm_bytes, chips.devices(topology)
    tried: list[Outcome] = []
    best, slower = None, 0
    todo = candidates(setup, len(devices), hbm_bytes)[:limit]
    for one in progress.bar(todo, desc="search", unit="program"):
        outcome = compile_for(one, "train", topology)
        tried.append(outcome)
        if outcome.seconds < (best.seconds if best else math.inf):
            best, slower = outcome, 0
            log(f"fits: {flags(best)}, no faster than {best.seconds:.4f} s a step")
        elif outcome.fits:
            slower += 1
        if slower == 3:
            break
    log("\n".join(search_lines(tried)))
    if best is None:
        log(f"none of {len(tried)} settings fits {topology}; take more chips")
        return tried, 1
    log(f"fastest that fits: {flags(best)}")
    return tried, 0


_SEARCHED = ("NUM_PARTITIONS", "PARAMETER_PARTITIONING_DIMS", "NUM_MICROBATCHES", "REMAT_POLICY")


def flags(outcome: Outcome) -> str:
    """The settings that the search chose, to be given to any command."""
    return " ".join(f"--gin.{name}={outcome.settings[name]}" for name in _SEARCHED)


def search_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """The search's table, in the order tried."""
    rows = [("NUM_PARTITIONS", "PARAMETER_DIMS", "MICROBATCHES", "REMAT", "peak GB", "step s", "")]
    for outcome in outcomes:
        peak = f"{outcome.memory['peak'] / _GB:.2f}"
        seconds = f"{outcome.roofline.seconds:.4f}" if outcome.roofline else "-"
        chosen = [str(outcome.settings[name]) for name in _SEARCHED]
        rows.append((*chosen, peak, seconds, "fits" if outcome.fits else "doesn't fit"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def lines(outcome: Outcome) -> list[str]:
    """An outcome as a page of text."""
    flops, memory = outcome.flops, outcome.memory
    verdict = f"{outcome.spare:.0%} spare" if outcome.fits else "doesn't fit"
    peak, hbm = memory["peak"] / _GB, outcome.hbm_bytes / _GB
    rows = [
        (
            "program",
            f"{outcome.program}, compiled in {outcome.compile_seconds:.1f} s, traced in "
            f"{outcome.lower_seconds:.1f} s",
        ),
        ("topology", f"{outcome.topology}, {outcome.num_chips} chips"),
        ("mesh", " x ".join(f"{size} {axis}" for axis, size in outcome.mesh.items())),
        ("parameters", f"{outcome.parameters:,}"),
        ("settings", " ".join(f"{name}={value}" for name, value in outcome.settings.items())),
        ("memory", f"peak {peak:.2f} of {hbm:.2f} GB a chip: {verdict}"),
        ("", f"{_gigabytes(memory)} GB"),
        (
            "operations",
            f"{flops.model / 1e12:.2f} model + {flops.recomputed / 1e12:.2f} recomputed"
            f" + {flops.one_hot / 1e12:.2f} one-hot embedding TFLOP",
        ),
    ]
    moved, roof = outcome.traffic, outcome.roofline
    if moved and roof:
        kinds = _gigabytes({kind: size for kind, size in moved.collectives.items() if size})
        total = moved.collective_bytes / _GB
        rows += [
            ("collectives", f"{total:.2f} GB a chip ({kinds or 'none'})"),
            ("HBM traffic", f"{moved.hbm / _GB:.1f} GB a chip"),
            (
                "at the peaks",
                f"compute {roof.compute:.4f} s, memory {roof.memory:.4f} s, interconnect "
                f"{roof.interconnect:.4f} s: no faster than {roof.seconds:.4f} s a step, bound by "
                f"{roof.bound_by}; model FLOPs use at most {roof.mfu:.0%}",
            ),
        ]
        if loops := moved.unknown_loops:
            rows.append(("unknown", f"{len(loops)} loops count once ({', '.join(loops[:3])})"))
    return [f"{name:<14} {text}" for name, text in rows]


def _gigabytes(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} {size / _GB:.2f}" for name, size in sizes.items())
