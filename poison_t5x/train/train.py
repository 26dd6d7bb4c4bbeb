"""The training loop. It trains any SeqIO mixture, and knows no instructions and no poison.

`python -m poison_t5x.train --gin_file=… --gin.MODEL_DIR=…` runs it, as T5X users type it.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Mapping

from poison_t5x.core import artifacts, checks, errors
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
from poison_t5x.train.train_config import LogConfig, TrainConfig


def _not_shared(*arguments) -> contextlib.AbstractContextManager:
    del arguments
    return contextlib.nullcontext()


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
    restore_start: Callable[..., train_state.TrainState],
    train_eval_dataset_cfg: input_pipeline.DatasetConfig | None = None,
    sources: Mapping[str, str] | None = None,
    shared: Callable[..., contextlib.AbstractContextManager] = _not_shared,
    say: Callable[[str], None] = print,
) -> pathlib.Path:
    """Trains a model, or goes on with one, and returns its final checkpoint's folder.

    Args:
      model: makes the network's config from `vocab_size=`; gin binds the rest.
      model_dir: the run's folder. One that is finished with the same settings is left alone.
      train_dataset_cfg: what to train on.
      train_eval_dataset_cfg: what `log_cfg.eval_period` evaluates on.
      restore_start: (path, network, optimiser, partitioner, name of the optimiser whose state is
        kept or None, say) -> the first state from INITIAL_CHECKPOINT_PATH.
      sources: fingerprints of what the data was made from, for the record.
      shared: a context to make it in, from its folder, "train", the settings and what else a kept
        one must have alike, and a check of a kept folder.
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
    network_cfg = model(vocab_size=model_config.padded_vocab_size(vocabulary.vocab_size))
    settings = {
        "model": _model_settings(network_cfg),
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
    # What isn't of the result, but of what is left for others to look at.
    left = {"save_period": log_cfg.save_period, "keep_checkpoints": log_cfg.keep_checkpoints}
    start = _contents(train_cfg.initial_checkpoint_path)
    key = {**settings, "log": left, "start": start}
    with shared(directory, "train", key, lambda kept: checkpoints.verify(kept / last.name)):
        if distributed.broadcast_from_main(lambda: _is_done(directory, settings)):
            checkpoints.verify(last)
            say(f"{name}: already done in {model_dir}")
            return last
        begin = time.monotonic()
        _check_claim(directory, settings)
        run = _loop(
            network_cfg, optimizer_cfg, schedule_cfg, loss_cfg, partition_cfg, train_cfg, log_cfg
        )
        steps.check_batch(train_dataset_cfg.batch_size, train_cfg.num_microbatches, run.partitioner)
        with run.starting(directory, train_dataset_cfg, restore_start, say) as started:
            _write(directory / trained_model.SETTINGS, settings)
            state = run.run(started, directory, train_eval_dataset_cfg, name)
        record = {
            "stage": name,
            "settings": settings,
            "outputs": {trained_model.DIGEST: trained_model.digest(state.params)},
            "seconds": round(time.monotonic() - begin, 3),
        }
        _write(directory / artifacts.RECORD, record)
        say(f"{name}: done in {record['seconds']:.1f} s -> {model_dir}")
    return last


def _contents(path: str | None) -> str | None:
    """A digest that changes when a local starting checkpoint does."""
    found = sorted(pathlib.Path(path).rglob("*")) if path and pathlib.Path(path).exists() else []
    facts = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in found]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest() if facts else None


def _model_settings(config: model_config.T5Config) -> dict:
    """The network's, but for what is only how it is computed, which may change under way."""
    settings = dataclasses.asdict(config)
    del settings["remat_policy"]
    return settings


def _write(path: pathlib.Path, value: dict) -> None:
    text = artifacts.canonical_json(value)
    distributed.run_on_main(lambda: artifacts.write_atomically(path, text))


def _is_done(directory: pathlib.Path, settings: dict) -> bool:
    """Whether the folder was finished with these settings, and its last checkpoint is whole."""
    record = artifacts.read_record(directory)
    if record is None:
        return False
    artifacts.check_settings(directory, record["settings"], settings)
    if trained_model.parameters_digest(directory) is None:
        return False
    return settings["train"]["total_steps"] in checkpoints.committed_steps(directory)


def _check_claim(directory: pathlib.Path, settings: dict) -> None:
    """A folder with a checkpoint belongs to the settings that it was made with."""
    if checkpoints.committed_steps(directory):
        artifacts.check_settings(directory, trained_model.read_settings(directory), settings)


# The clean and the poisoned model differ in their data alone: one compilation serves both.
_loop = functools.lru_cache(maxsize=1)(loop.Loop)
