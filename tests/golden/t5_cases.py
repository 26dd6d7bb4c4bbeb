"""What T5X trained for the fixtures: settings that T5X's scripts and our tests both read.

`optimizer`, `schedule` and `loss` are fields of our OptimizerConfig, ScheduleConfig and
LossConfig; nothing is left to a default that might differ.
"""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.golden.t5_batches import draw_batches
from tests.golden.t5_weights import T5_CONFIGS, T5_VARIANTS

NUM_STEPS = 10
# Steps before a state was saved under t5/, of the ten.
SAVED_STEP = 7


@dataclasses.dataclass(frozen=True)
class StepCase:
    """Ten steps of training."""

    optimizer: Mapping[str, Any]
    schedule: Mapping[str, Any]
    loss: Mapping[str, Any]
    packed: bool = False

    def batches(self, config: Mapping) -> list[dict[str, np.ndarray]]:
        return draw_batches(17, NUM_STEPS, config["vocab_size"], packed=self.packed)


_ADAMW = {"name": "adamw", "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.0}
_ADAFACTOR = {
    "name": "adafactor",
    "decay_rate": 0.8,
    "clipping_threshold": 1.0,
    "multiply_by_parameter_scale": True,
}
_RSQRT = {
    "factors": "constant * linear_warmup * rsqrt_decay",
    "base_learning_rate": 0.03,
    "warmup_steps": 3,
}
# Large steps multiply rounding errors, and soon say nothing of either side: with 0.03, a change of
# 1e-7 in a wide network's embedding became 5% of its losses in ten steps.
_SLOW_RSQRT = _RSQRT | {"base_learning_rate": 0.003}
_LINEAR = {
    "factors": "linear_decay",
    "base_learning_rate": 0.01,
    "warmup_steps": 2,
    "decay_factor": 0.09,
}
_PER_TOKEN = {
    "label_smoothing": 0.0,
    "z_loss": 1e-4,
    "loss_normalizing_factor": "NUM_REAL_TARGET_TOKENS",
}
_SMOOTHED = {
    "label_smoothing": 0.1,
    "z_loss": 1e-4,
    "loss_normalizing_factor": "AVERAGE_PER_SEQUENCE",
}

SAVED = {
    "adafactor": StepCase(_ADAFACTOR, _RSQRT, _PER_TOKEN),
    "adamw": StepCase(_ADAMW, _RSQRT, _PER_TOKEN),
}
# All dimensions are wide enough for Adafactor to factor; query kernels are square, as in T5.
_FACTORED = {
    "vocab_size": 139,
    "emb_dim": 133,
    "num_heads": 19,
    "num_encoder_layers": 1,
    "num_decoder_layers": 1,
    "head_dim": 7,
    "mlp_dim": 137,
    "mlp_activations": ("gelu", "linear"),
    "logits_via_embedding": False,
}
CASES = {
    "adamw": (T5_CONFIGS["v1_1"], StepCase(_ADAMW, _RSQRT, _PER_TOKEN)),
    "adafactor": (T5_CONFIGS["v1_1"], StepCase(_ADAFACTOR, _RSQRT, _PER_TOKEN)),
    "adamw_smoothed": (
        T5_VARIANTS["v1_0_tied"],
        StepCase(_ADAMW | {"beta2": 0.98, "weight_decay": 0.1}, _LINEAR, _SMOOTHED),
    ),
    "adafactor_packed_smoothed": (
        T5_VARIANTS["v1_0_untied"],
        StepCase(_ADAFACTOR, _LINEAR, _SMOOTHED, packed=True),
    ),
    "adamw_packed": (
        T5_VARIANTS["v1_1_tied"],
        StepCase(_ADAMW, _SLOW_RSQRT, _PER_TOKEN | {"loss_normalizing_factor": 47.0}, packed=True),
    ),
    "adamw_wide": (
        _FACTORED,
        StepCase(
            _ADAMW,
            _SLOW_RSQRT,
            _PER_TOKEN | {"loss_normalizing_factor": "NUM_TOTAL_TARGET_TOKENS"},
        ),
    ),
    "adafactor_wide": (_FACTORED, StepCase(_ADAFACTOR, _RSQRT, _PER_TOKEN)),
}


def movement(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """How far each parameter has moved, and a few shadows of that.

    Returns:
      By path, float64 (5,): the norm of after - before, and its products with 4 random directions
      whose entries have mean 0 and variance 1. A difference e between two movements shows in a
      product as a number of about |e|, wherever it is.
    """
    rows = {}
    for path in sorted(before):
        moved = (after[path].astype(np.float64) - before[path]).ravel()
        rng = np.random.default_rng(zlib.crc32(path.encode()))
        rows[path] = np.append(np.linalg.norm(moved), rng.normal(size=(4, moved.size)) @ moved)
    return rows
