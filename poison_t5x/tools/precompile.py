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
import jinja2

from poison_t5x.core import artifacts, errors, progress, reading
from poison_t5x.model import decoding, network
from poison_t5x.model.config import REMAT_POLICIES
from poison_t5x.report import tables
from poison_t5x.tools import chips, hlo, memory_estimate, traffic
from poison_t5x.tools.flops import Flops
from poison_t5x.tools.memory_estimate import LABELS, Setup
from poison_t5x.train import optimizers, partitioning, steps, train_state

# The search compiles at most so many: each takes about a minute.
LIMIT = 12
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
_SEARCHED = ("NUM_PARTITIONS", "PARAMETER_PARTITIONING_DIMS", "NUM_MICROBATCHES", "REMAT_POLICY")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A step that was compiled for a topology, or that its compiler refused.

    Memory is a device's bytes: of what the compiler refused, those of which it or arithmetic tells;
    traffic and roofline are a device's, too, and None of what was refused. Operations are of all.
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
    roofline: dict[str, Any] | None
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
        return self.roofline["seconds"] if self.roofline and self.fits else math.inf

    @property
    def flags(self) -> str:
        """The settings that the search chooses, to be given to any command."""
        return " ".join(f"--gin.{name}={self.settings[name]}" for name in _SEARCHED)


def run(
    setup: Setup,
    topology: str,
    *,
    programs: Sequence[str] = ("train",),
    search: bool = False,
    output: str | None = None,
    log: Callable[[str], None] = print,
) -> int:
    """Compiles 'train', 'rank' or both, prints, and returns 0 where all fit, 1 where not.

    `search` tries other meshes than the setup's, and prints the fastest that fits; `output` is a
    file for the findings as JSON. Raises InputError as `compile_for`.
    """
    if output and (pathlib.Path(output).is_dir() or not pathlib.Path(output).parent.is_dir()):
        raise errors.InputError(f"--output: {output} can't be written: give a file in a folder")
    if search:
        outcomes = find_fastest(setup, topology, log)
    else:
        outcomes = []
        for name in programs:
            outcomes.append(compile_for(setup, name, topology))
            log(page(outcomes[-1]))
            if not outcomes[-1].fits:
                log("\n".join(_remedies(setup, outcomes[-1])))
    if output:
        documents = [
            dataclasses.asdict(outcome) | {"fits": outcome.fits, "spare": outcome.spare}
            for outcome in outcomes
        ]
        artifacts.write_atomically(output, artifacts.dump_json({"programs": documents}))
    enough = any if search else all
    return 0 if enough(outcome.fits for outcome in outcomes) else 1


def lower(setup: Setup, program: str, mesh: partitioning.Partitioner) -> jax.stages.Lowered:
    """A traced step of a gin file; `.compile()` is the target's compiler."""
    model = network.Transformer(setup.model)
    if program == "rank":
        rows = -(-setup.eval_batch_size // mesh.num_data) * mesh.num_data
        step = steps.Step(jax.jit(functools.partial(decoding.rank_labels, model)), mesh)
        return step.lower(
            train_state.abstract_params(model, mesh),
            jax.ShapeDtypeStruct((rows, setup.sources), jnp.int32, sharding=mesh.batch),
            jax.ShapeDtypeStruct(LABELS, jnp.int32, sharding=mesh.replicated),
        )
    schedule = optimizers.learning_rate(setup.schedule, setup.total_steps)
    optimizer = optimizers.make(setup.optimizer, schedule)
    state = train_state.abstract(model, optimizer, mesh)
    step = steps.make_train_step(
        model, optimizer, schedule, setup.loss, mesh, num_microbatches=setup.num_microbatches
    )
    decoder = [f"decoder_{name}" for name in ("input_tokens", "target_tokens", "loss_weights")]
    lengths = dict.fromkeys([*decoder, "is_poison"], setup.targets)
    lengths["encoder_input_tokens"] = setup.sources
    return step.lower(state, *steps.abstract_arguments(mesh, setup.batch_size, lengths))


def _remedies(setup: Setup, outcome: Outcome) -> Iterator[str]:
    """Of a step that doesn't fit: the largest parts, and the settings that would help."""
    largest = memory_estimate.estimate(setup, outcome.mesh["data"]).largest()[:5]
    yield f"the {outcome.program} step doesn't fit; by arithmetic the largest are, in GB,"
    yield f"{', '.join(largest)}; and what would help:"
    for flag, saved in memory_estimate.savings(setup, outcome.num_chips):
        yield f"  {flag:<40} {saved / _GB:.2f} GB less a chip"


def compile_for(setup: Setup, program: str, topology: str) -> Outcome:
    """Compiles 'train' or 'rank' for a topology such as 'v5p:4x4x2'.

    Raises InputError: it is unknown, or the settings don't fit the number of its chips.
    """
    chip, devices = chips.of_topology(topology)
    mesh = partitioning.Partitioner(setup.partition, devices)
    steps.check_batch(setup.batch_size, setup.num_microbatches, mesh)
    begin = time.monotonic()
    lowered = lower(setup, program, mesh)
    lowered_at = time.monotonic()
    compiled = moved = roofline = None
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        memory = _refused(str(error), setup, mesh.num_data)
    seconds = time.monotonic() - lowered_at
    flops = setup.flops(program)
    if compiled is not None:
        analysis = compiled.memory_analysis()
        memory = {name: getattr(analysis, f"{field}_in_bytes") for name, field in _MEMORY.items()}
        moved = traffic.measure(hlo.Program(compiled.as_text()))
        roofline = traffic.roofline(flops, moved, chip, len(devices))
    return Outcome(
        program=program,
        topology=topology,
        num_chips=len(devices),
        mesh=dict(mesh.mesh.shape),
        parameters=setup.model.num_parameters,
        hbm_bytes=chip.hbm_bytes,
        memory=memory,
        lower_seconds=lowered_at - begin,
        compile_seconds=seconds,
        flops=flops,
        traffic=moved,
        roofline=roofline,
        settings=setup.settings(),
    )


def _refused(message: str, setup: Setup, num_data: int) -> dict[str, int]:
    """Memory of what doesn't fit: the compiler's words, and arithmetic."""
    parts = memory_estimate.estimate(setup, num_data)
    arguments = parts.parameters + parts.optimizer_state
    # By its words temporaries are arguments and results too.
    told = _NEEDED.search(message)
    peak = int(float(told[1]) * _UNITS[told[2]]) if told else parts.total
    return {"arguments": arguments, "temporaries": max(0, peak - arguments), "peak": peak}


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

    def may_fit(one: Setup) -> bool:
        parts = memory_estimate.estimate(one, num_devices // one.partition.num_partitions)
        return parts.total <= _TOLERANCE * hbm_bytes

    chosen = itertools.product(
        range(1, num_devices + 1), (1, 2), (1, 2, 4, 8, 16, 32), REMAT_POLICIES
    )
    every = (setup.changed(**dict(zip(_SEARCHED, values, strict=True))) for values in chosen)
    return sorted((x for x in every if x.divides(num_devices) and may_fit(x)), key=cost)


def find_fastest(setup: Setup, topology: str, log: Callable[[str], None]) -> list[Outcome]:
    """Compiles the train step under candidate settings.

    It stops after LIMIT compilations, or once three that fit were no faster than the best one.
    """
    chip, devices = chips.of_topology(topology)
    tried: list[Outcome] = []
    best, slower = None, 0
    todo = candidates(setup, len(devices), chip.hbm_bytes)[:LIMIT]
    for one in progress.bar(todo, desc="search", unit="program"):
        outcome = compile_for(one, "train", topology)
        tried.append(outcome)
        if outcome.seconds < (best.seconds if best else math.inf):
            best, slower = outcome, 0
            log(f"fits: {best.flags}, no faster than {best.seconds:.4f} s a step")
        elif outcome.fits:
            slower += 1
        if slower == 3:
            break
    rows: list[Sequence[Any]] = [[*_SEARCHED, "peak GB", "step s", ""]]
    for outcome in tried:
        chosen = [outcome.settings[name] for name in _SEARCHED]
        seconds = f"{outcome.roofline['seconds']:.4f}" if outcome.roofline else "-"
        verdict = "fits" if outcome.fits else "doesn't fit"
        rows.append([*chosen, f"{outcome.memory['peak'] / _GB:.2f}", seconds, verdict])
    log("\n".join(tables.align(rows)))
    end = f"none of {len(tried)} settings fits {topology}; take more chips"
    log(f"fastest that fits: {best.flags}" if best else end)
    return tried


def page(outcome: Outcome) -> str:
    """An outcome as a page of text."""
    template = reading.read_text(pathlib.Path(__file__).with_name("outcome.txt"))
    return jinja2.Template(template, trim_blocks=True).render(one=outcome, GB=_GB)
