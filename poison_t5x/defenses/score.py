"""What every score takes and gives.

A score is a frozen dataclass of its settings that is called with rows; it never sees which rows are
poison. Scores of text alone are in this folder, those that need a model in `defense`.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from poison_t5x.data.examples import TrainingExample


class Trigger(NamedTuple):
    """A phrase that goes with an answer beyond chance.

    Attributes:
      phrase: as it stands in the inputs.
      tasks: where it does so.
      targets: the answers, one for each task.
      num_rows: inputs that hold it.
      num_with_target: of those, with the answer.
      expected: of those, how many were expected to have it.
      z: by how many standard deviations there are more.
      p_value: of that, corrected for the number of phrases looked at.
    """

    phrase: str
    tasks: tuple[str, ...]
    targets: tuple[str, ...]
    num_rows: int
    num_with_target: int
    expected: float
    z: float
    p_value: float


class ScoreResult(NamedTuple):
    """A score's result.

    Attributes:
      values_N: (N,) float64, finite; the higher, the more suspicious.
      threshold: rows above it are suspected, where the score has a level of its own (a significance
        level); None where the threshold must come from the values alone, see `thresholds`.
      triggers: suspected phrases, the most suspicious first, of scores that name them.
      notes: what qualifies the result, such as rows that could not be scored.
      by_step: (step, values_N) of each checkpoint, of scores that are made at several.
    """

    values_N: np.ndarray
    threshold: float | None = None
    triggers: tuple[Trigger, ...] = ()
    notes: tuple[str, ...] = ()
    by_step: tuple[tuple[int, np.ndarray], ...] = ()


class Context(NamedTuple):
    """What a score may use beside the rows.

    Attributes:
      seed: of whatever it draws.
      folder: where parts of a long computation are kept, for a killed one to go on from; None
        keeps nothing.
      models: a `CheckpointScorer`, for scores that need one; None without a checkpoint.
    """

    seed: int = 0
    folder: pathlib.Path | None = None
    models: Any = None


class Score(Protocol):
    """Any score."""

    # 'nothing', 'model' (the last checkpoint) or 'checkpoints' (several).
    needs: ClassVar[str]

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Scores the rows. Same arguments, same values."""
        ...
