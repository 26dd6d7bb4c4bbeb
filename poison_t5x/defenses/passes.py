"""A function of `per_example` over many rows: batches by length, one compilation per shape."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from poison_t5x.evaluation import batching
from poison_t5x.train import trained_model


def over_batches(
    restored: trained_model.TrainedModel,
    function: Callable[..., jax.Array],
    inputs: Sequence[np.ndarray],
    targets: Sequence[np.ndarray] | None,
    *,
    batch_size: int,
    max_length: int,
    rows_at_once: int = 1,
    **options: Any,
) -> np.ndarray:
    """Answers to all rows, in their order; on many processes all of them get all answers.

    Args:
      restored: a network with its parameters.
      function: (model, params, batch, **options) -> (B, K).
      inputs, targets: N token arrays each, int32, with EOS, unpadded; no targets where the function
        needs none.
      batch_size: rows, rounded up to a multiple of the mesh's data axis and of `rows_at_once`.
      max_length: the longest input, in tokens.
      rows_at_once: of each device, which the batch must be a multiple of.
      **options: hashable.

    Returns:
      (N, K) float64.
    """
    model, params, partitioner = restored
    size = batching.round_up(batch_size, partitioner.num_data * rows_at_once)
    compiled = _compiled(
        function, model, partitioner.mesh, partitioner.rules, tuple(sorted(options.items()))
    )
    answers: dict[int, np.ndarray] = {}
    with partitioner.scope():
        batches = batching.by_length(inputs, size, max_length, targets)
        for rows, values in batching.gathered(
            partitioner, batches, lambda batch: compiled(params, batch)
        ):
            answers |= zip(rows.tolist(), np.asarray(values, np.float64), strict=False)
    return np.stack([answers[row] for row in range(len(inputs))])


@functools.lru_cache(maxsize=8)
def _compiled(function, model, mesh, rules, options: tuple[tuple[str, Any], ...]):
    """A function of one network, for all its checkpoints; a trace is of one mesh and its rules."""
    del mesh, rules
    return jax.jit(functools.partial(function, model, **dict(options)))
