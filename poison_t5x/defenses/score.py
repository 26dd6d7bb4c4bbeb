"""Scores: how they are registered, and what each takes and gives.

A score is a frozen dataclass of its settings that is called with rows; it never sees which rows are
poison.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from poison_t5x.core import errors, registry
from poison_t5x.data.examples import TrainingExample

# In the order in which scores are made and shown; 'model' is the last checkpoint.
NEEDS = ("nothing", "model", "checkpoints")


class Trigger(NamedTuple):
    """A phrase, as it stands in the inputs, that goes with an answer beyond chance.

    `targets` are the answers, one for each of `tasks`. `num_rows` inputs hold it; of those,
    `num_with_target` have the answer where `expected` were expected: `z` standard deviations less.
    `p_value` is corrected for the number of phrases looked at.
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
    """A score of N rows.

    Attributes:
      values_N: (N,) float64, finite; the higher, the more suspicious.
      threshold: rows above it are suspected, where the score has a level of its own (a significance
        level); None where the threshold must come from the values alone, see `measures.outliers`.
      triggers: suspected phrases, the most suspicious first, of scores that name them.
      notes: qualifications, such as of rows that could not be scored.
      by_step: (step, values_N) of each checkpoint, of scores that are made at several.
    """

    values_N: np.ndarray
    threshold: float | None = None
    triggers: tuple[Trigger, ...] = ()
    notes: tuple[str, ...] = ()
    by_step: tuple[tuple[int, np.ndarray], ...] = ()


class Context(NamedTuple):
    """Means that a score may use beside the rows.

    Attributes:
      folder: where parts of a long computation are kept, for a killed one to go on from; None
        keeps nothing.
      scorer: a `checkpoint_scorer.CheckpointScorer`, for scores that need a model.
    """

    seed: int = 0
    folder: pathlib.Path | None = None
    scorer: Any = None


class Score(Protocol):
    """Any score; `needs` is one of NEEDS.

    It may also have `min_checkpoints`, which it can't be made without, and `takes_reference`, where
    a reference model stands in for them.
    """

    needs: ClassVar[str]

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Scores the rows. Same arguments, same values."""
        ...


SCORES: registry.Registry[Score] = registry.Registry("score", "poison_t5x.defenses.scores")


def names() -> tuple[str, ...]:
    """All registered scores, those of text alone first."""
    return tuple(sorted(SCORES.names(), key=lambda name: NEEDS.index(needs(name))))


def needs(name: str) -> str:
    """The need of a registered score; ours aren't imported.

    Raises:
      InputError: a user's own says something that isn't of NEEDS.
    """
    value = SCORES.constant(name, "needs", "nothing")
    if value not in NEEDS:
        raise errors.InputError(
            f"score {name}: needs: expected one of {', '.join(NEEDS)}, found {value!r}"
        )
    return value


def make(name: Any, settings: Mapping[str, Any] | None = None, macro: str = "SCORES") -> Score:
    """The score of a name that `macro` gave, with settings other than its defaults.

    Raises:
      InputError: no such score or setting, with the nearest, or a value that can't be.
    """
    target = SCORES.get(name, macro)
    known = list(getattr(target, "__dataclass_fields__", ()))
    for setting in settings or {}:
        if setting not in known:
            raise errors.InputError(
                f"SCORE_SETTINGS: {name} has no {setting!r}{errors.nearest(str(setting), known)}; "
                f"there are {', '.join(known) or 'none'}"
            )
    return target(**(settings or {}))


def lacks(score: Score, scorer: Any) -> str | None:
    """Why a score can't be made with a scorer's checkpoints; None where it can."""
    needed = getattr(score, "min_checkpoints", 1)
    if needed == 1 or len(scorer.steps) >= needed:
        return None
    if getattr(score, "takes_reference", False) and scorer.has_reference:
        return None
    return (
        f"it needs {needed} checkpoints, and {len(scorer.steps)} is kept; train with "
        "--gin.KEEP_CHECKPOINTS=None"
    )
