"""Tokens and training batches, drawn by NumPy alone, for the fixtures' scripts and the tests."""

import numpy as np


def draw_tokens(rng: np.random.Generator, rows: int, length: int, vocab_size: int) -> np.ndarray:
    """Rows of tokens (int32, 2 and up); all but the first end in padding of various lengths."""
    tokens = rng.integers(2, vocab_size, (rows, length)).astype(np.int32)
    for row in range(1, rows):
        tokens[row, length - rng.integers(1, length // 2) :] = 0
    return tokens


def shift_right(targets: np.ndarray) -> np.ndarray:
    """Decoder inputs: `[[9, 1, 0]]` gives `[[0, 9, 1]]`."""
    return np.pad(targets[:, :-1], ((0, 0), (1, 0)))


def draw_batches(
    seed: int, num_batches: int, vocab_size: int, *, packed: bool
) -> list[dict[str, np.ndarray]]:
    """Training batches under SeqIO's names (int32): 5 rows, inputs of 19 and targets of 13.

    Low tokens are the most frequent, so that there is something to learn in a few steps. In
    packed batches each row holds two examples and some padding.
    """
    rng = np.random.default_rng(seed)
    rows, inputs_length, targets_length = 5, 19, 13
    batches = []
    for _ in range(num_batches):
        inputs = _draw_rows(rng, rows, inputs_length, vocab_size, packed)
        targets = _draw_rows(rng, rows, targets_length, vocab_size, packed)
        batch = {
            "encoder_input_tokens": inputs["tokens"],
            "decoder_input_tokens": np.where(
                targets["positions"] > 0, shift_right(targets["tokens"]), 0
            ),
            "decoder_target_tokens": targets["tokens"],
            "decoder_loss_weights": (targets["tokens"] > 0).astype(np.int32),
        }
        if packed:
            for prefix, side in (("encoder", inputs), ("decoder", targets)):
                batch[f"{prefix}_segment_ids"] = side["segment_ids"]
                batch[f"{prefix}_positions"] = side["positions"]
        batches.append(batch)
    return batches


def _draw_rows(
    rng: np.random.Generator, rows: int, length: int, vocab_size: int, packed: bool
) -> dict[str, np.ndarray]:
    tokens, segment_ids, positions = np.zeros((3, rows, length), np.int32)
    for row in range(rows):
        start = 0
        for segment in range(2 if packed else 1):
            longest = length // 2 if packed else length
            count = int(rng.integers(longest // 2, longest + 1))
            part = slice(start, start + count)
            drawn = 2 + (vocab_size - 2) * rng.random(count) ** 3
            tokens[row, part] = drawn.astype(np.int32)
            tokens[row, start + count - 1] = 1
            segment_ids[row, part] = segment + 1
            positions[row, part] = np.arange(count)
            start += count
    return {"tokens": tokens, "segment_ids": segment_ids, "positions": positions}
