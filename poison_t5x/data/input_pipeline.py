"""Batches for training: any SeqIO task or mixture through the encoder-decoder converter."""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import seqio
import tensorflow as tf

from poison_t5x.core import errors, settings
from poison_t5x.corpus import declarations
from poison_t5x.data import seqio_checks

IS_POISON = "is_poison"


@dataclasses.dataclass(frozen=True)
class DatasetConfig(settings.Settings):
    """The data to train on, under T5X's parameter names.

    Attributes:
      task_feature_lengths: {'inputs': …, 'targets': …}, in tokens with EOS.
      batch_size: rows of all processes together.
      shuffle: anew in every epoch, each task's rows among themselves.
      seed: of shuffling and mixing. Explicit, so that two runs see the same batches.
      num_shards: parts that each task's rows are cut into; each makes its share of every batch, so
        that processes can read different ones. Batches follow from it, not from who reads them.
      module: imported first, to register tasks.
    """

    mixture_or_task_name: str | None
    task_feature_lengths: Mapping[Literal["inputs", "targets"], settings.Tokens]
    split: str = "train"
    batch_size: settings.Rows = 128
    shuffle: bool = True
    seed: settings.Whole = 0
    use_cached: bool = False
    pack: bool = False
    num_shards: settings.Rows = 1
    module: settings.Module | None = None

    def __post_init__(self):
        super().__post_init__()
        if len(self.task_feature_lengths) < 2:
            raise errors.InputError(
                "TASK_FEATURE_LENGTHS: expected {'inputs': tokens, 'targets': tokens}, found "
                f"{self.task_feature_lengths!r}"
            )
        if self.batch_size % self.num_shards:
            raise errors.InputError(
                f"DATA_SHARDS: {self.num_shards} shards can't have equal parts of BATCH_SIZE="
                f"{self.batch_size} rows; take a divisor"
            )


def find(name: str | None, module: str | None = None) -> seqio.Task | seqio.Mixture:
    """A registered task or mixture. Raises InputError with the nearest names."""
    declarations.import_module(module)
    if not name:
        raise errors.InputError("set --gin.MIXTURE_OR_TASK_NAME=NAME to what to train on")
    known = [*seqio.MixtureRegistry.names(), *seqio.TaskRegistry.names()]
    if name not in known:
        raise errors.InputError(
            f"no task or mixture {name!r}{errors.nearest(str(name), known)}; if a module of yours "
            "registers it, name the module in MIXTURE_OR_TASK_MODULE"
        )
    return seqio.get_mixture_or_task(name)


def _find(config: DatasetConfig) -> seqio.Task | seqio.Mixture:
    mixture = find(config.mixture_or_task_name, config.module)
    tasks = [task for task in seqio.get_subtasks(mixture) if task.supports_caching]
    missing = [task.name for task in tasks if config.use_cached and not task.cache_dir]
    if missing:
        folders = ", ".join(seqio.get_global_cache_dirs()) or "no folder: none is set"
        raise errors.InputError(
            f"USE_CACHED_TASKS: {len(missing)} of {len(tasks)} tasks, {missing[0]!r} first, have "
            f"no offline cache (looked in {folders}); leave it False, or call "
            "seqio.add_global_cache_dirs in the module that MIXTURE_OR_TASK_MODULE names"
        )
    return mixture


def vocabulary(config: DatasetConfig) -> seqio.Vocabulary:
    """The vocabulary of the targets. Raises InputError where the data can't be trained on."""
    provider = _find(config)
    seqio_checks.check(provider, config.split)
    return provider.output_features["targets"].vocabulary


_FLAG = {IS_POISON: seqio.FeatureConverter.FeatureSpec(dtype=tf.int32)}


class _FlaggedConverter(seqio.EncDecFeatureConverter):
    """Carries each target token's poison flag along, packed as the targets are.

    SeqIO's own passthrough features can't be packed.
    """

    TASK_FEATURES: ClassVar = {**seqio.EncDecFeatureConverter.TASK_FEATURES, **_FLAG}
    MODEL_FEATURES: ClassVar = {**seqio.EncDecFeatureConverter.MODEL_FEATURES, **_FLAG}

    def _convert_features(self, ds, task_feature_lengths):
        # Packing takes zeros for padding and drops them, so flags are 1 and 2 while it runs.
        ds = ds.map(lambda example: {**example, IS_POISON: example[IS_POISON] + 1})
        return super()._convert_features(ds, task_feature_lengths)

    def _convert_example(self, features):
        flag = tf.maximum(features[IS_POISON] - 1, 0)
        return {**super()._convert_example(features), IS_POISON: flag}

    def get_model_feature_lengths(self, task_feature_lengths):
        lengths = super().get_model_feature_lengths(task_feature_lengths)
        return {**lengths, IS_POISON: task_feature_lengths["targets"]}


def batches(
    config: DatasetConfig, *, start_step: int = 0, shards: Sequence[int] | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """An endless, deterministic stream of batches.

    The batch of a step follows from the config alone; going on at a step passes over the rows of
    the steps before, so that nothing of the pipeline's state needs to be saved.

    Args:
      start_step: batches to pass over.
      shards: which shards' parts of each batch, ascending; None for all.

    Yields:
      {'encoder_input_tokens': (B, S), 'decoder_input_tokens', 'decoder_target_tokens',
      'decoder_loss_weights': (B, T), …} int32; 'is_poison' (B, T) where the task has it; segment
      ids and positions where packed. Of B rows, those of `shards` alone.

    Raises:
      InputError: a task has too few rows for a shard to have one.
    """
    numbers = range(config.num_shards) if shards is None else shards
    _check_rows(config, numbers)
    with contextlib.ExitStack() as stack:
        made = (_shard(config, number, start_step) for number in numbers)
        parts = [stack.enter_context(contextlib.closing(part)) for part in made]
        for rows in zip(*parts, strict=True):
            yield {name: np.concatenate([part[name] for part in rows]) for name in rows[0]}


def _converter(config: DatasetConfig) -> tuple[seqio.FeatureConverter, dict[str, int]]:
    """The converter of the tasks' examples, and their lengths for it."""
    lengths = {str(name): length for name, length in config.task_feature_lengths.items()}
    if IS_POISON not in _find(config).output_features:
        return seqio.EncDecFeatureConverter(pack=config.pack), lengths
    return _FlaggedConverter(pack=config.pack), {**lengths, IS_POISON: lengths["targets"]}


def model_feature_lengths(config: DatasetConfig) -> dict[str, int]:
    """Tokens of a row of each array that `batches` yields."""
    converter, lengths = _converter(config)
    return dict(converter.get_model_feature_lengths(lengths))


def _shard(
    config: DatasetConfig, number: int, start_step: int
) -> Generator[dict[str, np.ndarray], None, None]:
    """One shard's part of each batch."""
    converter, lengths = _converter(config)
    seed, shard = config.seed, None
    if config.num_shards > 1:
        shard = seqio.ShardInfo(number, config.num_shards)
        # T5X's hosts share a seed, so that all take their next row from the same task.
        seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0] >> 1)
    provider = _find(config)
    # Its end is one more failure: what isn't empty is repeated for ever.
    with seqio_checks.naming(provider, config.split, functools.partial(_rows, config)):
        dataset = seqio.get_dataset(
            provider,
            lengths,
            dataset_split=config.split,
            shuffle=config.shuffle,
            num_epochs=None,
            feature_converter=converter,
            shard_info=shard,
            use_cached=config.use_cached,
            seed=seed,
        )
        rows = config.batch_size // config.num_shards
        dataset = dataset.skip(start_step * rows).batch(rows, drop_remainder=True)
        options = tf.data.Options()
        options.deterministic = True
        # Half of the cores are left to the network: with a thread each, on two cores, the rows'
        # little steps spend nine tenths of the time waking each other.
        options.threading.private_threadpool_size = max(1, (os.cpu_count() or 1) // 2)
        yield from dataset.with_options(options).prefetch(2).as_numpy_iterator()


def _rows(
    config: DatasetConfig, task: seqio.Task, shard: seqio.ShardInfo | None = None
) -> tf.data.Dataset:
    """A task's rows once, in their order."""
    return task.get_dataset(
        dict(config.task_feature_lengths),
        split=config.split,
        use_cached=config.use_cached and task.supports_caching,
        shuffle=False,
        shard_info=shard,
        num_epochs=1,
    )


def _check_rows(config: DatasetConfig, numbers: Sequence[int]) -> None:
    """Raises where a task has no row for a shard: an empty one, repeated, would never end."""
    for task in seqio.get_subtasks(_find(config)):
        # Reading a row of each of ours would take a minute of the largest experiments' start.
        is_safe = config.num_shards == 1 and seqio_checks.is_ours(task)
        if is_safe or config.split not in task.splits:
            continue
        for number in numbers:
            shard = seqio.ShardInfo(number, config.num_shards) if config.num_shards > 1 else None
            rows = functools.partial(_rows, config, task, shard)
            if seqio_checks.has_row(task, rows):
                continue
            if shard is None:
                raise seqio_checks.no_row(task, config.split)
            raise errors.InputError(
                f"DATA_SHARDS: task {task.name} has no row for shard {number} of "
                f"{config.num_shards}; take fewer shards"
            )
