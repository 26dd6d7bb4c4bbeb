"""The loop over steps: start, train, log, save, stop."""

import contextlib
import hashlib
import itertools
import pathlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures

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

Batches = Iterator[dict[str, jax.Array]]


# The state, its step, the compiled train step, and batches on the devices from that step on.
Started = tuple[train_state.TrainState, int, jax.stages.Compiled, Batches]


class Loop:
    """The compiled parts of a run, and the loop over its steps."""

    def __init__(
        self, network_cfg, optimizer_cfg, schedule_cfg, loss_cfg, partition_cfg, train_cfg, log_cfg
    ):
        self.train_cfg, self.log_cfg = train_cfg, log_cfg
        self.partitioner = partitioning.Partitioner(partition_cfg)
        model = network.Transformer(network_cfg)
        schedule = optimizers.learning_rate(schedule_cfg, train_cfg.total_steps)
        optimizer = optimizers.make(optimizer_cfg, schedule)
        self._parts = model, optimizer, self.partitioner
        self._kept_optimizer = optimizer_cfg.name if train_cfg.keep_optimizer_state else None
        parts, common = train_cfg.num_microbatches, (loss_cfg, self.partitioner)
        self.train_step = steps.make_train_step(
            model, optimizer, schedule, *common, num_microbatches=parts
        )
        self.eval_step = steps.make_eval_step(model, *common)
        self._compiled: dict[tuple, jax.stages.Compiled] = {}

    @contextlib.contextmanager
    def starting(
        self,
        directory: pathlib.Path,
        dataset_cfg: input_pipeline.DatasetConfig,
        make_first: Callable[..., train_state.TrainState],
    ) -> Iterator[Started]:
        """State, first batch and compiled step, each made while the others are.

        The folder's newest committed checkpoint is resumed from; else `make_first` gives a starting
        checkpoint's state, from the network, optimiser, partitioner, and the name of the optimiser
        whose state is kept, or None.
        """
        step = distributed.broadcast_from_main(
            lambda: max(checkpoints.committed_steps(directory), default=0)
        )
        with contextlib.ExitStack() as stack:
            batches = stack.enter_context(self._batches(dataset_cfg, step))
            pool = stack.enter_context(futures.ThreadPoolExecutor(2, "start"))
            first = pool.submit(next, batches)
            compiled = pool.submit(self._compile, dataset_cfg)
            state = self._state(directory, step, make_first)
            batches = itertools.chain([first.result()], batches)
            yield state, step, compiled.result(), batches

    @contextlib.contextmanager
    def _batches(
        self, config: input_pipeline.DatasetConfig, start_step: int = 0
    ) -> Iterator[Batches]:
        shards = self.partitioner.shards(config.batch_size, config.num_shards)
        rows = input_pipeline.batches(config, start_step=start_step, shards=shards)
        # A pipeline that prefetches when the interpreter ends waits for Python's lock for ever.
        with contextlib.closing(rows):
            yield (self.partitioner.put_batch(part, config.batch_size) for part in rows)

    def _compile(self, config: input_pipeline.DatasetConfig) -> jax.stages.Compiled:
        lengths = input_pipeline.model_feature_lengths(config)
        shapes = config.batch_size, *sorted(lengths.items())
        if shapes not in self._compiled:
            batch, key = steps.abstract_arguments(self.partitioner, config.batch_size, lengths)
            state = train_state.abstract(*self._parts)
            self._compiled[shapes] = self.train_step.lower(state, batch, key).compile()
        return self._compiled[shapes]

    def _state(
        self, directory: pathlib.Path, step: int, make_first: Callable[..., train_state.TrainState]
    ) -> train_state.TrainState:
        if step:
            path, abstract = checkpoints.step_path(directory, step), train_state.abstract
            return checkpoints.restore(path, abstract(*self._parts))
        if not self.train_cfg.initial_checkpoint_path:
            return train_state.create(*self._parts, self.train_cfg.seed)
        return make_first(*self._parts, self._kept_optimizer)

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
        make_key = jax.jit(
            _dropout_key, static_argnums=0, out_shardings=self.partitioner.replicated
        )
        key = make_key(self.train_cfg.seed)
        log_cfg, total = self.log_cfg, self.train_cfg.total_steps
        averager, votes = metrics_log.Averager(), Votes(self.partitioner)
        with contextlib.ExitStack() as stack:
            saver = checkpoints.Checkpointer(directory, log_cfg.keep_checkpoints, start)
            stack.callback(saver.close)
            writer = stack.enter_context(contextlib.closing(metrics_log.Writer(directory)))
            terminated = stack.enter_context(_sigterm_flag())
            bar = stack.enter_context(
                progress.bar(desc=name, total=total, initial=start, unit="step")
            )
            for step in range(start + 1, total + 1):
                state, metrics = train_step(state, next(batches), key)
                if step == start + 1:
                    bar.unpause()  # compiling it isn't a step's time
                averager.add(metrics, f"step {step} of {total}")
                bar.update()
                stop = votes.push(bool(terminated))
                save = stop or step == total or step % log_cfg.save_period == 0
                if save or step % log_cfg.log_period == 0:
                    averages = averager.flush()  # nothing is saved before this
                    loss = _shown_loss(averages, name, is_first=step <= log_cfg.log_period)
                    writer.write(step, averages)
                    bar.set_postfix(loss=loss, refresh=False)
                if eval_cfg and log_cfg.eval_period and step % log_cfg.eval_period == 0:
                    writer.write(step, self._evaluate(state, eval_cfg))
                if save:
                    saver.save(state, step)
                last = f"the last checkpoint is of step {saver.last}"
                last = last if saver.last else "no checkpoint is saved yet"
                distributed.set_status(f"training was at step {step}, and {last}")
                if stop:
                    saver.finish()
                    raise errors.Terminated(
                        f"{name}: stopped by SIGTERM at step {step}, checkpoint saved; the same "
                        "command goes on"
                    )
        distributed.set_status("")
        return state

    def _evaluate(
        self, state: train_state.TrainState, config: input_pipeline.DatasetConfig
    ) -> dict[str, float]:
        """Teacher-forced loss (nats per token) and token accuracy on the first evaluation rows."""
        averager = metrics_log.Averager()
        with self._batches(config) as batches:
            for batch in itertools.islice(batches, self.log_cfg.eval_steps):
                averager.add(self.eval_step(state.params, batch), "evaluation")
        return {f"eval_{name}": value for name, value in averager.flush().items()}


def _shown_loss(averages: Mapping[str, float], name: str, is_first: bool) -> str:
    """The loss, for the bar; raises InputError where the first rows have nothing to learn."""
    if is_first and "loss" not in averages:
        raise errors.InputError(f"{name}: no target token in the first rows; is the target empty?")
    return f"{averages['loss']:.3f}" if "loss" in averages else "none"


def _dropout_key(seed: int) -> jax.Array:
    """A key of the run's seed for this purpose, so that no two purposes share random numbers."""
    number = int.from_bytes(hashlib.sha256(b"dropout").digest()[:4], "big")
    return jax.random.fold_in(jax.random.key(seed), number)


class Votes:
    """Whether any process was told to stop: all get the same answer after the same step.

    On many processes it is that of the step before, so that no step is waited for. JAX's preemption
    service would take SIGTERM from Python also in stages that have no steps and simply end.
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


@contextlib.contextmanager
def _sigterm_flag() -> Iterator[list[int]]:
    """A list that is empty until SIGTERM comes, so that a step is never left half-way."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # which alone handles signals
        yield received
        return
    previous = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, previous)
