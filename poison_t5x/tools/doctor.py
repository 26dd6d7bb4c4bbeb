"""`poison-t5x doctor`: the machine, and whether a gin file goes with it (packages: `pip check`).

Modules that need packages are imported by the checks that use them: one may be missing or broken.
"""

import functools
import itertools
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from poison_t5x.core import errors
from poison_t5x.tools import machine
from poison_t5x.tools.machine import Devices, Finding, Level, guarded

PART = "Settings"
_GB = 1e9
# A process has more than its arrays: libraries, the data's pipeline, the compiler.
_OTHERS = 1.5e9
# Of what the devices have, the share that arithmetic may be wrong by: see `memory_estimate`.
_TIGHT = 0.9
_row = functools.partial(Finding, PART)
_VOCABULARY, _CHECKPOINT = "VOCABULARY_PATH", "INITIAL_CHECKPOINT_PATH"


def run(
    read_macros: Callable[[], Mapping[str, Any]] | None,
    make_setup: Callable[[bool], Any],
    *,
    as_json: bool,
    log: Callable[[str], None] = print,
) -> int:
    """Makes all checks, whatever becomes of the others; returns 1 where there is a problem.

    Args:
      read_macros: parses the gin files; the values of their macros. None without gin files.
      make_setup: the parsed files' `memory_estimate.Setup`; its argument is whether it is a TPU's.
      as_json: prints JSON instead of a page.
      log: takes the page.

    Raises:
      InputError: the gin files can't be read, or set what can't be.
    """
    environment = machine.environment()
    findings = guarded(machine.PART, "machine", machine.check)
    devices, here = machine.check_devices(environment)
    findings.append(devices)
    if read_macros is not None:
        if "jax" not in sys.modules:
            # From here on all is arithmetic: the devices are left to what uses them.
            os.environ["JAX_PLATFORMS"] = "cpu"
        hosts = machine.num_hosts(environment)
        findings += guarded(
            PART, "gin files", lambda: check_settings(read_macros(), make_setup, here, hosts)
        )
    log(json.dumps(document(findings), indent=2) if as_json else page(findings))
    return int(_count(findings, Level.PROBLEM) > 0)


def page(findings: list[Finding]) -> str:
    """The findings as a page of text, under their headings, and a last line that sums up."""
    lines: list[str] = []
    width = max((len(finding.name) for finding in findings), default=0)
    for part, rows in itertools.groupby(findings, key=lambda finding: finding.part):
        lines += [part, *(f"  {row.level:<8} {row.name:<{width}}  {row.text}" for row in rows), ""]
    problems, warnings = (_count(findings, level) for level in (Level.PROBLEM, Level.WARNING))
    summary = f"problems: {problems}, warnings: {warnings}"
    return "\n".join([*lines, summary if problems + warnings else "all is well"])


def _count(findings: Iterable[Finding], level: Level) -> int:
    return sum(finding.level is level for finding in findings)


def document(findings: list[Finding]) -> dict[str, Any]:
    """The findings for JSON, with the numbers of problems and of warnings."""
    return {
        "problems": _count(findings, Level.PROBLEM),
        "warnings": _count(findings, Level.WARNING),
        "findings": [finding._asdict() for finding in findings],
    }


def check_settings(
    macros: Mapping[str, Any],
    make_setup: Callable[[bool], Any],
    here: Devices | None,
    num_hosts: int = 1,
) -> list[Finding]:
    """The files, the mesh, the train step's bytes against the devices', and the disk.

    A run would have `num_hosts` machines like this one, whose devices are `here`.
    """
    findings = list(_files(macros))
    if any(row.name == _VOCABULARY and row.level is Level.PROBLEM for row in findings):
        text = f"isn't worked out, for want of {_VOCABULARY}"
        return [*findings, _row("memory", text, Level.WARNING)]
    setup = make_setup(here is not None and here.platform == "tpu")
    text = (
        f"{setup.num_parameters():,} parameters: {setup.model.num_encoder_layers} + "
        f"{setup.model.num_decoder_layers} layers of width {setup.model.emb_dim}, "
        f"{setup.model.vocab_size:,} rows of vocabulary"
    )
    findings.append(_row("network", text))
    path = macros.get(_CHECKPOINT)
    if path and _is_local(path) and pathlib.Path(path).exists():
        findings.append(_checkpoint(str(path), setup))
    if here is not None:
        mesh = _mesh(setup, here.count * num_hosts)
        findings.append(mesh)
        if mesh.level is Level.OK:
            findings += _memory(setup, here, here.count * num_hosts)
    return [*findings, *_disk(setup, macros)]


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
        return _row("checkpoint", str(error).splitlines()[0], Level.PROBLEM)


def _mesh(setup: Any, num_devices: int) -> Finding:
    size = setup.partition.num_partitions
    num_data = num_devices // size
    rows = setup.num_microbatches * num_data
    if num_devices % size:
        divisor = max(n for n in range(1, min(size, num_devices) + 1) if num_devices % n == 0)
        text = (
            f"NUM_PARTITIONS={size}, which {num_devices} devices can't be divided by; set "
            f"--gin.NUM_PARTITIONS={divisor}, or use more devices"
        )
    elif setup.batch_size % rows:
        text = (
            f"BATCH_SIZE={setup.batch_size} can't be divided into {setup.num_microbatches} "
            f"microbatches over {num_data} devices; use a multiple of {rows}"
        )
    else:
        return _row("mesh", f"{num_data} data x {size} model")
    return _row("mesh", text, Level.PROBLEM)


def _memory(setup: Any, here: Devices, num_devices: int) -> Iterator[Finding]:
    from poison_t5x.tools import memory_estimate

    parts = memory_estimate.estimate(setup, num_devices // setup.partition.num_partitions)
    limit = here.memory
    if limit is None:  # CPU devices share the machine's
        limit = max(machine.memory_bytes() - _OTHERS, 0) / here.count
    # What rounds to nothing isn't worth a word.
    named = ", ".join(
        f"{name.replace('_', ' ')} {size / _GB:.2f}"
        for name, size in parts.largest()
        if size >= 0.005 * _GB
    )
    total, needed = parts.total, f"{parts.total / _GB:.2f} of {limit / _GB:.2f} GB a device"
    text = f"a train step needs about {needed} ({named})"
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
