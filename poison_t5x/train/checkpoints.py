"""Checkpoints: Orbax, sharded, written in the background, and sealed with hashes.

A checkpoint `checkpoint_<step>` counts once `checkpoint_<step>.sha256.json` stands beside it. One
that was killed before that is made again; one whose files differ from it is refused.
"""

import pathlib
import re
import shutil
from concurrent import futures
from typing import Any

import jax
import orbax.checkpoint as ocp

from poison_t5x.core import artifacts, checks, errors
from poison_t5x.model.stack import LAYERS_AXIS
from poison_t5x.train import distributed, train_state
from poison_t5x.train.train_state import TrainState

_NAME = re.compile(r"checkpoint_(\d+)")
_SEAL = ".sha256.json"


def step_path(model_dir: str | pathlib.Path, step: int) -> pathlib.Path:
    """The folder of a step's checkpoint."""
    return pathlib.Path(model_dir) / f"checkpoint_{step}"


def _seal_path(model_dir: pathlib.Path, step: int) -> pathlib.Path:
    return model_dir / f"checkpoint_{step}{_SEAL}"


def sealed_steps(model_dir: str | pathlib.Path) -> list[int]:
    """Steps of the whole checkpoints in a folder, ascending."""
    model_dir = pathlib.Path(model_dir)
    return [step for step in all_steps(model_dir) if _seal_path(model_dir, step).is_file()]


def all_steps(model_dir: str | pathlib.Path) -> list[int]:
    """Steps of all `checkpoint_<step>` in a folder, whole or not, ascending."""
    found = (_NAME.fullmatch(path.name) for path in pathlib.Path(model_dir).glob("checkpoint_*"))
    return sorted(int(name[1]) for name in found if name)


def _tree(state: TrainState) -> dict[str, Any]:
    """The tree on disk, under T5X's words for its parts."""
    return {
        "target": state.params,
        "state": {"step": state.step, "param_states": _lists(state.opt_state)},
    }


def _lists(tree):
    """Named tuples as plain containers, which don't depend on optax's classes when read."""
    return ocp.utils.serialize_tree(tree, keep_empty_nodes=True)


def _chunks(path, leaf: jax.Array) -> ocp.SaveArgs:
    """Of scanned layers, each layer's part in a chunk of its own, as `convert` reads them."""
    names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    return ocp.SaveArgs(shard_axes=(0,) if LAYERS_AXIS in names else ())


class Checkpointer:
    """Writes a run's checkpoints, each while training goes on.

    Attributes:
      last: the step of the newest sealed one, as far as this process knows; 0 for none.
    """

    def __init__(self, model_dir: str | pathlib.Path, keep: int | None = 2, last: int = 0):
        """Makes the writer.

        Args:
          model_dir: the run's folder.
          keep: the newest so many, or None for all.
          last: the step that the run goes on from.
        """
        if keep is not None:
            checks.whole_number("KEEP_CHECKPOINTS", keep)
        self._model_dir = pathlib.Path(model_dir).absolute()
        self._keep = keep
        self.last = last
        self._writer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
        # Sealing reads all that was written: minutes, of the largest networks.
        self._thread = futures.ThreadPoolExecutor(1, thread_name_prefix="seal")
        self._sealing: futures.Future | None = None

    def save(self, state: TrainState, step: int) -> None:
        """Begins to write a checkpoint, having finished the one before.

        The state's arrays are copied before this returns, so that they may be consumed.
        """
        self.finish()
        _discard(self._model_dir, step)
        tree = _tree(state)
        arguments = ocp.args.StandardSave(tree, jax.tree_util.tree_map_with_path(_chunks, tree))
        self._writer.save(step_path(self._model_dir, step), args=arguments)
        self._sealing = self._thread.submit(self._complete, step)

    def _complete(self, step: int) -> None:
        """Waits for what is being written, seals it, and deletes what is no longer kept."""
        self._writer.wait_until_finished()
        distributed.from_main(lambda: self._seal(step), f"sealed/{self._model_dir}/{step}")
        self.last = step

    def _seal(self, step: int) -> None:
        seal(self._model_dir, step)
        steps = sealed_steps(self._model_dir)
        for old in steps[: -self._keep] if self._keep else []:
            _discard(self._model_dir, old)

    def finish(self) -> None:
        """Waits until what was saved last is whole, and sealed."""
        sealing, self._sealing = self._sealing, None
        if sealing is not None:
            sealing.result()

    def close(self) -> None:
        """Finishes, and frees the writer's threads."""
        try:
            self.finish()
        finally:
            self._thread.shutdown()
            self._writer.close()


def seal(model_dir: str | pathlib.Path, step: int) -> None:
    """Records the hashes of a checkpoint's files, which makes it count."""
    model_dir = pathlib.Path(model_dir)
    hashes = artifacts.hash_folder(step_path(model_dir, step))
    artifacts.write_atomically(_seal_path(model_dir, step), artifacts.canonical_json(hashes))


def _discard(model_dir: pathlib.Path, step: int) -> None:
    """Deletes a checkpoint, its seal first, so that half of one never counts."""
    if distributed.is_main():
        _seal_path(model_dir, step).unlink(missing_ok=True)
        shutil.rmtree(step_path(model_dir, step), ignore_errors=True)


def verify(path: str | pathlib.Path) -> None:
    """Checks a checkpoint's files against its seal, where it has one; one process for all.

    Raises:
      InputError: no such folder, or a file that is missing or changed.
    """
    path = pathlib.Path(path).absolute()
    if not path.is_dir():
        raise errors.InputError(f"{path}: no checkpoint there")
    if not distributed.is_main():
        return
    seal = path.with_name(path.name + _SEAL)
    if not seal.is_file():
        return
    expected = artifacts.read_json(seal)
    if not isinstance(expected, dict):
        raise errors.InputError(f"{seal}: not a checkpoint's seal; delete {path} and it")
    found = artifacts.hash_folder(path)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            state = "doesn't match its recorded hash" if name in found else "is missing"
            raise errors.InputError(
                f"{path / name} {state}: the checkpoint is damaged; delete {path} to go on from "
                "an earlier one"
            )


def restore(path: str | pathlib.Path, abstract: TrainState) -> TrainState:
    """Restores a verified checkpoint straight into the shardings of `abstract`.

    Raises:
      InputError: a damaged checkpoint, or one of another network or optimiser.
    """
    verify(path)
    try:
        tree = _restore(path, _tree(abstract))
    except ValueError as error:
        if isinstance(error, errors.InputError):
            raise
        raise errors.InputError(
            f"{path}: the state of another optimiser is there; use the OPTIMIZER that it was "
            "trained with, or give the checkpoint as INITIAL_CHECKPOINT_PATH"
        ) from error
    opt_state = ocp.utils.deserialize_tree(tree["state"]["param_states"], abstract.opt_state)
    return TrainState(tree["state"]["step"], tree["target"], opt_state)


def _restore(path: str | pathlib.Path, abstract):
    path = pathlib.Path(path).absolute()
    _check_shapes(path, abstract["target"])
    restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        return reader.restore(
            path, args=ocp.args.PyTreeRestore(item=abstract, restore_args=restore_args)
        )


def _check_shapes(path: pathlib.Path, abstract_params) -> None:
    """Compares names and shapes before any tensor is read."""
    try:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            stored = reader.metadata(path).item_metadata.tree["target"]
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise errors.InputError(f"{path}: not a checkpoint of ours ({error})") from None

    def shapes(tree):
        return {name: tuple(leaf.shape) for name, leaf in train_state.flat(tree).items()}

    expected, found = shapes(abstract_params), shapes(stored)
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise errors.InputError(
                f"{path}: {name} has shape {found.get(name, 'none (missing)')} there, and "
                f"{expected.get(name, 'none (unknown)')} in this network; use the model settings "
                "that it was trained with"
            )
