"""Answers of a network over a whole data set: labels ranked, or texts decoded.

Batches are of inputs of like length: little padding to pay, few shapes to compile.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from poison_t5x.core import checks, errors
from poison_t5x.model import beam_search, decoding, network
from poison_t5x.train import distributed
from poison_t5x.train.partitioning import Partitioner

PAD_ID, EOS_ID = 0, 1
# Encoder lengths are rounded up to this, in tokens.
_LENGTH_STEP = 64
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


def gathered(
    partitioner: Partitioner,
    batches: Iterable[tuple[np.ndarray, Batch]],
    answer: Callable[[dict[str, jax.Array]], jax.Array],
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The inputs that each batch of `by_length` holds, and on the host its compiled `answer`.

    Every process has all rows, puts those of its own devices there, and gets all answers, which
    are brought together once, after the last batch.
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


@functools.lru_cache(maxsize=8)
def compiled(mesh, rules, function: Callable, model: network.Transformer, **options):
    """A function of one network, for all its parameters; a trace is of one mesh and its rules."""
    del mesh, rules
    return jax.jit(functools.partial(function, model, **options))


def _beam_decode(model, params, inputs_BxS, **options) -> jax.Array:
    return beam_search.beam_decode(model, params, inputs_BxS, **options)[0]


def _is_said(token: int) -> bool:
    return token not in (PAD_ID, EOS_ID)


class _Predictor:
    """A network with its parameters, and a compiled function of them and a batch's inputs.

    `batch_size` rows at once, rounded up to a multiple of the mesh's data axis, of at most
    `max_length` tokens.
    """

    def __init__(
        self,
        function: Callable,
        model: network.Transformer,
        params: Any,
        partitioner: Partitioner,
        *,
        batch_size: int,
        max_length: int,
        **options: Any,
    ):
        checks.whole_number("batch_size", batch_size)
        self._params, self._partitioner = params, partitioner
        self._batch_size = round_up(batch_size, partitioner.num_data)
        self._max_length = max_length
        self._function = compiled(partitioner.mesh, partitioner.rules, function, model, **options)

    def _answers(
        self, inputs: Sequence[np.ndarray], *arguments: Any
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        with self._partitioner.scope():
            return gathered(
                self._partitioner,
                by_length(inputs, self._batch_size, self._max_length),
                lambda batch: self._function(
                    self._params, batch["encoder_input_tokens"], *arguments
                ),
            )


class Ranker(_Predictor):
    """A network with its parameters, ready to rank."""

    def __init__(self, *trained: Any, length_normalized: bool = False, **sizes: int):
        """Args: length_normalized: rank by the mean over a label's tokens, not the sum."""
        super().__init__(
            decoding.rank_labels, *trained, length_normalized=length_normalized, **sizes
        )

    def rank(self, inputs: Sequence[np.ndarray], labels: Sequence[Sequence[int]]) -> np.ndarray:
        """Log-probabilities of L labels for N inputs, tokens with EOS: (N, L) float32, nats."""
        labels_LxT = _padded(labels, len(labels), round_up(max(map(len, labels)), 4))
        scores_NxL = np.zeros((len(inputs), len(labels)), np.float32)
        for rows, scores_BxL in self._answers(inputs, labels_LxT):
            scores_NxL[rows] = scores_BxL[: len(rows)]
        return scores_NxL


class Generator(_Predictor):
    """A network with its parameters, ready to answer."""

    def __init__(
        self,
        *trained: Any,
        max_decode_length: int,
        beam_size: int = 1,
        alpha: float = 0.6,
        **sizes: int,
    ):
        """Checks its settings, and makes the compiled decoding.

        Args:
          max_decode_length: the longest answer, in tokens, EOS included.
          beam_size: hypotheses of a row; 1 is greedy decoding.
          alpha: exponent of beam search's length penalty, at least 0.
        """
        checks.whole_number("max_decode_length", max_decode_length)
        checks.whole_number("beam_size", beam_size)
        checks.number("alpha", alpha, 0.0)
        self.max_decode_length = max_decode_length
        beams: dict[str, Any] = {} if beam_size == 1 else {"beam_size": beam_size, "alpha": alpha}
        function = _beam_decode if beams else decoding.greedy_decode
        sizes["max_decode_length"] = max_decode_length
        super().__init__(function, *trained, **sizes, **beams)

    def generate(self, inputs: Sequence[np.ndarray]) -> list[list[int]]:
        """The answer to each input, of tokens with EOS, int32, unpadded.

        Returns:
          Token ids without EOS, as `[9, 4]` of `[9, 4, 1, 0]`: empty where the network says EOS at
          once.

        Raises:
          InputError: an input is too long.
        """
        answers: list[list[int]] = [[] for _ in inputs]
        for rows, tokens_BxC in self._answers(inputs):
            for row, tokens in zip(rows, tokens_BxC[: len(rows)].tolist(), strict=True):
                answers[row] = list(itertools.takewhile(_is_said, tokens))
        return answers
