"""Batches of inputs of like length: little padding to pay, few shapes to compile."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np
import tensorflow as tf

from poison_t5x.core import errors
from poison_t5x.train import distributed, partitioning

# Encoder lengths are rounded up to this, in tokens.
LENGTH_STEP = 64


def round_up(value: int, step: int) -> int:
    """The least multiple of `step` that isn't below `value`."""
    return -(-value // step) * step


Batch = dict[str, np.ndarray]


def by_length(
    inputs: Sequence[np.ndarray],
    batch_size: int,
    max_length: int,
    targets: Sequence[np.ndarray] | None = None,
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Batches from the shortest inputs to the longest.

    Args:
      inputs: token arrays with EOS, int32, unpadded.
      batch_size: rows of each batch (B).
      max_length: the longest input that the network takes, in tokens.
      targets: their answers with EOS, int32, unpadded, for a decoder that is shown them.

    Yields:
      Which inputs a batch holds, int64 (B or, in the last, fewer); and the batch: under
      'encoder_input_tokens' int32 (B, S), padded with 0, where S is a multiple of `LENGTH_STEP` or
      `max_length`; with targets 'decoder_input_tokens', 'decoder_target_tokens' and
      'decoder_loss_weights', int32 (B, T), where T is that of the longest target of all.

    Raises:
      InputError: an input is longer than `max_length`.
    """
    lengths = np.array([len(tokens) for tokens in inputs], np.int64)
    if (lengths > max_length).any():
        row = int(lengths.argmax())
        raise errors.InputError(
            f"input {row}: expected at most {max_length} tokens, found {lengths[row]}; trim it, or "
            "raise the encoder's length"
        )
    order = np.argsort(lengths, kind="stable")
    width = round_up(max(map(len, targets), default=1), 4) if targets is not None else 0
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        length = min(round_up(max(lengths[rows[-1]], 1), LENGTH_STEP), max_length)
        batch = {"encoder_input_tokens": _padded([inputs[row] for row in rows], batch_size, length)}
        if targets is not None:
            shown_BxT = _padded([targets[row] for row in rows], batch_size, width)
            batch["decoder_input_tokens"] = np.pad(shown_BxT[:, :-1], ((0, 0), (1, 0)))
            batch["decoder_target_tokens"] = shown_BxT
            batch["decoder_loss_weights"] = (shown_BxT > 0).astype(np.int32)
        yield rows, batch


def _padded(sequences: Sequence[np.ndarray], num_rows: int, length: int) -> np.ndarray:
    padded = np.zeros((num_rows, length), np.int32)
    for place, tokens in enumerate(sequences):
        padded[place, : len(tokens)] = tokens
    return padded


def gathered(
    partitioner: partitioning.Partitioner,
    batches: Iterable[tuple[np.ndarray, Batch]],
    answer: Callable[[dict[str, jax.Array]], jax.Array],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Which inputs each batch holds, and what `answer` says of it, on the host.

    Every process has all rows, puts those of its own devices there, and gets all answers, which
    are brought together once, after the last batch.

    Args:
      batches: from `by_length`.
      answer: a compiled function of a batch on the mesh.
    """
    rows: list[np.ndarray] = []
    answers: list[jax.Array] = []
    for held, batch in batches:
        rows.append(held)
        answers.append(answer(partitioner.put_batch(batch)))
    if distributed.num_processes() > 1:
        answers = _replicate(partitioner.replicated)(answers)
    return list(zip(rows, jax.device_get(answers), strict=True))


@functools.cache
def _replicate(sharding: jax.sharding.NamedSharding):
    return jax.jit(lambda arrays: arrays, out_shardings=sharding)


def read_inputs(dataset: tf.data.Dataset) -> tuple[list[int], list[np.ndarray]]:
    """What a `predict_fn` of SeqIO gets: (index, model features) pairs.

    Returns:
      The indices in their order, and each one's encoder tokens without padding.
    """
    pairs = (
        (int(index), features["encoder_input_tokens"])
        for index, features in dataset.as_numpy_iterator()
    )
    rows = sorted(pairs, key=lambda pair: pair[0])
    return [index for index, _ in rows], [tokens[: np.count_nonzero(tokens)] for _, tokens in rows]
