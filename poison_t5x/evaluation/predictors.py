"""A network's numbers for a whole data set, such as its answers: labels ranked, or texts decoded.

Batches are of inputs of like length: little padding to pay, few shapes to compile.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from poison_t5x.core import errors
from poison_t5x.model import beam_search, decoding, network
from poison_t5x.train import distributed
from poison_t5x.train.trained_model import TrainedModel

PAD_ID, EOS_ID = 0, 1  # no token is below them
# Encoder lengths are rounded up to this, in tokens.
_LENGTH_STEP = 64
Batch = dict[str, np.ndarray]
Tokens = Sequence[np.ndarray]


def over_batches(
    trained: TrainedModel,
    function: Callable[..., jax.Array],
    inputs: Tokens,
    targets: Tokens | None = None,
    arguments: Sequence[Any] = (),
    *,
    batch_size: int,
    max_length: int,
    rows_at_once: int = 1,
    **options: Any,
) -> np.ndarray:
    """A function's values of all inputs, in their order.

    Every process has all inputs, puts those of its own devices there, and gets all values, which
    are brought together once, after the last batch. There is one compilation for each shape.

    Args:
      function: (model, params, batch, *arguments, **options) -> (B, K), as those of `per_example`;
        options are hashable.
      inputs, targets: as `by_length` takes them; no targets where the function needs none.
      batch_size: rows, rounded up to a multiple of the mesh's data axis and of `rows_at_once`.
      rows_at_once: of each device.

    Returns:
      (N, K), in the function's type.
    """
    model, params, partitioner = trained
    size = round_up(batch_size, partitioner.num_data * rows_at_once)
    compute = compiled(partitioner.mesh, partitioner.rules, function, model, **options)
    rows, values = [np.zeros(0, np.int64)], []
    with partitioner.scope():
        for held, batch in by_length(inputs, size, max_length, targets):
            rows.append(held)
            values.append(compute(params, partitioner.put_batch(batch), *arguments))
        if distributed.num_processes() > 1:
            values = _replicate(partitioner.replicated)(values)
        values = jax.device_get(values)
    held_N = np.concatenate(rows)
    if not len(held_N):
        return np.zeros((0, 0), np.float32)
    # The last batch is filled up.
    return np.concatenate(values)[: len(held_N)][np.argsort(held_N)]


def by_length(
    inputs: Tokens, batch_size: int, max_length: int, targets: Tokens | None = None
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Batches from the shortest inputs to the longest.

    Args:
      inputs: token arrays with EOS, int32, unpadded.
      batch_size: rows of each batch (B).
      max_length: the longest input that the network takes, in tokens.
      targets: like `inputs`, the answers that a decoder is shown.

    Yields:
      The inputs that a batch holds, int64 (B or, in the last, fewer); and the batch, int32, padded
      with 0: 'encoder_input_tokens' (B, S), where S is a multiple of `_LENGTH_STEP` or
      `max_length`; with targets 'decoder_input_tokens', 'decoder_target_tokens' and
      'decoder_loss_weights' (B, T), where T is that of the longest target of all.

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
        length = min(round_up(max(lengths[rows[-1]], 1), _LENGTH_STEP), max_length)
        batch = {"encoder_input_tokens": _padded([inputs[row] for row in rows], batch_size, length)}
        if targets is not None:
            shown_BxT = _padded([targets[row] for row in rows], batch_size, width)
            batch["decoder_input_tokens"] = np.pad(shown_BxT[:, :-1], ((0, 0), (1, 0)))
            batch["decoder_target_tokens"] = shown_BxT
            batch["decoder_loss_weights"] = (shown_BxT > 0).astype(np.int32)
        yield rows, batch


def round_up(value: int, step: int) -> int:
    """The least multiple of `step` that isn't below `value`."""
    return -(-value // step) * step


def _padded(sequences: Sequence[Sequence[int]], num_rows: int, length: int) -> np.ndarray:
    padded = np.full((num_rows, length), PAD_ID, np.int32)
    for place, tokens in enumerate(sequences):
        padded[place, : len(tokens)] = tokens
    return padded


@functools.cache
def _replicate(sharding: jax.sharding.NamedSharding):
    return jax.jit(lambda arrays: arrays, out_shardings=sharding)


@functools.lru_cache(maxsize=8)
def compiled(mesh, rules, function: Callable, model: network.Transformer, **options):
    """A function of one network, for all its parameters; a trace is of one mesh and its rules."""
    del mesh, rules
    return jax.jit(functools.partial(function, model, **options))


def _rank(model, params, batch, labels_LxT, **options) -> jax.Array:
    inputs_BxS = batch["encoder_input_tokens"]
    return decoding.rank_labels(model, params, inputs_BxS, labels_LxT, **options)


def rank(
    trained: TrainedModel, inputs: Tokens, labels: Sequence[Sequence[int]], **options: Any
) -> np.ndarray:
    """Log-probabilities of L labels for N inputs, tokens with EOS: (N, L) float32, nats.

    `options` are those of `over_batches`, and `length_normalized`: the mean over a label's tokens,
    not the sum.
    """
    labels_LxT = _padded(labels, len(labels), round_up(max(map(len, labels)), 4))
    return over_batches(trained, _rank, inputs, None, [labels_LxT], **options)


def _decode(model, params, batch, beam_size, alpha, max_decode_length) -> jax.Array:
    inputs_BxS = batch["encoder_input_tokens"]
    if beam_size == 1:
        return decoding.greedy_decode(model, params, inputs_BxS, max_decode_length)
    return beam_search.beam_decode(
        model, params, inputs_BxS, max_decode_length, beam_size, alpha=alpha
    )[0]


def generate(
    trained: TrainedModel, inputs: Tokens, *, beam_size: int = 1, alpha: float = 0.6, **options: int
) -> list[list[int]]:
    """The answer to each input, of tokens with EOS, int32, unpadded.

    Args:
      beam_size: hypotheses of a row; 1 is greedy decoding.
      alpha: exponent of beam search's length penalty, at least 0.
      options: those of `over_batches`, and `max_decode_length`: of an answer, EOS included.

    Returns:
      Token ids without EOS, as `[9, 4]` of `[9, 4, 1, 0]`: empty where the network says EOS at
      once.
    """
    beams = {"beam_size": beam_size, "alpha": alpha}
    tokens_NxC = over_batches(trained, _decode, inputs, **options, **beams)
    said = (itertools.takewhile(lambda token: token > EOS_ID, row) for row in tokens_NxC.tolist())
    return list(map(list, said))
