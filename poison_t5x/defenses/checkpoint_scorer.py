"""A trained model at its checkpoints, and passes of it over training rows."""

import io
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from poison_t5x.core import artifacts, errors, progress
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import passes
from poison_t5x.defenses.score import Context
from poison_t5x.evaluation import generator
from poison_t5x.train import checkpoints, distributed, partitioning, trained_model

# Rows of a part that is kept when a computation is killed.
ROWS_PER_PART = 2048
Tokens = Sequence[np.ndarray]


class CheckpointScorer:
    """One model folder's checkpoints, read as they are asked for.

    Attributes:
      steps: of the checkpoints that are looked at, ascending; the last is the finished model's.
      settings: what the model was made with.
      num_data: devices that a batch's rows are shared out over.
    """

    def __init__(
        self,
        model_dir: str | pathlib.Path,
        vocabulary: Any,
        lengths: Mapping[str, int],
        partition_cfg: partitioning.PartitionConfig,
        *,
        batch_size: int = 64,
        steps: Sequence[int] | None = None,
        reference_model_dir: str | pathlib.Path | None = None,
    ):
        """Reads no parameters yet.

        Args:
          model_dir: a finished model's folder.
          vocabulary: its SentencePiece vocabulary, as SeqIO has it.
          lengths: {'inputs': …, 'targets': …}, tokens that it was trained with.
          partition_cfg: the mesh.
          batch_size: rows at once; results don't follow from it beyond rounding.
          steps: checkpoints to look at; None for all that are kept.
          reference_model_dir: another finished model to compare answers with.

        Raises:
          InputError: it isn't a finished model, or a step's checkpoint isn't there.
        """
        if trained_model.parameters_digest(model_dir) is None:
            raise errors.InputError(f"{model_dir} isn't a finished model's folder")
        self.settings = trained_model.read_settings(model_dir)
        last = self.settings["train"]["total_steps"]
        kept = [step for step in checkpoints.committed_steps(model_dir) if step <= last]
        missing = sorted(set(steps or ()) - set(kept))
        if missing:
            raise errors.InputError(
                f"SCORE_STEPS: {model_dir} has no whole checkpoint of step {missing[0]}; there are "
                f"{', '.join(map(str, kept))}"
            )
        self.steps = tuple(sorted(set(steps or kept) | {last}))
        self.vocabulary = vocabulary
        self._model_dir, self._reference_dir = pathlib.Path(model_dir), reference_model_dir
        self._lengths, self._partition_cfg = dict(lengths), partition_cfg
        self._batch_size = batch_size
        self.num_data = partitioning.Partitioner(partition_cfg).num_data
        self._held: tuple[Any, trained_model.TrainedModel] | None = None

    def _restored(self, model_dir: pathlib.Path, step: int | None) -> trained_model.TrainedModel:
        """A checkpoint's network; one is held at a time, and let go of before the next is read."""
        key = (model_dir, step)
        if self._held is None or self._held[0] != key:
            self._held = None
            self._held = key, trained_model.restore(model_dir, self._partition_cfg, step)
        return self._held[1]

    def inputs(self, texts: Sequence[str]) -> Tokens:
        """Tokens of prompts as training has them: cut to the encoder's length, EOS last."""
        return self._tokens(texts, "inputs")

    def targets(self, rows: Sequence[TrainingExample]) -> Tokens:
        """Tokens of the rows' targets, cut to the decoder's length, EOS last."""
        return self._tokens([row.target for row in rows], "targets")

    def _tokens(self, texts: Sequence[str], feature: str) -> Tokens:
        vocabulary, length = self.vocabulary, self._lengths[feature] - 1
        return [
            np.array([*vocabulary.encode(text)[:length], vocabulary.eos_id], np.int32)
            for text in texts
        ]

    def over_rows(
        self,
        context: Context,
        name: str,
        function: Callable[..., jax.Array],
        inputs: Tokens,
        targets: Tokens | None,
        step: int | None = None,
        *,
        rows_at_once: int = 1,
        **options: Any,
    ) -> np.ndarray:
        """A function of `per_example` over all rows, in parts that are kept.

        Args:
          context: whose folder the parts are kept in.
          name: of the computation, distinct within the score.
          function: (model, params, batch, **options) -> (B, K).
          inputs, targets: N token arrays each; no targets where the function needs none.
          step: the checkpoint; None for the last.
          rows_at_once: of each device, which the batch must be a multiple of.
          **options: hashable.

        Returns:
          (N, K) float64.
        """
        parts = []
        starts = range(0, len(inputs), ROWS_PER_PART)
        done = _kept_parts(context, name, len(starts))
        for number, start in enumerate(progress.bar(starts, desc=name, unit="part")):
            if number in done:
                parts.append(np.load(_part_path(context, name, number)))  # on the shared disk
                continue
            some = slice(start, start + ROWS_PER_PART)
            answers = passes.over_batches(
                self._restored(self._model_dir, self.steps[-1] if step is None else step),
                function,
                inputs[some],
                targets and targets[some],
                batch_size=self._batch_size,
                max_length=self._lengths["inputs"],
                rows_at_once=rows_at_once,
                **options,
            )
            _keep_part(context, name, number, answers)
            parts.append(answers)
        return np.concatenate(parts)

    def answers(self, inputs: Tokens, *, reference: bool = False) -> list[str]:
        """What the model says to each input, decoded greedily.

        Args:
          reference: of the reference model: another one or, without one, the first checkpoint.
        """
        place, step = self._model_dir, self.steps[-1]
        if reference and self._reference_dir is not None:
            place, step = pathlib.Path(self._reference_dir), None
        elif reference:
            step = self.steps[0]
        restored = self._restored(place, step)
        decoder = generator.Generator(
            *restored,
            batch_size=self._batch_size,
            max_length=self._lengths["inputs"],
            max_decode_length=self._lengths["targets"],
        )
        return [self.vocabulary.decode(tokens).strip() for tokens in decoder.generate(inputs)]


def _part_path(context: Context, name: str, number: int) -> pathlib.Path:
    assert context.folder is not None
    return context.folder / f"{name}.{number:05d}.part.npy"


def _kept_parts(context: Context, name: str, count: int) -> set[int]:
    if context.folder is None:
        return set()
    paths = {number: _part_path(context, name, number) for number in range(count)}
    return set(
        distributed.broadcast_from_main(lambda: [n for n, path in paths.items() if path.is_file()])
    )


def _keep_part(context: Context, name: str, number: int, values: np.ndarray) -> None:
    if context.folder is None or not distributed.is_main():
        return
    buffer = io.BytesIO()
    np.save(buffer, values)
    artifacts.write_atomically(_part_path(context, name, number), buffer.getvalue())


def forget_parts(folder: pathlib.Path) -> None:
    """Deletes the parts of a finished computation."""
    for path in folder.glob("*.part.npy"):
        path.unlink()
