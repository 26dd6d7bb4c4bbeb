"""The loop over steps: start, train, log, save, stop."""

import contextlib
import functools
import hashlib
import itertools
import math
import pathlib
import signal
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from poison_t5x.core import errors, progress
from poison_t5x.data import input_pipeline
from poison_t5x.model import network
from poison_t5x.train import (
    checkpoints,
    distributed,
    metrics_log,
    optimizers,
    partitioning,
    steps,
    train_state,
)


class Started(NamedTuple):
    """All that the first step needs; `batches` are on the devices."""

    state: train_state.TrainState
    step: int
    train_step: jax.stages.Compiled
    batches: Iterator[dict[str, jax.Array]]


class Loop:
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
        self._abstract = train_state.abstract(self.model, self.optimizer, self.partitioner)
        layout = train_state.layout(self._abstract)
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
        self._compiled: dict[tuple, jax.stages.Compiled] = {}

    @contextlib.contextmanager
    def starting(
        self,
        directory: pathlib.Path,
        dataset_cfg: input_pipeline.DatasetConfig,
        restore_start: Callable[..., train_state.TrainState],
        say: Callable[[str], None],
    ) -> Iterator[Started]:
        """The state, the first batch and the compiled step, each made while the others are."""
        start = distributed.broadcast_from_main(
            lambda: [0, *checkpoints.committed_steps(directory)][-1]
        )
        shards = self.partitioner.shards(dataset_cfg.batch_size, dataset_cfg.num_shards)
        with contextlib.ExitStack() as stack:
            batches = stack.enter_context(_batches(dataset_cfg, shards, start_step=start))
            pool = stack.enter_context(futures.ThreadPoolExecutor(2, "start"))
            first = pool.submit(next, batches)
            compiled = pool.submit(self._compile, dataset_cfg)
            state = self._first_state(directory, start, restore_start, say)
            rows = itertools.chain([first.result()], batches)
            yield Started(
                state,
                start,
                compiled.result(),
                (self.partitioner.put_batch(row, shards, dataset_cfg.num_shards) for row in rows),
            )

    def _compile(self, config: input_pipeline.DatasetConfig) -> jax.stages.Compiled:
        lengths = input_pipeline.model_feature_lengths(config)
        shapes = config.batch_size, *sorted(lengths.items())
        if shapes not in self._compiled:
            batch, key = steps.abstract_arguments(self.partitioner, config.batch_size, lengths)
            lowered = self.train_step.lower(self._abstract, batch, key)
            self._compiled[shapes] = lowered.compile()
        return self._compiled[shapes]

    def _first_state(
        self,
        directory: pathlib.Path,
        start: int,
        restore_start: Callable[..., train_state.TrainState],
        say: Callable[[str], None],
    ) -> train_state.TrainState:
        """The newest whole checkpoint's state, or a first one."""
        parts = self.model, self.optimizer, self.partitioner
        if start:
            return checkpoints.restore(checkpoints.step_path(directory, start), self._abstract)
        if not self.train_cfg.initial_checkpoint_path:
            return train_state.create(*parts, self.train_cfg.seed)
        keep = self.optimizer_name if self.train_cfg.keep_optimizer_state else None
        return restore_start(self.train_cfg.initial_checkpoint_path, *parts, keep, say)

    def run(
        self,
        started: Started,
        directory: pathlib.Path,
        eval_cfg: input_pipeline.DatasetConfig | None,
        name: str,
    ) -> train_state.TrainState:
        """Trains from where it started to the last step."""
        state, start, train_step, batches = started
        distributed.run_on_main(lambda: metrics_log.drop_after(directory, start))
        make_key = functools.partial(stream, self.train_cfg.seed, "dropout")
        key = jax.jit(make_key, out_shardings=self.partitioner.replicated)()
        total = self.train_cfg.total_steps
        monitor, votes = Monitor(total), Votes(self.partitioner)
        with contextlib.ExitStack() as stack:
            saver = checkpoints.Checkpointer(directory, self.log_cfg.keep_checkpoints, start)
            stack.callback(saver.close)
            writer = metrics_log.open_writer(directory if distributed.is_main() else None)
            stack.callback(writer.close)
            terminated = stack.enter_context(sigterm_flag())
            bar = stack.enter_context(
                progress.bar(desc=name, total=total, initial=start, unit="step")
            )
            for step in range(start + 1, total + 1):
                state, metrics = train_step(state, next(batches), key)
                if step == start + 1:
                    bar.unpause()  # compiling it isn't a step's time
                monitor.push(step, metrics)
                bar.update()
                stop = votes.push(bool(terminated))
                save = stop or step == total or step % self.log_cfg.save_period == 0
                if save or step % self.log_cfg.log_period == 0:
                    averages = monitor.flush()
                    writer.write_scalars(step, averages)
                    bar.set_postfix(loss=f"{averages['loss']:.3f}", refresh=False)
                if self._evaluates(step) and eval_cfg:
                    writer.write_scalars(step, self._evaluate(state, eval_cfg))
                if save:
                    saver.save(state, step)
                distributed.set_status(_status(step, saver.last))
                if stop:
                    saver.finish()
                    raise errors.Terminated(
                        f"{name}: stopped by SIGTERM at step {step}, checkpoint saved; the same "
                        "command goes on"
                    )
        distributed.set_status("")
        return state

    def _evaluates(self, step: int) -> bool:
        return bool(self.log_cfg.eval_period) and step % self.log_cfg.eval_period == 0

    def _evaluate(
        self, state: train_state.TrainState, config: input_pipeline.DatasetConfig
    ) -> dict[str, float]:
        """Teacher-forced loss (nats per token) and token accuracy on the first evaluation rows."""
        averager = metrics_log.Averager()
        shards = self.partitioner.shards(config.batch_size, config.num_shards)
        with _batches(config, shards) as batches:
            for _ in range(self.log_cfg.eval_steps):
                batch = self.partitioner.put_batch(next(batches), shards, config.num_shards)
                averager.add(jax.device_get(self.eval_step(state.params, batch)))
        return {f"eval_{name}": value for name, value in averager.flush().items()}


def _status(step: int, last: int) -> str:
    saved = f"the last checkpoint is of step {last}" if last else "no checkpoint is saved yet"
    return f"training was at step {step}, and {saved}"


def _batches(config: input_pipeline.DatasetConfig, shards: list[int], *, start_step: int = 0):
    """The stream of batches, closed on leaving.

    A pipeline that still prefetches when the interpreter ends waits for Python's lock for ever.
    """
    return contextlib.closing(input_pipeline.batches(config, start_step=start_step, shards=shards))


def stream(seed: int, name: str) -> jax.Array:
    """A key of the run's seed for one purpose, so that no two purposes share random numbers."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    return jax.random.fold_in(jax.random.key(seed), number)


class Votes:
    """Whether any process was told to stop: all get the same answer after the same step.

    On many processes the answer is that of the step before, so that no step is waited for.
    """

    def __init__(self, partitioner: partitioning.Partitioner):
        mesh = partitioner.mesh
        self._sharding = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._any = jax.jit(jnp.any, out_shardings=partitioner.replicated)
        self._waiting: jax.Array | None = None

    def push(self, stop: bool) -> bool:
        """Votes, and returns what was decided."""
        if distributed.num_processes() == 1:
            return stop
        flags = jax.make_array_from_callback(
            (self._sharding.mesh.size,), self._sharding, lambda index: np.array([stop])
        )
        decided, self._waiting = self._waiting, self._any(flags)
        return decided is not None and bool(decided)


class Monitor:
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
def sigterm_flag() -> Iterator[list[int]]:
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
