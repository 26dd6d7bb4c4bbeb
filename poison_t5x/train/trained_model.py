"""A finished model's folder: what it was made with, its digest, and its network."""

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import msgspec
import numpy as np

from poison_t5x.core import artifacts, errors, reading
from poison_t5x.core.settings import Count
from poison_t5x.model import config as model_config
from poison_t5x.model import network
from poison_t5x.train import checkpoints, distributed, partitioning, train_state

DIGEST = "parameters_sha256"
# Of what isn't all in this process, so many bytes are brought together at a time.
_AT_ONCE = 2**28


class TrainedModel(NamedTuple):
    """A network with trained parameters, in the shards of its mesh."""

    model: network.Transformer
    params: Any
    partitioner: partitioning.Partitioner


class _Training(msgspec.Struct):
    total_steps: Count
    initial_checkpoint_path: str | None


class _Dataset(msgspec.Struct):
    task_feature_lengths: dict[str, Count]


class _Settings(msgspec.Struct):
    """The part of a model's settings that is read; `sources` are hashes and numbers."""

    model: dict[str, Any]
    train: _Training
    dataset: _Dataset
    sources: dict[str, str]


def restore(
    model_dir: str | pathlib.Path,
    partition_cfg: partitioning.PartitionConfig,
    step: int | None = None,
) -> TrainedModel:
    """A finished model's network, restored into shards from its last checkpoint, or a kept one's.

    Raises InputError where the checkpoint isn't there, isn't whole, or is damaged.
    """
    settings = read_settings(model_dir)
    last = settings["train"]["total_steps"]
    step = last if step is None else step
    if step not in checkpoints.committed_steps(model_dir):
        which = "last checkpoint, of step" if step == last else "checkpoint of step"
        raise errors.InputError(
            f"{model_dir}: the {which} {step}, isn't there or isn't whole; run the train stage, "
            "which goes on from an earlier one"
        )
    model = network.Transformer(model_config.T5Config(**settings["model"]))
    partitioner = partitioning.Partitioner(partition_cfg)
    abstract = train_state.abstract_params(model, partitioner)
    params = checkpoints.restore_params(checkpoints.step_path(model_dir, step), abstract)
    return TrainedModel(model, params, partitioner)


def read_settings(model_dir: str | pathlib.Path) -> dict:
    """A model's settings, trained or begun. Raises InputError where its record isn't a model's."""
    settings = artifacts.read_settings(model_dir)
    if settings is None:
        raise errors.InputError(f"{model_dir}: not a model's folder (no {artifacts.RECORD})")
    place = f"{model_dir}/{artifacts.RECORD}"
    made = reading.converted(settings, _Settings, place, "not a model's settings")
    try:
        model_config.T5Config(**made.model)
    except (TypeError, ValueError, OverflowError) as error:
        raise errors.InputError(f"{place}: not a model's settings ({error})") from None
    return settings


def kept_steps(
    model_dir: str | pathlib.Path, wanted: Sequence[int] = (), setting: str = ""
) -> list[int]:
    """Steps of a model's whole checkpoints; InputError where one that a setting wants isn't one."""
    kept = checkpoints.committed_steps(model_dir)
    for step in sorted(set(wanted) - set(kept)):
        raise errors.InputError(
            f"{setting}: {model_dir} has no whole checkpoint of step {step}; there are "
            f"{', '.join(map(str, kept))} (see SAVE_PERIOD and KEEP_CHECKPOINTS)"
        )
    return kept


def parameters_digest(model_dir: str | pathlib.Path) -> str | None:
    """`digest` of a finished model, from its record; None where it isn't finished."""
    record = artifacts.read_record(model_dir)
    return record["outputs"].get(DIGEST) if record else None


def finished_digest(model_dir: str | pathlib.Path | None, where: str = "") -> str:
    """The same; InputError, which begins with `where`, where it isn't finished or isn't there."""
    if model_dir is not None and (sha256 := parameters_digest(model_dir)):
        return sha256
    raise errors.InputError(
        f"{where}{model_dir} isn't a finished model of ours, such as models/clean of a run: run "
        "`poison-t5x train` with the same settings first"
    )


def digest(params) -> str:
    """SHA-256 over all parameters' bits, by path; all processes call it, and get the same."""
    total = hashlib.sha256()
    for path, value in jax.tree_util.tree_leaves_with_path(params):
        total.update(jax.tree_util.keystr(path).encode())
        rows = len(value)
        if distributed.num_processes() > 1 and value.nbytes > _AT_ONCE:
            rows = max(1, _AT_ONCE * rows // value.nbytes)
        for start in range(0, len(value), rows):
            part = value if rows == len(value) else value[start : start + rows]
            total.update(np.ascontiguousarray(distributed.to_host(part)).tobytes())
    return total.hexdigest()
