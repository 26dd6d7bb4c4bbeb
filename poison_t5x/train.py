"""The training loop. It trains any SeqIO mixture, and knows no instructions and no poison.

`python -m poison_t5x.train --gin_file=… --gin.MODEL_DIR=…` runs it, as T5X users type it.
"""

import sys

if __name__ == "__main__":  # before TensorFlow is imported, whose chatter the command holds back
    from poison_t5x import cli

    sys.exit(cli.main(["train", *sys.argv[1:]]))

import contextlib
import dataclasses
import functools
import hashlib
import math
import pathlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from poison_t5x import (
    artifacts,
    checkpoints,
    checks,
    errors,
    input_pipeline,
    metrics_log,
    optimizers,
    partitioning,
    progress,
    steps,
    train_state,
)
from poison_t5x.convert import detect, restore
from poison_t5x.model import config as model_config
from poison_t5x.model import network

SETTINGS = "settings.json"
_DIGEST = "parameters_sha256"


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What a trained model follows from, beyond its network, data and optimiser.

    Attributes:
      total_steps: optimiser steps of this run. Steps of a starting checkpoint aren't counted in.
      seed: of the initial parameters and of dropout.
      num_microbatches: parts that each batch is cut into.
      initial_checkpoint_path: a checkpoint of ours, T5X's or Hugging Face's to take parameters
        from, see `convert.detect.open_checkpoint`; None starts from random ones.
      keep_optimizer_state: take the optimiser's state from there too; its schedule begins anew.
    """

    total_steps: int
    seed: int = 0
    num_microbatches: int = 1
    initial_checkpoint_path: str | None = None
    keep_optimizer_state: bool = False

    def __post_init__(self):
        checks.whole_number("TRAIN_STEPS", self.total_steps)
        checks.whole_number("NUM_MICROBATCHES", self.num_microbatches)
        checks.whole_number("SEED", self.seed, minimum=0)
        checks.switch("KEEP_OPTIMIZER_STATE", self.keep_optimizer_state)
        if self.initial_checkpoint_path is not None:
            checks.path("INITIAL_CHECKPOINT_PATH", self.initial_checkpoint_path)
        elif self.keep_optimizer_state:
            raise errors.InputError("KEEP_OPTIMIZER_STATE: set INITIAL_CHECKPOINT_PATH too")


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """How often a run reports and saves, in optimiser steps; the result doesn't follow from it.

    Attributes:
      log_period: a line of metrics, averaged since the last one.
      save_period: a checkpoint; one is always written at the end.
      keep_checkpoints: the newest so many; None keeps all.
      eval_period: teacher-forced loss and accuracy on the evaluation data; 0 for never.
      eval_steps: batches of each such evaluation.
    """

    log_period: int = 20
    save_period: int = 500
    keep_checkpoints: int | None = 2
    eval_period: int = 0
    eval_steps: int = 20

    def __post_init__(self):
        checks.whole_number("LOG_PERIOD", self.log_period)
        checks.whole_number("SAVE_PERIOD", self.save_period)
        checks.whole_number("EVAL_PERIOD", self.eval_period, minimum=0)
        checks.whole_number("EVAL_STEPS", self.eval_steps)
        if self.keep_checkpoints is not None:
            checks.whole_number("KEEP_CHECKPOINTS", self.keep_checkpoints)


def padded_vocab_size(size: int) -> int:
    """T5X rounds the embedding's rows up to a multiple of 128, for TPU tiles."""
    return -(-size // 128) * 128


def train(
    *,
    model: Callable[..., model_config.T5Config],
    model_dir: str,
    train_dataset_cfg: input_pipeline.DatasetConfig,
    train_cfg: TrainConfig,
    optimizer_cfg: optimizers.OptimizerConfig,
    schedule_cfg: optimizers.ScheduleConfig,
    loss_cfg: steps.LossConfig,
    partition_cfg: partitioning.PartitionConfig,
    log_cfg: LogConfig,
    train_eval_dataset_cfg: input_pipeline.DatasetConfig | None = None,
    sources: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> pathlib.Path:
    """Trains a model, or goes on with one, and returns its final checkpoint's folder.

    Args:
      model: makes the network's config from `vocab_size=`; gin binds the rest.
      model_dir: the run's folder. One that is finished with the same settings is left alone.
      train_dataset_cfg: what to train on.
      train_eval_dataset_cfg: what `log_cfg.eval_period` evaluates on.
      sources: fingerprints of what the data was made from, for the record.
      say: takes one line about what was done.

    Raises:
      InputError: settings that don't fit together or differ from the folder's, or a damaged
        checkpoint.
      TrainingDivergedError: the loss or gradient isn't finite; the last good checkpoint stays.
      Terminated: SIGTERM; the state is saved.
    """
    if not model_dir:
        raise errors.InputError("MODEL_DIR isn't set: give --gin.MODEL_DIR=FOLDER")
    checks.path("MODEL_DIR", model_dir)
    vocabulary = input_pipeline.vocabulary(train_dataset_cfg)
    network_cfg = model(vocab_size=padded_vocab_size(vocabulary.vocab_size))
    settings = {
        "model": dataclasses.asdict(network_cfg),
        "dataset": dataclasses.asdict(train_dataset_cfg),
        "train": dataclasses.asdict(train_cfg),
        "optimizer": dataclasses.asdict(optimizer_cfg),
        "schedule": dataclasses.asdict(schedule_cfg),
        "loss": dataclasses.asdict(loss_cfg),
        "sources": dict(sources or {}),
    }
    directory = pathlib.Path(model_dir).absolute()
    name = f"train {train_dataset_cfg.mixture_or_task_name}"
    last = checkpoints.step_path(directory, train_cfg.total_steps)
    if _is_done(directory, settings):
        checkpoints.verify(last)
        say(f"{name}: already done in {model_dir}")
        return last
    begin = time.monotonic()
    loop = _loop(
        network_cfg, optimizer_cfg, schedule_cfg, loss_cfg, partition_cfg, train_cfg, log_cfg
    )
    steps.check_batch(train_dataset_cfg.batch_size, train_cfg.num_microbatches, loop.partitioner)
    _check_claim(directory, settings)
    state, start = loop.start(directory, say)
    artifacts.write_atomically(directory / SETTINGS, artifacts.canonical_json(settings))
    state = loop.run(state, start, directory, train_dataset_cfg, train_eval_dataset_cfg, name)
    record = {
        "stage": name,
        "settings": settings,
        "outputs": {_DIGEST: digest(state.params)},
        "seconds": round(time.monotonic() - begin, 3),
    }
    artifacts.write_atomically(directory / artifacts.RECORD, artifacts.canonical_json(record))
    say(f"{name}: done in {record['seconds']:.1f} s -> {model_dir}")
    return last


def _is_done(directory: pathlib.Path, settings: dict) -> bool:
    """Whether the folder was finished with these settings, and its last checkpoint is whole."""
    record = artifacts.read_record(directory)
    if record is None:
        return False
    artifacts.check_settings(directory, record["settings"], settings)
    if parameters_digest(directory) is None:
        return False
    return settings["train"]["total_steps"] in checkpoints.sealed_steps(directory)


def _check_claim(directory: pathlib.Path, settings: dict) -> None:
    """A folder with a checkpoint belongs to the settings that it was made with."""
    if checkpoints.sealed_steps(directory):
        artifacts.check_settings(directory, read_settings(directory), settings)


def read_settings(model_dir: str | pathlib.Path) -> dict:
    """What a model was made with. Raises InputError where its file is missing or damaged."""
    path = pathlib.Path(model_dir) / SETTINGS
    try:
        settings = artifacts.read_json(path)
        model_config.T5Config(**settings["model"])
        TrainConfig(**settings["train"])
    except (KeyError, TypeError) as error:
        raise errors.InputError(f"{path}: not a run's settings ({error})") from None
    return settings


def parameters_digest(model_dir: str | pathlib.Path) -> str | None:
    """`digest` of a finished model, from its record; None where it isn't finished."""
    record = artifacts.read_record(model_dir)
    return record["outputs"].get(_DIGEST) if record else None


def digest(params) -> str:
    """SHA-256 over all parameters, by path: equal if and only if they are bitwise equal."""
    total = hashlib.sha256()
    for path, value in jax.tree_util.tree_leaves_with_path(params):
        total.update(jax.tree_util.keystr(path).encode())
        total.update(np.ascontiguousarray(jax.device_get(value)).tobytes())
    return total.hexdigest()


class _Loop:
    """The compiled parts of a run, and the loop over its steps."""

    def __init__(
        self, network_cfg, optimizer_cfg, schedule_cfg, loss_cfg, partition_cfg, train_cfg, log_cfg
    ):
        self.train_cfg = train_cfg
        self.log_cfg = log_cfg
        self.partitioner = partitioning.Partitioner(partition_cfg)
        self.model = network.Transformer(network_cfg)
        schedule = optimizers.learning_rate(schedule_cfg, train_cfg.total_steps)
        self.optimizer = optimizers.make(optimizer_cfg, schedule)
        self.optimizer_name = optimizer_cfg.name
        layout = train_state.shardings(self.model, self.optimizer, self.partitioner)
        self.train_step = steps.make_train_step(
            self.model,
            self.optimizer,
            schedule,
            loss_cfg,
            self.partitioner,
            layout,
            num_microbatches=train_cfg.num_microbatches,
        )
        self.eval_step = steps.make_eval_step(self.model, loss_cfg, self.partitioner, layout)

    def start(
        self, directory: pathlib.Path, say: Callable[[str], None]
    ) -> tuple[train_state.TrainState, int]:
        """The newest whole checkpoint's state, or a first one."""
        parts = self.model, self.optimizer, self.partitioner
        saved = checkpoints.sealed_steps(directory)
        if saved:
            path = checkpoints.step_path(directory, saved[-1])
            return checkpoints.restore(path, train_state.abstract(*parts)), saved[-1]
        if not self.train_cfg.initial_checkpoint_path:
            return train_state.create(*parts, self.train_cfg.seed), 0
        source = detect.open_checkpoint(self.train_cfg.initial_checkpoint_path)
        keep = self.optimizer_name if self.train_cfg.keep_optimizer_state else None
        state = restore.first_state(source, *parts, keep)
        say(f"starts from {detect.describe(source)}")
        return state, 0

    def run(
        self,
        state: train_state.TrainState,
        start: int,
        directory: pathlib.Path,
        dataset_cfg: input_pipeline.DatasetConfig,
        eval_cfg: input_pipeline.DatasetConfig | None,
        name: str,
    ) -> train_state.TrainState:
        """Trains from the step `start` to the last one."""
        metrics_log.drop_after(directory, start)
        key = stream(self.train_cfg.seed, "dropout")
        total = self.train_cfg.total_steps
        monitor = _Monitor(total)
        with contextlib.ExitStack() as stack:
            saver = checkpoints.Checkpointer(directory, self.log_cfg.keep_checkpoints)
            stack.callback(saver.close)
            writer = metrics_log.open_writer(directory)
            stack.callback(writer.close)
            terminated = stack.enter_context(_sigterm_flag())
            batches = stack.enter_context(_batches(dataset_cfg, start_step=start))
            bar = stack.enter_context(
                progress.bar(desc=name, total=total, initial=start, unit="step")
            )
            for step in range(start + 1, total + 1):
                batch = self.partitioner.put_batch(next(batches))
                state, metrics = self.train_step(state, batch, key)
                if step == start + 1:
                    bar.unpause()  # compiling it isn't a step's time
                monitor.push(step, metrics)
                bar.update()
                stop = bool(terminated)
                save = stop or step == total or step % self.log_cfg.save_period == 0
                if save or step % self.log_cfg.log_period == 0:
                    averages = monitor.flush()
                    writer.write_scalars(step, averages)
                    bar.set_postfix(loss=f"{averages['loss']:.3f}", refresh=False)
                if self._evaluates(step) and eval_cfg:
                    writer.write_scalars(step, self._evaluate(state, eval_cfg))
                if save:
                    saver.save(state, step)
                if stop:
                    saver.finish()
                    raise errors.Terminated(
                        f"{name}: stopped by SIGTERM at step {step}, checkpoint saved; the same "
                        "command goes on"
                    )
        return state

    def _evaluates(self, step: int) -> bool:
        return bool(self.log_cfg.eval_period) and step % self.log_cfg.eval_period == 0

    def _evaluate(
        self, state: train_state.TrainState, config: input_pipeline.DatasetConfig
    ) -> dict[str, float]:
        """Teacher-forced loss (nats per token) and token accuracy on the first evaluation rows."""
        averager = metrics_log.Averager()
        with _batches(config) as batches:
            for _ in range(self.log_cfg.eval_steps):
                metrics = self.eval_step(state.params, self.partitioner.put_batch(next(batches)))
                averager.add(jax.device_get(metrics))
        return {f"eval_{name}": value for name, value in averager.flush().items()}


# The clean and the poisoned model differ in their data alone: one compilation serves both.
_loop = functools.lru_cache(maxsize=1)(_Loop)


def _batches(config: input_pipeline.DatasetConfig, *, start_step: int = 0):
    """The stream of batches, closed on leaving.

    A pipeline that still prefetches when the interpreter ends waits for Python's lock for ever.
    """
    return contextlib.closing(input_pipeline.batches(config, start_step=start_step))


def stream(seed: int, name: str) -> jax.Array:
    """A key of the run's seed for one purpose, so that no two purposes share random numbers."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return jax.random.fold_in(jax.random.key(seed), number)


class _Monitor:
    """Reads metrics one step late, so that the device isn't waited for, and stops on NaN."""

    def __init__(self, total: int):
        self._total = total
        self._averager = metrics_log.Averager()
        self._waiting: tuple[int, Any] | None = None

    def push(self, step: int, metrics) -> None:
        self._read()
        self._waiting = (step, metrics)

    def _read(self) -> None:
        if self._waiting is None:
            return
        (step, metrics), self._waiting = self._waiting, None
        values = jax.device_get(metrics)
        for name in ("loss", "gradient_norm", "parameter_norm"):
            if not math.isfinite(values[name][0]):
                raise errors.TrainingDivergedError(
                    f"step {step} of {self._total}: {name} is {values[name][0]}; training stopped "
                    "and the last good checkpoint is kept. Lower the learning rate, or warm it up"
                )
        self._averager.add(values)

    def flush(self) -> dict[str, float]:
        """Averages since the last call, this step's included; nothing is saved before this."""
        self._read()
        return self._averager.flush()


@contextlib.contextmanager
def _sigterm_flag() -> Iterator[list[int]]:
    """A list that is empty until SIGTERM comes, so that a step is never left half-way."""
    received: list[int] = []
    try:
        previous = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    except ValueError:  # not in the main thread, where signals can't be handled
        yield received
        return
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, previous)
