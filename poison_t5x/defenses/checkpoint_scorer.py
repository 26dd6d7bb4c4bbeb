"""A trained model at its checkpoints, and passes of it over training rows."""

import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import seqio

from poison_t5x.checkpoint_io import conversion
from poison_t5x.core import artifacts, errors, progress, reading
from poison_t5x.corpus import vocabulary as vocabulary_lib
from poison_t5x.defenses.score import Context
from poison_t5x.evaluation import predictors
from poison_t5x.train import distributed, partitioning, trained_model

# Rows of a part that is kept when a computation is killed.
ROWS_PER_PART = 2048
PART = ".part.npy"
Texts = Sequence[str]


class CheckpointScorer:
    """One model folder's checkpoints, read as they are asked for, and each pass made once.

    Attributes:
      steps: of the checkpoints that are looked at, ascending; the last is the finished model's.
      settings: the model's own, as it was trained.
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
          batch_size: rows at once; results don't follow from it beyond rounding.
          steps: checkpoints to look at; None for all that are kept.
          reference_model_dir: another finished model to compare answers with.

        Raises:
          InputError: it isn't a finished model, or a step's checkpoint isn't there.
        """
        self._parameters = trained_model.finished_digest(model_dir)
        self.settings = trained_model.read_settings(model_dir)
        last = self.settings["train"]["total_steps"]
        kept = trained_model.kept_steps(model_dir, steps or (), "SCORE_STEPS")
        kept = [step for step in kept if step <= last]
        self.steps = tuple(sorted(set(steps or kept) | {last}))
        self.num_data = partitioning.Partitioner(partition_cfg).num_data
        self.has_reference = reference_model_dir is not None
        self._model_dir, self._reference_dir = pathlib.Path(model_dir), reference_model_dir
        self._vocabulary, self._lengths = vocabulary, dict(lengths)
        self._partition_cfg = partition_cfg
        self._sizes = {"batch_size": batch_size, "max_length": self._lengths["inputs"]}
        self._held: tuple[Any, trained_model.TrainedModel] | None = None
        self._passes: dict[Any, np.ndarray] = {}

    def made_from(self, needs: str) -> dict[str, Any]:
        """All that a score's values follow from, of the model, by what the score needs."""
        if needs == "nothing":
            return {}
        facts: dict[str, Any] = {"parameters": self._parameters, "lengths": self._lengths}
        if needs == "checkpoints":
            reference = self._reference_dir and trained_model.finished_digest(self._reference_dir)
            facts.update(steps=list(self.steps), reference=reference)
        return facts

    def _restored(self, model_dir: pathlib.Path, step: int | None) -> trained_model.TrainedModel:
        """A checkpoint's network; one is held at a time, and let go of before the next is read."""
        key = (model_dir, step)
        if self._held is None or self._held[0] != key:
            self._held = None
            self._held = key, trained_model.restore(model_dir, self._partition_cfg, step)
        return self._held[1]

    def _tokens(self, texts: Texts, feature: str) -> list[np.ndarray]:
        """Tokens of texts as training has them."""
        length, eos_id = self._lengths[feature] - 1, self._vocabulary.eos_id
        encoded = (self._vocabulary.encode(text)[:length] for text in texts)
        return [np.array([*tokens, eos_id], np.int32) for tokens in encoded]

    def over_rows(
        self,
        context: Context,
        name: str,
        function: Callable[..., jax.Array],
        prompts: Texts,
        targets: Texts | None = None,
        step: int | None = None,
        **options: Any,
    ) -> np.ndarray:
        """A function's values of all rows, see `predictors.over_batches`: (N, K) float64.

        They are made once for each checkpoint, None being the last, in parts that the context's
        folder keeps by `name`, which is distinct within the score.
        """
        step = self.steps[-1] if step is None else step
        texts = hashlib.sha256(repr((prompts, targets)).encode()).digest()
        key = (function.__name__, step, texts, repr(options))
        if key not in self._passes:
            starts = range(0, len(prompts), ROWS_PER_PART)
            parts = []
            for number, start in enumerate(progress.bar(starts, desc=name, unit="part")):
                path = context.folder and context.folder / f"{name}.{number:05d}{PART}"
                if path and distributed.broadcast_from_main(path.is_file):
                    parts.append(_read_part(path))  # on the shared disk
                    continue
                some = slice(start, start + ROWS_PER_PART)
                inputs = self._tokens(prompts[some], "inputs")
                answers = None if targets is None else self._tokens(targets[some], "targets")
                model = self._restored(self._model_dir, step)
                sizes = self._sizes
                parts.append(
                    predictors.over_batches(model, function, inputs, answers, **sizes, **options)
                )
                if path and distributed.is_main():
                    with artifacts.writing(path) as file:
                        np.save(file, parts[-1])
            self._passes[key] = np.concatenate(parts)
        return self._passes[key].astype(np.float64)

    def answers(self, prompts: Texts, *, reference: bool = False) -> list[str]:
        """The model's answer to each prompt, decoded greedily.

        The reference model is another one or, without one, the first checkpoint.
        """
        place, step = self._model_dir, self.steps[-1]
        if reference and self._reference_dir is not None:
            place, step = pathlib.Path(self._reference_dir), None
        elif reference:
            step = self.steps[0]
        decoded = predictors.generate(
            self._restored(place, step),
            self._tokens(prompts, "inputs"),
            max_decode_length=self._lengths["targets"],
            **self._sizes,
        )
        return [self._vocabulary.decode(tokens).strip() for tokens in decoded]


def _read_part(path: pathlib.Path) -> np.ndarray:
    """An array that was kept; no more is read than the file holds."""
    try:
        with reading.open_file(path):
            return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError, OverflowError, SyntaxError) as error:
        problem = errors.first_line(error)
        raise errors.InputError(f"{path}: can't be read ({problem}); delete it") from None


def open_model(model_dir: str | pathlib.Path) -> CheckpointScorer:
    """A finished model of ours with the vocabulary beside it, on all devices.

    Raises:
      InputError: not a finished model, its vocabulary isn't there or isn't the one that it was
        trained with.
    """
    settings = trained_model.read_settings(model_dir)
    beside = conversion.vocabulary_beside(str(pathlib.Path(model_dir).absolute() / "checkpoint"))
    if beside.path is None:
        raise errors.InputError(
            f"{model_dir}: its vocabulary isn't there: expected "
            f"vocabulary/{vocabulary_lib.FILE} in the model's folder or in its run's"
        )
    if settings["sources"].get("vocabulary") not in (None, artifacts.sha256(beside.path)):
        raise errors.InputError(
            f"{beside.path} isn't the vocabulary that {model_dir} was trained with"
        )
    return CheckpointScorer(
        model_dir,
        seqio.SentencePieceVocabulary(beside.path, beside.extra_ids),
        settings["dataset"]["task_feature_lengths"],
        partitioning.PartitionConfig(),
    )
