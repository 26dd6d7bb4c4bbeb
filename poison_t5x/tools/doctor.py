"""`poison-t5x doctor`: the machine, and whether a gin file goes with it (packages: `pip check`).

Modules that need packages are imported by the checks that use them: one may be missing or broken.
"""

import enum
import functools
import glob
import itertools
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from poison_t5x.core import artifacts, errors, locks, machine, paths

_GIB, _GB = 2**30, 1e9
# Seconds. A TPU alone takes several to start; a pod's host waits for the others for ever.
TIMEOUT = 30
# What JAX detects a Slurm step by.
_STEP = [f"SLURM_{name}" for name in ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID")]
# A process has more than its arrays: libraries, the data's pipeline, the compiler.
_OTHERS = 1.5e9
# Of what the devices have, the share that arithmetic may be wrong by: see `memory_estimate`.
_TIGHT = 0.9
_VOCABULARY, _CHECKPOINT = "VOCABULARY_PATH", "INITIAL_CHECKPOINT_PATH"
_PROBE = """
import json, jax
devices = jax.local_devices()
try:
    limit = (devices[0].memory_stats() or {}).get("bytes_limit")
except Exception:
    limit = None
print(json.dumps([devices[0].platform, devices[0].device_kind, len(devices), limit]))
"""


Level = enum.StrEnum("Level", ["OK", "WARNING", "PROBLEM"])


class Finding(NamedTuple):
    """One line: its heading, the thing that was checked, and its state with a remedy."""

    part: str
    name: str
    text: str
    level: Level = Level.OK


_machine, _row, _folder = (
    functools.partial(Finding, part) for part in ("Machine", "Settings", "Folders")
)


class Devices(NamedTuple):
    """Equal devices that JAX sees on this machine: 'cpu', 'gpu' or 'tpu'.

    `memory` is the bytes that JAX takes of each; None of CPU devices, which share the machine's.
    """

    platform: str
    kind: str
    count: int
    memory: int | None


def run(
    read_macros: Callable[[], Mapping[str, Any]] | None,
    make_setup: Callable[[bool], Any],
    *,
    folders: Sequence[str] = (),
    as_json: bool,
    log: Callable[[str], None] = print,
) -> int:
    """Makes all checks, whatever becomes of the others; returns 1 where there is a problem.

    `read_macros` parses the gin files, if there are any, and gives the values of their macros;
    `make_setup` gives their `memory_estimate.Setup`, of a TPU or not. Raises InputError where the
    files can't be read, or set what can't be.
    """
    # As the user has it, without what the command line has set for itself.
    environment = {name: x for name, x in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    findings = guarded(_machine("machine", ""), check_machine)
    devices, here = check_devices(environment)
    findings.append(devices)
    if read_macros is not None:
        if "jax" not in sys.modules:
            # From here on all is arithmetic: the devices are left to what uses them.
            os.environ["JAX_PLATFORMS"] = "cpu"
        hosts = num_hosts(environment)
        findings += guarded(
            _row("gin files", ""), lambda: check_settings(read_macros(), make_setup, here, hosts)
        )
    for folder in folders:
        findings += guarded(_folder(folder, ""), functools.partial(check_folder, folder))
    log(json.dumps(document(findings), indent=2) if as_json else page(findings))
    return int(any(finding.level is Level.PROBLEM for finding in findings))


def page(findings: list[Finding]) -> str:
    """The findings as a page of text, under their headings, and a last line that sums up."""
    lines: list[str] = []
    width = max((len(finding.name) for finding in findings), default=0)
    for part, rows in itertools.groupby(findings, key=lambda finding: finding.part):
        lines += [part, *(f"  {row.level:<8} {row.name:<{width}}  {row.text}" for row in rows), ""]
    counts = [f"{name}: {n}" for name, n in document(findings).items() if name != "findings"]
    is_well = all(finding.level is Level.OK for finding in findings)
    return "\n".join([*lines, "all is well" if is_well else ", ".join(counts)])


def document(findings: list[Finding]) -> dict[str, Any]:
    """The findings for JSON, with the numbers of problems and of warnings."""
    levels = [finding.level for finding in findings]
    counts = {f"{level}s": levels.count(level) for level in (Level.PROBLEM, Level.WARNING)}
    return {**counts, "findings": [finding._asdict() for finding in findings]}


def guarded(about: Finding, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of `check`; where it fails, that, so that the other checks are made.

    Raises InputError where `check` does: the user's settings are wrong.
    """
    findings: list[Finding] = []
    try:
        findings.extend(check())  # those before the failure stay
    except errors.InputError:
        raise
    except Exception as error:  # whatever a broken installation raises is what is to be told
        message = ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])
        text = f"can't be checked: {message}"
        findings.append(about._replace(text=text, level=Level.PROBLEM))
    return findings


def check_machine() -> Iterator[Finding]:
    """All but the devices."""
    yield _machine("python", f"{platform.python_version()}, {platform.platform(terse=True)}")
    # Fewer cores than the machine's where this process may not use all.
    affinity = getattr(os, "sched_getaffinity", None)
    yield _machine("cores", str(len(affinity(0)) if affinity else os.cpu_count()))
    yield _machine("memory", f"{machine.memory_bytes() / _GIB:.1f} GiB")
    yield _machine("disk here", f"{shutil.disk_usage(os.getcwd()).free / _GIB:.1f} GiB free")


def num_hosts(environment: Mapping[str, str]) -> int:
    """Machines that a run started as this one would have, as far as the environment says."""
    if all(name in environment for name in _STEP):
        number = environment.get("SLURM_STEP_NUM_NODES", "1")
        return int(number) if number.isdigit() else 1
    return len(environment.get("TPU_WORKER_HOSTNAMES", "localhost").split(","))


def check_devices(
    environment: dict[str, str], timeout: float = TIMEOUT
) -> tuple[Finding, Devices | None]:
    """The line about the devices that JAX sees, and them.

    They are looked for in a process of its own: JAX may wait for ever, or be broken.
    """
    # Looking takes no memory from what runs there.
    quiet = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if not glob.glob("/dev/accel[0-9]*") + glob.glob("/dev/vfio/[0-9]*"):
        quiet["TPU_SKIP_MDS_QUERY"] = "1"  # no TPU, so no metadata server to wait for
    reason = (
        f"no answer in {timeout:.0f} s; another process may hold them, and a host of a pod waits "
        "until the command runs on all of its hosts"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment | quiet,
        )
    except subprocess.TimeoutExpired:
        return _machine("devices", f"JAX finds none: {reason}", Level.PROBLEM), None
    if done.returncode:  # a traceback ends with the error
        is_error = re.compile(r"[\w.]+(Error|Exception)\b").match
        lines = filter(is_error, reversed(done.stderr.splitlines()))
        reason = next(lines, f"exit code {done.returncode}")
        return _machine("devices", f"JAX finds none: {reason}", Level.PROBLEM), None
    here = Devices(*json.loads(done.stdout.strip().splitlines()[-1]))
    memory = f", {here.memory / _GIB:.1f} GiB each for JAX" if here.memory else ""
    return _machine("devices", f"{here.count} x {here.kind} ({here.platform}){memory}"), here


def check_settings(
    macros: Mapping[str, Any],
    make_setup: Callable[[bool], Any],
    here: Devices | None,
    num_hosts: int = 1,
) -> Iterator[Finding]:
    """The files, the mesh, the train step's bytes against the devices', and the disk.

    A run would have `num_hosts` machines like this one, whose devices are `here`.
    """
    files = list(_files(macros))
    yield from files
    if any(row.name == _VOCABULARY and row.level is Level.PROBLEM for row in files):
        yield _row("memory", f"isn't worked out, for want of {_VOCABULARY}", Level.WARNING)
        return
    setup = make_setup(here is not None and here.platform == "tpu")
    yield _row(
        "network",
        f"{setup.model.num_parameters:,} parameters: {setup.model.num_encoder_layers} + "
        f"{setup.model.num_decoder_layers} layers of width {setup.model.emb_dim}, "
        f"{setup.model.vocab_size:,} rows of vocabulary",
    )
    path = macros.get(_CHECKPOINT)
    if path and _is_local(path) and pathlib.Path(path).exists():
        yield _checkpoint(str(path), setup)
    if here is not None:
        mesh = _mesh(setup, here.count * num_hosts)
        yield mesh
        if mesh.level is Level.OK:
            yield from _memory(setup, here, here.count * num_hosts)
    yield from _disk(setup, macros)


def check_folder(name: str) -> Iterator[Finding]:
    """Who is at work in a folder, and what a killed command left there half-written."""
    folder = pathlib.Path(paths.resolve("DIR", name))
    if not folder.is_dir():
        raise errors.InputError(f"{name}: no folder there")
    if holder := locks.holder(folder):
        yield _folder(name, holder, Level.WARNING)
        return
    left = artifacts.leftovers(folder)
    for path in left:
        files = [path, *path.rglob("*")]
        size = sum(file.stat().st_size for file in files if file.is_file())
        text = f"half-written, {size / _GB:.3f} GB; the same command uses or removes it"
        yield _folder(str(path), text, Level.WARNING)
    if not left:
        yield _folder(name, "nothing is half-written")


def _is_local(path: Any) -> bool:
    return "://" not in str(path)


def _files(macros: Mapping[str, Any]) -> Iterator[Finding]:
    """A line about each file or folder that is named."""
    for name in ("NATINST_DIR", _VOCABULARY, _CHECKPOINT, "PROXY_CHECKPOINT_PATH"):
        path = macros.get(name)
        if not path:
            continue
        if not _is_local(path):
            yield _row(name, f"{path} (not looked at)")
        elif not pathlib.Path(path).exists():
            yield _row(name, f"{path} isn't there; correct --gin.{name}", Level.PROBLEM)
        elif name == _VOCABULARY and pathlib.Path(path).is_dir():
            yield _row(name, f"{path} is a folder; name a SentencePiece model", Level.PROBLEM)
        else:
            yield _row(name, str(path))


def _checkpoint(path: str, setup: Any) -> Finding:
    """Whether the checkpoint to start from is one of this network."""
    from poison_t5x.checkpoint_io import architecture, detect

    try:
        source = detect.open_checkpoint(path, verify=False)
        architecture.check_fits(source, setup.model)
        return _row("checkpoint", detect.describe(source))
    except errors.InputError as error:
        return _row("checkpoint", errors.first_line(error), Level.PROBLEM)


def _mesh(setup: Any, num_devices: int) -> Finding:
    from poison_t5x.train import steps

    size = setup.partition.num_partitions
    num_data = num_devices // size
    if num_devices % size:
        divisor = max(n for n in range(1, min(size, num_devices) + 1) if num_devices % n == 0)
        text = (
            f"NUM_PARTITIONS={size}, which {num_devices} devices can't be divided by; set "
            f"--gin.NUM_PARTITIONS={divisor}, or use more devices"
        )
        return _row("mesh", text, Level.PROBLEM)
    try:
        mesh: Any = types.SimpleNamespace(num_data=num_data)
        steps.check_batch(setup.batch_size, setup.num_microbatches, mesh)
    except errors.InputError as error:
        return _row("mesh", str(error), Level.PROBLEM)
    return _row("mesh", f"{num_data} data x {size} model")


def _memory(setup: Any, here: Devices, num_devices: int) -> Iterator[Finding]:
    from poison_t5x.tools import memory_estimate

    parts = memory_estimate.estimate(setup, num_devices // setup.partition.num_partitions)
    limit = here.memory
    if limit is None:  # CPU devices share the machine's
        limit = max(machine.memory_bytes() - _OTHERS, 0) / here.count
    total = parts.total
    # What rounds to nothing isn't worth a word.
    named = ", ".join(parts.largest(least=0.005 * _GB))
    text = f"a train step needs about {total / _GB:.2f} of {limit / _GB:.2f} GB a device ({named})"
    if total <= _TIGHT * limit:
        yield _row("memory", text)
        return
    if total <= limit:
        yield _row("memory", f"{text}; that is tight", Level.WARNING)
    else:
        yield _row("memory", f"{text}; it doesn't fit", Level.PROBLEM)
    for flag, saved in memory_estimate.savings(setup, num_devices):
        enough = ", which is enough" if total - saved <= _TIGHT * limit else ""
        yield _row("would help", f"{flag}: {saved / _GB:.2f} GB less{enough}")
    # Of a GPU, JAX takes three quarters unless told otherwise.
    if here.platform == "gpu" and here.memory and total <= here.memory * 4 / 3:
        text = "XLA_PYTHON_CLIENT_MEM_FRACTION=0.92 in the environment: JAX takes 0.75 of a GPU"
        yield _row("would help", text)


def _disk(setup: Any, macros: Mapping[str, Any]) -> Iterator[Finding]:
    keep = macros.get("KEEP_CHECKPOINTS")
    folder = macros.get("MODEL_DIR") or macros.get("RUN_DIR") or "."
    if not isinstance(keep, int) or not _is_local(folder):
        return
    each = sum(setup.state_bytes())
    # One more while it is written; a run trains two models.
    number = (keep + 1) * (1 if macros.get("MODEL_DIR") else 2)
    place = pathlib.Path(str(folder)).absolute()
    there = next(path for path in (place, *place.parents) if path.exists())
    free = shutil.disk_usage(there).free
    text = f"{number} checkpoints of {each / _GB:.2f} GB at most, {free / _GB:.1f} GB are free"
    level = Level.OK
    if number * each > free:
        text += "; lower KEEP_CHECKPOINTS, or write to another disk or a bucket"
        level = Level.PROBLEM if each > free else Level.WARNING
    yield _row("disk", text, level)
