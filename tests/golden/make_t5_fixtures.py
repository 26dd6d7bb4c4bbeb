"""Writes t5/<variant>/: one tiny T5 as Hugging Face's and T5X's own code save and run it.

Needs T5X, torch and transformers, which the tests don't. From the repository's root, on a CPU:

    JAX_PLATFORMS=cpu python -m tests.golden.make_t5_fixtures

Run with T5X cc342d4, jax 0.10.2, flax 0.12.8, optax 0.2.8, orbax-checkpoint 0.12.8, tensorstore
0.1.86, transformers 5.24.0, torch 2.13.0, numpy 2.4.6. A second run gives the same bytes but in
the `t5x_orbax*` folders, where Orbax writes times, and names files at random.

Each variant's weights are those of t5_weights.py, the same bits in each form:

    expected.npz         arrays, listed at `expected_arrays`
    huggingface/         transformers' save_pretrained
    t5x/checkpoint_7/    T5X's Checkpointer: a msgpack index and a zarr for each tensor; with the
                         state of Adafactor after 7 steps

`v1_1_untied` has also

    t5x_orbax/checkpoint_7/    the same state, by T5X's OrbaxCheckpointManagerInterface
    huggingface_sharded/       in several files with an index
    huggingface_bfloat16/      rounded

and `v1_0_tied` has AdamW's state in `t5x_adamw/` and `t5x_orbax_adamw/`. `wide` has `t5x/` only:
its embedding is wide enough for Adafactor to hold a row and a column of it.

One thing in these folders isn't the libraries' own: Orbax notes the absolute path of a
checkpoint in each `commit_success.txt`, and here it is made to begin at `t5/`.
"""

import os
import pathlib
import shutil
from importlib import metadata

import jax
import numpy as np
import torch
import transformers
from absl import logging
from t5x import train_state

from tests.golden import huggingface_model, t5x_model
from tests.golden.t5_batches import draw_tokens
from tests.golden.t5_cases import SAVED, SAVED_STEP
from tests.golden.t5_weights import T5_VARIANTS, WIDE, draw_weights

FOLDER = pathlib.Path(__file__).with_name("t5")
# Longer than max_distance (128), so that every relative-position bucket is used.
ROWS, INPUTS_LENGTH, TARGETS_LENGTH = 2, 149, 131
# Of the logits, those of every 11th target are kept.
EVERY = 11
NUM_PROMPTS, PROMPT_LENGTH, OUTPUT_LENGTH = 11, 19, 23
# So far apart are the best two tokens of each greedy step at least, in largest logits: what two
# implementations may differ by.
LEAST_MARGIN = 1e-4
# Of those tried, one whose greedy steps hang on no rounding error, and end or don't.
TOKEN_SEED = 4


def make_variant(name: str, config: dict) -> None:
    folder, weights = FOLDER / name, draw_weights(config)
    folder.mkdir()
    hugging_face = huggingface_model.build(config, weights)
    hugging_face.save_pretrained(folder / "huggingface")
    states = {"adafactor": trained_state("adafactor", config, weights)}
    save(states["adafactor"], folder / "t5x", orbax=False)
    if name == "v1_1_untied":
        save(states["adafactor"], folder / "t5x_orbax", orbax=True)
        hugging_face.save_pretrained(folder / "huggingface_sharded", max_shard_size="9KB")
        rounded = huggingface_model.build(config, weights).to(torch.bfloat16)
        rounded.save_pretrained(folder / "huggingface_bfloat16")
    if name == "v1_0_tied":
        states["adamw"] = trained_state("adamw", config, weights)
        save(states["adamw"], folder / "t5x_adamw", orbax=False)
        save(states["adamw"], folder / "t5x_orbax_adamw", orbax=True)
    arrays = expected_arrays(config, weights, hugging_face)
    for optimizer, state in states.items():
        arrays[f"next_losses/{optimizer}"] = next_losses(optimizer, config, state)
    np.savez_compressed(folder / "expected.npz", **arrays)


def make_wide() -> None:
    folder, weights = FOLDER / "wide", draw_weights(WIDE)
    folder.mkdir()
    state = trained_state("adafactor", WIDE, weights)
    save(state, folder / "t5x", orbax=False)
    losses = next_losses("adafactor", WIDE, state)
    np.savez_compressed(folder / "expected.npz", **{"next_losses/adafactor": losses})


def trained_state(optimizer: str, config: dict, weights) -> train_state.FlaxOptimTrainState:
    """A state as after SAVED_STEP steps, with the weights put back to where they were before."""
    case = SAVED[optimizer]
    model, rate = t5x_model.of_case(case, config)
    state = t5x_model.first_state(model, weights)
    trained, _ = t5x_model.train(model, state, case.batches(config)[:SAVED_STEP], rate)
    return trained.replace_params(state.params)


def next_losses(optimizer: str, config: dict, state) -> np.ndarray:
    """T5X's losses of the steps that follow a saved state, float32."""
    case = SAVED[optimizer]
    model, rate = t5x_model.of_case(case, config)
    return t5x_model.train(model, state, case.batches(config)[SAVED_STEP:], rate)[1]


def save(state, folder: pathlib.Path, *, orbax: bool) -> None:
    """In one of T5X's two layouts, and read again by T5X."""
    t5x_model.save(state, folder, orbax=orbax)
    restored = t5x_model.restore(state, folder, SAVED_STEP)
    before, after = (jax.device_get(s.state_dict()) for s in (state, restored))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    for note in folder.rglob("commit_success.txt"):
        note.write_text(note.read_text().replace(os.fspath(FOLDER), FOLDER.name))


def expected_arrays(config: dict, weights, hugging_face) -> dict[str, np.ndarray]:
    """What the network answers.

    Keys:
      params/<T5X's path>: float32, the weights.
      inputs, targets: int32 (B, S) and (B, T), padded.
      rows, positions: int32 (N,), some real targets of the (B, T).
      logits/huggingface, logits/t5x: float32 (N, V), there.
      prompts, eos_id: int32 (B, S) and ().
      greedy/huggingface, greedy/t5x: int32 (B, T), of the prompts.
      next_losses/<optimiser>: float32, T5X's of the steps after a saved state (see SAVED).
    """
    rng, vocab_size = np.random.default_rng(TOKEN_SEED), config["vocab_size"]
    inputs = draw_tokens(rng, ROWS, INPUTS_LENGTH, vocab_size)
    targets = draw_tokens(rng, ROWS, TARGETS_LENGTH, vocab_size)
    prompts = draw_tokens(rng, NUM_PROMPTS, PROMPT_LENGTH, vocab_size)
    rows, positions = (places[::EVERY].astype(np.int32) for places in np.nonzero(targets))
    eos_id = useful_eos(hugging_face, prompts, vocab_size)
    t5x = t5x_model.build(config, eos_id=eos_id)
    logits = {
        "huggingface": huggingface_model.logits(hugging_face, inputs, targets),
        "t5x": t5x_model.logits(t5x, weights, inputs, targets),
    }
    greedy = {
        "huggingface": huggingface_model.greedy(hugging_face, prompts, eos_id, OUTPUT_LENGTH),
        "t5x": t5x_model.greedy(t5x, weights, prompts, OUTPUT_LENGTH),
    }
    check_margin(huggingface_model.logits(hugging_face, prompts, greedy["t5x"]), greedy["t5x"])
    return (
        {f"params/{path}": weight for path, weight in weights.items()}
        | {f"logits/{library}": array[rows, positions] for library, array in logits.items()}
        | {f"greedy/{library}": array for library, array in greedy.items()}
        | {"inputs": inputs, "targets": targets, "rows": rows, "positions": positions}
        | {"prompts": prompts, "eos_id": np.int32(eos_id), "versions": np.array(versions())}
    )


def useful_eos(model, prompts: np.ndarray, vocab_size: int) -> int:
    """A token that as EOS ends about half of the rows, later than their first token."""
    free = huggingface_model.greedy(model, prompts, eos_id=vocab_size, length=OUTPUT_LENGTH)
    ends = [
        sum(token in row[1:] and row[0] != token for row in free) for token in range(vocab_size)
    ]
    return 2 + int(np.argmin([abs(count - NUM_PROMPTS / 2) for count in ends[2:]]))


def check_margin(logits_BxTxV: np.ndarray, outputs_BxT: np.ndarray) -> None:
    """Raises ValueError where rounding could have decided a greedy step."""
    second, first = np.sort(logits_BxTxV)[..., -2:][outputs_BxT > 0].T
    margin = (first - second).min() / np.abs(logits_BxTxV).max()
    print(f"least margin of a greedy step: {margin:.1e} of the largest logit")
    if margin < LEAST_MARGIN:
        raise ValueError("greedy outputs hang on a rounding error: draw other prompts")


def versions() -> str:
    names = ("jax", "flax", "optax", "orbax-checkpoint", "tensorstore", "transformers", "torch")
    return ", ".join(f"{name} {metadata.version(name)}" for name in names)


def main() -> None:
    logging.set_verbosity(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    for name, config in T5_VARIANTS.items():
        make_variant(name, config)
    make_wide()
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    print(f"{len(files)} files, {sum(path.stat().st_size for path in files)} bytes")


if __name__ == "__main__":
    main()
