"""Scores that need a model, over rows that no run has: for `poison-t5x scan --model`."""

import pathlib
from collections.abc import Sequence

import seqio

from poison_t5x.checkpoint_io import conversion
from poison_t5x.core import artifacts, errors
from poison_t5x.corpus.vocabulary import FILE
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import checkpoint_scorer
from poison_t5x.defenses.score import Context, Score, ScoreResult
from poison_t5x.defenses.scores import losses, output_clustering, states, strip, tracin
from poison_t5x.train import partitioning, trained_model

AVAILABLE: dict[str, Score] = {
    "loss": losses.Loss(),
    "loss_slope": losses.LossSlope(),
    "strip": strip.Strip(),
    "spectral_signatures": states.SpectralSignatures(),
    "activation_clustering": states.ActivationClustering(),
    "tracin": tracin.TracIn(),
    "output_clustering": output_clustering.OutputClustering(),
}


def score_with_model(
    names: Sequence[str], rows: Sequence[TrainingExample], model_dir: str | pathlib.Path, seed: int
) -> dict[str, ScoreResult]:
    """Scores rows with a finished model of ours.

    Args:
      names: of AVAILABLE.
      rows: training examples, from wherever.
      model_dir: models/NAME of a run, whose vocabulary is beside it.
      seed: of whatever a score draws.

    Raises:
      InputError: not a finished model, its vocabulary isn't there or isn't the one that it was
        trained with, or a score needs checkpoints that weren't kept.
    """
    settings = trained_model.read_settings(model_dir)
    opened = checkpoint_scorer.CheckpointScorer(
        model_dir,
        _vocabulary(pathlib.Path(model_dir), settings["sources"]),
        settings["dataset"]["task_feature_lengths"],
        partitioning.PartitionConfig(),
    )
    return {name: AVAILABLE[name](rows, Context(seed, None, opened)) for name in names}


def _vocabulary(model_dir: pathlib.Path, sources: dict[str, str]):
    beside = conversion.vocabulary_beside(str(model_dir.absolute() / "checkpoint"))
    if beside.path is None:
        raise errors.InputError(
            f"{model_dir}: its vocabulary isn't there: expected vocabulary/{FILE} in the model's "
            "folder or in its run's"
        )
    if sources.get("vocabulary") not in (None, artifacts.sha256(beside.path)):
        raise errors.InputError(
            f"{beside.path} isn't the vocabulary that {model_dir} was trained with"
        )
    return seqio.SentencePieceVocabulary(beside.path, beside.extra_ids)
