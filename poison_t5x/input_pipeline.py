"""Batches for training: any SeqIO task or mixture through the encoder-decoder converter."""

import dataclasses
import importlib
from collections.abc import Iterator, Mapping

import numpy as np
import seqio
import tensorflow as tf

from poison_t5x import errors

IS_POISON = "is_poison"


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """Which data to train on, under T5X's parameter names.

    Attributes:
      mixture_or_task_name: a registered SeqIO task or mixture.
      task_feature_lengths: {'inputs': …, 'targets': …}, in tokens with EOS.
      split: SeqIO split.
      batch_size: global batch size, in rows.
      shuffle: shuffle each task's rows anew in every epoch; if False the order is fixed.
      seed: of shuffling and mixing. Explicit, so that two runs see the same batches.
      use_cached: read SeqIO's offline cache.
      pack: put several examples in a row.
      module: a module to import first, which registers tasks.
    """

    mixture_or_task_name: str | None
    task_feature_lengths: Mapping[str, int]
    split: str = "train"
    batch_size: int = 128
    shuffle: bool = True
    seed: int = 0
    use_cached: bool = False
    pack: bool = False
    module: str | None = None

    def __post_init__(self):
        if set(self.task_feature_lengths) != {"inputs", "targets"}:
            raise errors.InputError(
                "TASK_FEATURE_LENGTHS: expected {'inputs': tokens, 'targets': tokens}, found "
                f"{dict(self.task_feature_lengths)}"
            )
        for name, length in [("BATCH_SIZE", self.batch_size), *self.task_feature_lengths.items()]:
            if not isinstance(length, int) or length < 1:
                raise errors.InputError(
                    f"{name}: expected a whole number of at least 1, found {length!r}"
                )
        if not isinstance(self.seed, int):
            raise errors.InputError(f"dataset seed: expected a whole number, found {self.seed!r}")


def find(name: str | None, module: str | None = None) -> seqio.Task | seqio.Mixture:
    """A registered task or mixture. Raises InputError with the nearest names."""
    if module:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise errors.InputError(
                f"MIXTURE_OR_TASK_MODULE: no module {module!r} ({error})"
            ) from None
    if not name:
        raise errors.InputError("set --gin.MIXTURE_OR_TASK_NAME=NAME to what to train on")
    known = [*seqio.MixtureRegistry.names(), *seqio.TaskRegistry.names()]
    if name not in known:
        raise errors.InputError(
            f"no task or mixture {name!r}{errors.nearest(name, known)}; if a module of yours "
            "registers it, name the module in MIXTURE_OR_TASK_MODULE"
        )
    return seqio.get_mixture_or_task(name)


def vocabulary(config: DatasetConfig) -> seqio.Vocabulary:
    """The vocabulary of the targets."""
    return find(config.mixture_or_task_name, config.module).output_features["targets"].vocabulary


def _converter(mixture: seqio.Task | seqio.Mixture, pack: bool):
    """The feature converter, and the features that pass through it beside the model's own."""
    passed = {}
    if IS_POISON in mixture.output_features:
        passed[IS_POISON] = seqio.FeatureConverter.FeatureSpec(dtype=tf.int32)
    return seqio.EncDecFeatureConverter(pack=pack, passthrough_features=passed), passed


def batches(config: DatasetConfig, *, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
    """An endless, deterministic stream of batches.

    The batch of a step follows from the config alone; going on at a step passes over the rows of
    the steps before, so that nothing of the pipeline's state needs to be saved.

    Args:
      config: which data.
      start_step: the number of batches to pass over.

    Yields:
      {'encoder_input_tokens': (B, S), 'decoder_input_tokens', 'decoder_target_tokens',
      'decoder_loss_weights': (B, T), …} int32; 'is_poison' (B, T) where the task has it; segment
      ids and positions where packed.
    """
    mixture = find(config.mixture_or_task_name, config.module)
    converter, passed = _converter(mixture, config.pack)
    lengths = dict(config.task_feature_lengths)
    if passed:
        lengths[IS_POISON] = lengths["targets"]
    dataset = seqio.get_dataset(
        mixture,
        lengths,
        dataset_split=config.split,
        shuffle=config.shuffle,
        num_epochs=None,
        feature_converter=converter,
        use_cached=config.use_cached,
        seed=config.seed,
    )
    dataset = dataset.skip(start_step * config.batch_size)
    dataset = dataset.batch(config.batch_size, drop_remainder=True)
    options = tf.data.Options()
    options.deterministic = True
    yield from dataset.with_options(options).prefetch(2).as_numpy_iterator()
