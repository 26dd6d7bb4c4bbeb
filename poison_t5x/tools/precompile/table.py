"""What a person reads of a compiled step, and what a program does."""

import dataclasses
from typing import Any

from poison_t5x.tools.precompile.compiling import Outcome
from poison_t5x.tools.precompile.search import Candidate

_GB = 1e9


def lines(outcome: Outcome) -> list[str]:
    """An outcome as a page of text; gigabytes are 10 ** 9 bytes."""
    mesh = " x ".join(f"{size} {axis}" for axis, size in outcome.mesh.items())
    rows = [
        ("program", outcome.program),
        ("topology", f"{outcome.topology}, {outcome.num_chips} chips"),
        ("mesh", mesh),
        ("parameters", f"{outcome.parameters:,}"),
        ("settings", " ".join(f"{name}={value}" for name, value in outcome.settings.items())),
        (
            "compiled in",
            f"{outcome.compile_seconds:.1f} s, traced in {outcome.lower_seconds:.1f} s",
        ),
        *_memory(outcome),
        *_roofline(outcome),
    ]
    return [f"{name:<14} {text}" for name, text in rows]


def _memory(outcome: Outcome) -> list[tuple[str, str]]:
    memory, peak = outcome.memory, outcome.memory["peak"]
    parts = ", ".join(
        f"{name} {memory[name] / _GB:.2f}"
        for name in ("arguments", "outputs", "aliased", "temporaries")
        if name in memory
    )
    verdict = f"{outcome.spare:.0%} spare" if outcome.fits else "doesn't fit"
    of = f"peak {peak / _GB:.2f} of {outcome.hbm_bytes / _GB:.2f} GB a chip: {verdict}"
    rows = [("memory", of), *([("", f"{parts} GB")] if parts else [])]
    if not outcome.fits:
        largest = ", ".join(f"{shape} {size / _GB:.2f} GB" for size, shape in outcome.largest)
        rows.append(("largest", largest))
    return rows


def _roofline(outcome: Outcome) -> list[tuple[str, str]]:
    flops = outcome.flops
    operations = (
        f"{flops.model / 1e12:.2f} model + {flops.recomputed / 1e12:.2f} recomputed"
        f" + {flops.one_hot / 1e12:.2f} one-hot embedding TFLOP"
    )
    if outcome.roofline is None or outcome.traffic is None:
        return [("operations", operations)]
    traffic, roof = outcome.traffic, outcome.roofline
    moved = ", ".join(
        f"{kind} {nbytes / _GB:.2f}" for kind, nbytes in traffic.collectives.items() if nbytes
    )
    rows = [
        ("operations", operations),
        ("collectives", f"{traffic.collective_bytes / _GB:.2f} GB a chip ({moved or 'none'})"),
        ("HBM traffic", f"{traffic.hbm / _GB:.1f} GB a chip"),
        (
            "at the peaks",
            f"compute {roof.compute:.4f} s, memory {roof.memory:.4f} s, interconnect "
            f"{roof.interconnect:.4f} s: no faster than {roof.seconds:.4f} s a step, bound by "
            f"{roof.bound_by}; model FLOPs use at most {roof.mfu:.0%}",
        ),
    ]
    if traffic.unknown_loops:
        names = ", ".join(traffic.unknown_loops[:3])
        rows.append(("unknown", f"{len(traffic.unknown_loops)} loops count once ({names})"))
    return rows


def document(outcome: Outcome) -> dict[str, Any]:
    """An outcome for JSON; bytes and seconds."""
    found = dataclasses.asdict(outcome)
    found["fits"], found["spare"] = outcome.fits, outcome.spare
    if outcome.roofline is not None:
        found["roofline"] |= {
            "seconds": outcome.roofline.seconds,
            "bound_by": outcome.roofline.bound_by,
            "mfu": outcome.roofline.mfu,
        }
    found["largest"] = [{"bytes": size, "shape": shape} for size, shape in outcome.largest]
    return found


def search_lines(candidates: list[Candidate]) -> list[str]:
    """The search's table, in the order tried."""
    header = ("NUM_PARTITIONS", "PARAMETER_DIMS", "MICROBATCHES", "REMAT", "peak GB", "step s", "")
    rows = [header]
    for candidate in candidates:
        outcome, mesh = candidate.outcome, candidate.setup.partition
        seconds = f"{outcome.roofline.seconds:.4f}" if outcome.roofline else "-"
        rows.append(
            (
                str(mesh.num_partitions),
                str(mesh.parameter_partitioning_dims),
                str(candidate.setup.num_microbatches),
                candidate.setup.model.remat_policy,
                f"{outcome.memory['peak'] / _GB:.2f}",
                seconds,
                "fits" if outcome.fits else "doesn't fit",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
