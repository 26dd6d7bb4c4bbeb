"""Precompiles every gin/pods file of a TPU, and writes docs/PRECOMPILED.md.

    python tests/benchmarks/precompile_pods.py

Needs libtpu (`pip install 'poison-t5x[tpu]'`) and a quarter of an hour.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
PODS, PAGE = ROOT / "gin" / "pods", ROOT / "docs" / "PRECOMPILED.md"
HEADER = """\
# Meshes that fit, shown without a TPU

Written by `python tests/benchmarks/precompile_pods.py`, which runs, for each file of `gin/pods`,

    poison-t5x precompile --gin_file=experiments/polarity.gin --gin_file=pods/FILE \\
        --topology=TOPOLOGY --program=both [--gin.BATCH_SIZE=128 --gin.NUM_MICROBATCHES=4]

1,024 input and 128 target tokens, bfloat16 activations, float32 parameters, AdamW as in the paper.
Peak and spare are of a chip's memory, as the TPU's own compiler counts them. The step's least time
and the most that model FLOPs use (MFU) can be are rooflines from published peaks: bounds, not
forecasts. Compile seconds are of two cores.
"""
COLUMNS = (
    "file",
    "topology",
    "mesh",
    "batch",
    "step",
    "peak GB",
    "spare",
    "collectives GB",
    "least s",
    "bound by",
    "MFU at most",
    "compiled s",
)


def _precompile(name: str, topology: str, batch: int) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "found.json"
        command = [
            *(sys.executable, "-m", "poison_t5x", "precompile"),
            *("--gin_file=experiments/polarity.gin", f"--gin_file=pods/{name}.gin"),
            *(f"--topology={topology}", "--program=both", f"--output={output}"),
            f"--gin.BATCH_SIZE={batch}",
            # As many rows at a time as memory and the mesh's rows allow.
            f"--gin.NUM_MICROBATCHES={4 if batch > 16 else 1}",
        ]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return json.loads(output.read_text(encoding="utf-8"))["programs"]


def _row(name: str, batch: int, row: dict) -> tuple[str, ...]:
    roof, moved = row["roofline"], row["traffic"]["collectives"]
    is_rank = row["program"] == "rank"
    return (
        name,
        row["topology"],
        " x ".join(map(str, row["mesh"].values())),
        "-" if is_rank else str(batch),
        row["program"],
        f"{row['memory']['peak'] / 1e9:.2f}",
        f"{row['spare']:.0%}",
        f"{sum(moved.values()) / 1e9:.2f}",
        f"{roof['seconds']:.4f}",
        roof["bound_by"],
        f"{roof['mfu']:.0%}",
        f"{row['compile_seconds']:.0f}",
    )


def main() -> None:
    """Compiles, prints, and writes the page."""
    lines = [HEADER, f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    for path in sorted(PODS.glob("*.gin")):
        topology = re.search(r"--topology=(\S+)", path.read_text(encoding="utf-8"))
        if topology is None:  # GPUs
            continue
        for batch in (16, 128) if path.stem.startswith("xxl") else (16,):
            for row in _precompile(path.stem, topology[1], batch):
                if row["program"] == "rank" and batch != 16:
                    continue
                lines.append(f"| {' | '.join(_row(path.stem, batch, row))} |")
                print(lines[-1], flush=True)
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
