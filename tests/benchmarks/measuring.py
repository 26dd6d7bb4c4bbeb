"""What the benchmarks share: a clock, a process of its own, and T5 networks by size."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import jax

from poison_t5x.model.config import T5Config

# Embedding, heads, a head, MLP, layers of each stack: T5 v1.1's, and the demo's.
_SIZES = {
    "tiny": (128, 4, 32, 256, 2),
    "small": (512, 6, 64, 1024, 8),
    "large": (1024, 16, 64, 2816, 24),
    "xl": (2048, 32, 64, 5120, 24),
    "xxl": (4096, 64, 64, 10240, 24),
}
SIZES = tuple(_SIZES)


def network(size: str, vocab_size: int = 32128, **fields) -> T5Config:
    """T5 v1.1 of a size."""
    width, heads, head, mlp, layers = _SIZES[size]
    return T5Config(
        vocab_size=vocab_size,
        emb_dim=width,
        num_heads=heads,
        head_dim=head,
        mlp_dim=mlp,
        num_encoder_layers=layers,
        num_decoder_layers=layers,
        **fields,
    )


def seconds(work: Callable, rounds: int, warm_up: int = 1, clock=time.perf_counter) -> list[float]:
    """Of each round, those to warm up first."""
    times = []
    for _ in range(warm_up + rounds):
        start = clock()
        jax.block_until_ready(work())
        times.append(clock() - start)
    return times


def median_seconds(work: Callable, rounds: int, **options) -> float:
    return statistics.median(seconds(work, rounds, **options)[-rounds:])


def in_a_process(file: str, *arguments: str) -> dict:
    """What a benchmark's own `--measure` prints, in a process whose memory is nobody else's."""
    command = [sys.executable, file, "--measure", *arguments]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])
