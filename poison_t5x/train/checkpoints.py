"""Checkpoints: Orbax, sharded, written in the background, and committed with hashes.

A checkpoint `checkpoint_<step>` counts once `checkpoint_<step>.sha256.json` stands beside it. One
that was killed before that is made again; one whose files differ from it is refused.
"""

import contextlib
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import jax
import orbax.checkpoint as ocp

from poison_t5x.core import artifacts, errors, failures, reading
from poison_t5x.model import network
from poison_t5x.model.stack import LAYERS_AXIS
from poison_t5x.train import distributed
from poison_t5x.train.train_state import TrainState


def step_path(model_dir: str | pathlib.Path, step: int) -> pathlib.Path:
    """The folder of a step's checkpoint."""
    return pathlib.Path(model_dir) / f"checkpoint_{step}"


def _hashes_path(checkpoint: pathlib.Path) -> pathlib.Path:
    return checkpoint.with_name(f"{checkpoint.name}.sha256.json")


def all_steps(model_dir: str | pathlib.Path) -> list[int]:
    """Steps of all `checkpoint_<step>` in a folder, whole or not, ascending."""
    names = (path.name for path in pathlib.Path(model_dir).glob("checkpoint_*"))
    numbers = (name.removeprefix("checkpoint_") for name in names)
    return sorted(int(number) for number in numbers if re.fullmatch(r"[0-9]{1,10}", number))


def committed_steps(model_dir: str | pathlib.Path) -> list[int]:
    """Steps of the whole checkpoints in a folder, ascending."""
    steps = all_steps(model_dir)
    return [step for step in steps if _hashes_path(step_path(model_dir, step)).is_file()]


def commit(model_dir: str | pathlib.Path, step: int) -> None:
    """Records the hashes of a checkpoint's files, which makes it count."""
    path = step_path(model_dir, step)
    hashes = artifacts.canonical_json(artifacts.hash_folder(path))
    artifacts.write_atomically(_hashes_path(path), hashes)


def discard_partial(model_dir: str | pathlib.Path) -> None:
    """Deletes what a killed run left: checkpoints that were never committed, or half deleted."""
    for step in sorted({*all_steps(model_dir)} - {*committed_steps(model_dir)}):
        _discard(pathlib.Path(model_dir), step)
    artifacts.remove_leftovers(model_dir)


def _discard(model_dir: pathlib.Path, step: int) -> None:
    """Deletes a checkpoint, its hashes first, so that half of one never counts."""
    _hashes_path(step_path(model_dir, step)).unlink(missing_ok=True)
    shutil.rmtree(step_path(model_dir, step), ignore_errors=True)


def _tree(state: TrainState) -> dict[str, Any]:
    """The tree on disk, under T5X's words for its parts and without optax's classes."""
    opt_state = ocp.utils.serialize_tree(state.opt_state, keep_empty_nodes=True)
    return {"target": state.params, "state": {"step": state.step, "param_states": opt_state}}


def _chunks(path, leaf: jax.Array) -> ocp.SaveArgs:
    """Of scanned layers, each layer's part in a chunk of its own, as `checkpoint_io` reads them."""
    names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    return ocp.SaveArgs(shard_axes=(0,) if LAYERS_AXIS in names else ())


class Checkpointer:
    """Writes a run's checkpoints, each while training goes on.

    Orbax's CheckpointManager deletes old checkpoints before the new one's hashes can be there, so
    that a run killed in between would have none; and it nests each in a folder `default`.
    """

    def __init__(self, model_dir: str | pathlib.Path, keep: int | None = 2, last: int = 0):
        """Keeps the newest `keep`, or all; `last` is the newest committed one's step, or 0."""
        self._model_dir = pathlib.Path(model_dir).absolute()
        self._keep = keep
        self.last = last
        self._writer = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
        # Committing reads all that was written: minutes, of the largest networks.
        self._thread = futures.ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._committing: futures.Future | None = None

    def save(self, state: TrainState, step: int) -> None:
        """Begins to write a checkpoint, of copies of the arrays, having finished the one before."""
        self.finish()
        if distributed.is_main():
            _discard(self._model_dir, step)
        tree = _tree(state)
        arguments = ocp.args.StandardSave(tree, jax.tree_util.tree_map_with_path(_chunks, tree))
        with self._writing(step):
            self._writer.save(step_path(self._model_dir, step), args=arguments)
        self._committing = self._thread.submit(self._complete, step)

    def _complete(self, step: int) -> None:
        """Waits for what is being written, commits it, and deletes what is no longer kept."""

        def make():
            commit(self._model_dir, step)
            for old in committed_steps(self._model_dir)[: -self._keep] if self._keep else []:
                _discard(self._model_dir, old)

        with self._writing(step):
            self._writer.wait_until_finished()
            distributed.broadcast_from_main(make, f"committed/{self._model_dir}/{step}")
        self.last = step

    @contextlib.contextmanager
    def _writing(self, step: int) -> Iterator[None]:
        """Where a checkpoint is written: on a full disk, none of it is left."""
        path = step_path(self._model_dir, step)
        try:
            with failures.writing(path):
                yield
        except (errors.InputError, errors.TryAgainError):
            artifacts.remove_leftovers(self._model_dir)
            raise

    def finish(self) -> None:
        """Waits until what was saved last is committed."""
        committing, self._committing = self._committing, None
        if committing is not None:
            committing.result()

    def close(self) -> None:
        """Finishes, and frees the writer's threads."""
        try:
            self.finish()
        finally:
            self._thread.shutdown()
            self._writer.close()


def verify(path: str | pathlib.Path) -> None:
    """Raises InputError where no such folder is, or a file isn't as its hash, if any, has it."""
    path = pathlib.Path(path).absolute()
    if not path.is_dir():
        raise errors.InputError(f"{path}: no checkpoint there")
    hashes = _hashes_path(path)
    if not distributed.is_main() or not os.path.lexists(hashes):
        return
    expected = reading.read_json(hashes, dict[str, str], f"delete {path} and it")
    actual = artifacts.hash_folder(path)
    for name in _differing(expected, actual):
        state = "doesn't match its recorded hash" if name in actual else "is missing"
        raise errors.InputError(
            f"{path / name} {state}: the checkpoint is damaged; delete {path} to go on from an "
            "earlier one"
        )


def _differing(one: dict, other: dict) -> list[str]:
    """Names whose values in two dictionaries aren't the same."""
    return [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]


def restore(path: str | pathlib.Path, abstract: TrainState) -> TrainState:
    """A whole state, straight into the shardings of `abstract`; InputError where the checkpoint is
    damaged, or of another network or optimiser."""
    tree = _restore(path, _tree(abstract))
    opt_state = ocp.utils.deserialize_tree(tree["state"]["param_states"], abstract.opt_state)
    return TrainState(tree["state"]["step"], tree["target"], opt_state)


def restore_params(path: str | pathlib.Path, abstract: Any) -> Any:
    """The parameters alone; InputError as `restore`."""
    return _restore(path, {"target": abstract}, partial_restore=True)["target"]


def _restore(path: str | pathlib.Path, abstract: dict[str, Any], **options: bool) -> dict[str, Any]:
    path = pathlib.Path(path).absolute()
    verify(path)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        try:  # names and shapes before any tensor is read
            stored = _shapes(reader.metadata(path).item_metadata.tree["target"])
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise errors.InputError(f"{path}: not a checkpoint of ours ({error})") from None
        expected = _shapes(abstract["target"])
        for name in _differing(stored, expected):
            raise errors.InputError(
                f"{path}: {name} has shape {stored.get(name, 'none (missing)')} there, and "
                f"{expected.get(name, 'none (unknown)')} in this network; use the model settings "
                "that it was trained with"
            )
        restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
        arguments = ocp.args.PyTreeRestore(item=abstract, restore_args=restore_args, **options)
        try:
            return reader.restore(path, args=arguments)
        except ValueError as error:
            raise errors.InputError(
                f"{path}: the state of another optimiser is there; use the OPTIMIZER that it was "
                "trained with, or give the checkpoint as INITIAL_CHECKPOINT_PATH"
            ) from error


def _shapes(params) -> dict[str, tuple[int, ...]]:
    return {name: tuple(leaf.shape) for name, leaf in network.flat(params).items()}
