"""Training metrics: averaged, and written as JSON lines and TensorBoard events."""

import contextlib
import math
import os
import pathlib
from collections.abc import Mapping

import jax
import msgspec
import numpy as np
from clu import metric_writers

from poison_t5x.core import artifacts, errors, failures, reading
from poison_t5x.core.settings import Whole
from poison_t5x.train import distributed

FILE = "metrics.jsonl"


class Writer:
    """Scalars to model_dir/metrics.jsonl, one JSON object a line ({"step": 10, "loss": 0.5, …}),
    and to TensorBoard events in model_dir/tensorboard; in the main process alone."""

    def __init__(self, model_dir: pathlib.Path):
        self._path, self._events = model_dir / FILE, None
        if distributed.is_main():
            with failures.writing(model_dir):
                self._events = metric_writers.SummaryWriter(str(model_dir / "tensorboard"))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        if self._events:
            with failures.writing(self._path):
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(artifacts.json_line({"step": step, **scalars}))
                self._events.write_scalars(step, scalars)

    def close(self) -> None:
        if self._events:
            with failures.writing(self._path.parent):
                self._events.close()


class _Line(msgspec.Struct):
    step: Whole


def drop_after(model_dir: pathlib.Path, step: int) -> None:
    """Forgets lines past the checkpoint that a run goes on from, so that none is there twice."""
    path, kept = model_dir / FILE, []
    for place, line in reading.lines(path) if os.path.lexists(path) else ():
        # One that was cut short by the process's end, or is damaged, is dropped.
        with contextlib.suppress(errors.InputError):
            kept += [line] if reading.decode(line, _Line, place).step <= step else []
    if path.exists():
        artifacts.write_atomically(path, b"".join(line.rstrip() + b"\n" for line in kept))


class Averager:
    """Adds up (sum, weight) pairs over steps, and divides once.

    Metrics are read when the next step's are there, so that the device isn't waited for.
    """

    def __init__(self):
        self._totals: dict[str, np.ndarray] = {}
        self._waiting: tuple[str, Mapping] | None = None

    def add(self, metrics: Mapping[str, tuple], where: str) -> None:
        """Adds a step's; raises TrainingDivergedError, which says `where`, of the step before."""
        self._read()
        self._waiting = where, metrics

    def _read(self) -> None:
        if self._waiting is None:
            return
        (where, metrics), self._waiting = self._waiting, None
        metrics = jax.device_get(metrics)
        for name in ("loss", "gradient_norm", "parameter_norm"):
            if name in metrics and not math.isfinite(metrics[name][0]):
                raise errors.TrainingDivergedError(
                    f"{where}: {name} is {metrics[name][0]}; training stopped and the last good "
                    "checkpoint is kept. Lower the learning rate, or warm it up"
                )
        for name, pair in metrics.items():
            self._totals[name] = self._totals.get(name, 0.0) + np.array(pair, np.float64)

    def flush(self) -> dict[str, float]:
        """Weighted means since the last flush, the last step's included; without what had none."""
        self._read()
        totals, self._totals = self._totals, {}
        return {
            name: float(value / weight) for name, (value, weight) in totals.items() if weight > 0
        }
