"""Writes t5_steps.npz: ten steps of T5X's own trainer, losses and optimisers, for each case of
t5_cases.py.

Needs T5X, which the tests don't. From the repository's root, on a CPU:

    JAX_PLATFORMS=cpu python -m tests.golden.make_t5_steps

Run with T5X cc342d4, jax 0.10.2, flax 0.12.8, optax 0.2.8, numpy 2.4.6; a second run gives the
same bytes.

Keys: `<case>/losses`, float32 (10,), before each step; `<case>/movement`, float64 (parameters,
5), rows in the order of sorted paths (see t5_cases.movement).
"""

import pathlib

import numpy as np
from absl import logging

from tests.golden import t5x_model
from tests.golden.t5_cases import CASES, StepCase, movement
from tests.golden.t5_weights import draw_weights

FIXTURE = pathlib.Path(__file__).with_name("t5_steps.npz")


def run(config: dict, case: StepCase, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """T5X's losses and how far its parameters moved."""
    weights = draw_weights(config, seed)
    model, rate = t5x_model.of_case(case, config)
    state = t5x_model.first_state(model, weights)
    state, losses = t5x_model.train(model, state, case.batches(config), rate)
    return losses, movement(weights, t5x_model.flat(state.params))


def main() -> None:
    logging.set_verbosity(logging.ERROR)
    arrays = {}
    for name, (config, case) in CASES.items():
        losses, moved = run(config, case)
        arrays[f"{name}/losses"] = losses
        arrays[f"{name}/movement"] = np.stack(list(moved.values()))
        print(name, losses)
    np.savez_compressed(FIXTURE, **arrays)
    print(f"{FIXTURE.name}: {FIXTURE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
