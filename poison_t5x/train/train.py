"""Trains any SeqIO mixture, and knows no instructions and no poison."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from poison_t5x.core import artifacts, errors, machine
from poison_t5x.core.settings import Count, Folder, Rows, Settings, Source, Whole, checked
from poison_t5x.data import input_pipeline
from poison_t5x.model import config as model_config
from poison_t5x.train import (
    checkpoints,
    distributed,
    loop,
    optimizers,
    partitioning,
    steps,
    train_state,
    trained_model,
)


@dataclasses.dataclass(frozen=True)
class TrainConfig(Settings):
    """A trained model follows from these, its network, its data and its optimiser.

    `total_steps` are optimiser steps of this run; those of a starting checkpoint aren't counted in.
    """

    total_steps: Count
    seed: Whole = 0  # of the initial parameters and of dropout
    num_microbatches: Rows = 1
    # Ours, T5X's or Hugging Face's, see `checkpoint_io.detect`; None starts from random parameters.
    initial_checkpoint_path: Source | None = None
    # Takes the optimiser's state from there too; its schedule begins anew.
    keep_optimizer_state: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.keep_optimizer_state and self.initial_checkpoint_path is None:
            raise errors.InputError("KEEP_OPTIMIZER_STATE: set INITIAL_CHECKPOINT_PATH too")


@dataclasses.dataclass(frozen=True)
class LogConfig(Settings):
    """How often a run reports and saves, in optimiser steps; the result doesn't follow from it."""

    log_period: Count = 20  # metrics, averaged since the last line
    save_period: Count = 500  # a checkpoint; one is always written at the end
    keep_checkpoints: Count | None = 2  # the newest; None keeps all
    eval_period: Whole = 0  # teacher-forced loss and accuracy on evaluation data; 0 for never
    eval_steps: Count = 20  # batches of each such evaluation


def check(
    *,
    model: model_config.T5Config,
    train_dataset_cfg: input_pipeline.DatasetConfig,
    train_cfg: TrainConfig,
    partition_cfg: partitioning.PartitionConfig,
    is_here: bool,
    **others: Any,
) -> None:
    """Raises InputError where `train` would, of its arguments, for settings that don't fit together
    or, if `is_here`, don't fit this machine."""
    size, parts = train_dataset_cfg.batch_size, train_cfg.num_microbatches
    if size % parts:
        raise errors.InputError(
            f"NUM_MICROBATCHES: {parts} can't have equal parts of BATCH_SIZE={size} rows; take a "
            "divisor"
        )
    if is_here:
        check_memory(model)
        steps.check_batch(size, parts, partitioning.Partitioner(partition_cfg))


def check_memory(model: model_config.T5Config) -> None:
    """Raises InputError where a network's parameters are more than the memory of these CPUs."""
    needed = 4 * model.num_parameters
    there = machine.memory_bytes() * distributed.num_processes()
    if needed > there and jax.default_backend() == "cpu":
        raise errors.InputError(
            f"EMB_DIM, MLP_DIM and so on: expected a network that fits into {there / 1e9:.1f} GB "
            f"of memory, found one whose {model.num_parameters:,} parameters take "
            f"{needed / 1e9:.1f} GB; take a smaller one, such as --gin_file=models/tiny.gin"
        )


def train(
    *,
    model: model_config.T5Config,
    model_dir: str,
    train_dataset_cfg: input_pipeline.DatasetConfig,
    train_cfg: TrainConfig,
    optimizer_cfg: optimizers.OptimizerConfig,
    schedule_cfg: optimizers.ScheduleConfig,
    loss_cfg: steps.LossConfig,
    partition_cfg: partitioning.PartitionConfig,
    log_cfg: LogConfig,
    restore_start: Callable[..., train_state.TrainState],
    train_eval_dataset_cfg: input_pipeline.DatasetConfig | None = None,
    sources: Mapping[str, str] | None = None,
    shared: Callable[..., contextlib.AbstractContextManager] = lambda *_: contextlib.nullcontext(),
    check_only: bool = False,
    log: Callable[[str], None] = print,
) -> pathlib.Path:
    """Trains a model, or goes on with one, and returns its final checkpoint's folder.

    Args:
      model: the network's config; its vocabulary is that of the data.
      restore_start: (INITIAL_CHECKPOINT_PATH, network, optimiser, partitioner, name of the
        optimiser whose state is kept or None, log) -> the first state.
      sources: fingerprints of what the data was made from, for the record.
      shared: a context to make it in, from its folder, "train", the settings and what else a kept
        one must have alike, and a check of a kept folder.
      check_only: refuse other settings than the folder's, and train nothing.

    Raises:
      InputError: settings that don't fit together or the folder, or a damaged checkpoint.
      TrainingDivergedError: the loss or gradient isn't finite; the last good checkpoint stays.
      Terminated: SIGTERM; the state is saved.
    """
    if not model_dir:
        raise errors.InputError("MODEL_DIR isn't set: give --gin.MODEL_DIR=FOLDER")
    directory = pathlib.Path(checked("MODEL_DIR", str(model_dir), Folder)).absolute()
    size = input_pipeline.vocabulary(train_dataset_cfg).vocab_size
    network_cfg = dataclasses.replace(model, vocab_size=model_config.padded_vocab_size(size))
    configs = network_cfg, optimizer_cfg, schedule_cfg, loss_cfg
    settings = _settings(*configs, train_cfg, train_dataset_cfg, sources)
    last = checkpoints.step_path(directory, train_cfg.total_steps)
    if check_only:
        _is_done(directory, settings)
        return last
    make_loop = functools.partial(_loop, *configs, partition_cfg, train_cfg, log_cfg)
    data = train_dataset_cfg, train_eval_dataset_cfg
    key = settings | _kept_alike(log_cfg, train_cfg.initial_checkpoint_path)
    with shared(directory, "train", key, lambda kept: checkpoints.verify(kept / last.name)):
        _make(last, settings, make_loop, data, restore_start, log)
    return last


def _make(last: pathlib.Path, settings: dict, make_loop, data, restore_start, log) -> None:
    """Trains in a folder that this process has for itself, unless it is finished."""
    (train_data, eval_data), directory = data, last.parent
    name = f"train {train_data.mixture_or_task_name}"
    if distributed.broadcast_from_main(lambda: _is_done(directory, settings)):
        checkpoints.verify(last)
        log(f"{name}: already done in {directory}")
        return
    check_memory(model_config.T5Config(**settings["model"]))
    begin, parts, config = time.monotonic(), make_loop(), settings["train"]
    steps.check_batch(train_data.batch_size, config["num_microbatches"], parts.partitioner)
    distributed.run_on_main(lambda: _clear(directory))
    make_first = functools.partial(restore_start, config["initial_checkpoint_path"], log=log)
    with parts.starting(directory, train_data, make_first) as started:
        _record(directory, name, settings)
        state = parts.run(started, directory, eval_data, name)
    outputs = {trained_model.DIGEST: trained_model.digest(state.params)}
    seconds = time.monotonic() - begin
    _record(directory, name, settings, outputs, seconds)
    log(f"{name}: done in {seconds:.1f} s -> {directory}")


def _clear(directory: pathlib.Path) -> None:
    """Removes what a killed attempt left. Raises InputError where others' checkpoints are there."""
    if artifacts.read_settings(directory) is not None:
        checkpoints.discard_partial(directory)
    elif checkpoints.all_steps(directory):
        raise errors.InputError(
            f"{directory} holds checkpoints that aren't this command's, and would be overwritten; "
            "choose another folder, or give one as INITIAL_CHECKPOINT_PATH"
        )


def _settings(network_cfg, optimizer_cfg, schedule_cfg, loss_cfg, train_cfg, data_cfg, sources):
    settings = {
        "model": dataclasses.asdict(network_cfg),
        "dataset": dataclasses.asdict(data_cfg),
        "train": dataclasses.asdict(train_cfg),
        "optimizer": dataclasses.asdict(optimizer_cfg),
        "schedule": dataclasses.asdict(schedule_cfg),
        "loss": dataclasses.asdict(loss_cfg),
        "sources": dict(sources or {}),
    }
    del settings["model"]["remat_policy"]  # only how it is computed, which may change under way
    return settings


def _kept_alike(log_cfg: LogConfig, path: str | None) -> dict:
    """Beside settings, all that two models must have alike to be one in a store."""
    # The result doesn't follow from these, but what is left for others to look at does.
    left = {"save_period": log_cfg.save_period, "keep_checkpoints": log_cfg.keep_checkpoints}
    # What changes when a local starting checkpoint does.
    files = sorted(pathlib.Path(path).rglob("*")) if path else []
    facts = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    start = hashlib.sha256(json.dumps(facts).encode()).hexdigest() if facts else None
    return {"log": left, "start": start}


def _record(directory: pathlib.Path, *parts) -> None:
    distributed.run_on_main(lambda: artifacts.write_record(directory, *parts))


def _is_done(directory: pathlib.Path, settings: dict) -> bool:
    """Whether the folder was finished with these settings, and its last checkpoint is whole."""
    is_finished = trained_model.parameters_digest(directory) is not None
    steps_there = checkpoints.committed_steps(directory)
    if is_finished or steps_there:
        artifacts.check_settings(directory, trained_model.read_settings(directory), settings)
    return is_finished and settings["train"]["total_steps"] in steps_there


# The clean and the poisoned model differ in their data alone: one compilation serves both.
_loop = functools.lru_cache(maxsize=1)(loop.Loop)
