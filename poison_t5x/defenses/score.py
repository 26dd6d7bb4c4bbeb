"""Scores: how they are registered, and what each takes and gives; they never see what is poison."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec
import numpy as np

from poison_t5x.core import errors, registry
from poison_t5x.core import settings as settings_lib
from poison_t5x.data.examples import TrainingExample

# In the order in which scores are made and shown; 'model' is the last checkpoint.
NEEDS = ("nothing", "model", "checkpoints")
# Of the parts that rows are cut into, each judged by a model of the others.
Folds = Annotated[int, msgspec.Meta(ge=2, le=1024)]


class Trigger(NamedTuple):
    """A phrase, as it stands in the inputs, that goes with an answer beyond chance.

    `targets` are the answers, one for each of `tasks`. `num_rows` inputs hold it; of those,
    `num_with_target` have the answer where `expected` were expected: `z` standard deviations less.
    `p_value` is corrected for the number of phrases looked at.
    """

    phrase: str
    tasks: Sequence[str]
    targets: Sequence[str]
    num_rows: int
    num_with_target: int
    expected: float
    z: float
    p_value: float


class ScoreResult(NamedTuple):
    """A score of N rows.

    Attributes:
      values_N: (N,) float64, finite; the higher, the more suspicious.
      threshold: rows above it are suspected, where the score has a level of its own; None where it
        must come from the values alone, see `measures.outliers`.
      triggers: suspected phrases, the most suspicious first, of scores that name them.
      notes: qualifications, such as of rows that could not be scored.
      by_step: (step, values_N) of each checkpoint, of scores that are made at several.
    """

    values_N: np.ndarray
    threshold: float | None = None
    triggers: Sequence[Trigger] = ()
    notes: Sequence[str] = ()
    by_step: Sequence[tuple[int, np.ndarray]] = ()


class Context(NamedTuple):
    """Means that a score may use beside the rows.

    `folder` keeps parts of a long computation, for a killed one to go on from, if there is one.
    `scorer` is a `checkpoint_scorer.CheckpointScorer`, for scores that need a model.
    """

    seed: int = 0
    folder: pathlib.Path | None = None
    scorer: Any = None


@dataclasses.dataclass(frozen=True)
class Score(settings_lib.Settings):
    """A score's settings, called with rows; of one's own, it may be any such callable.

    Attributes:
      needs: one of NEEDS.
      min_checkpoints: how many it can't be made without.
      takes_reference: whether a reference model stands in for them.
    """

    needs: ClassVar[str] = "nothing"
    min_checkpoints: ClassVar[int] = 1
    takes_reference: ClassVar[bool] = False

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Scores the rows. Same arguments, same values."""
        raise NotImplementedError


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
    kinds = settings_lib.kinds(target) if dataclasses.is_dataclass(target) else {}
    made_with = {}
    for key, value in (settings or {}).items():
        if key not in kinds:
            raise errors.InputError(
                f"SCORE_SETTINGS: {name} has no {key!r}{errors.nearest(str(key), kinds)}; "
                f"there are {', '.join(kinds) or 'none'}"
            )
        setting = f"SCORE_SETTINGS[{name!r}][{key!r}]"
        made_with[key] = settings_lib.checked(setting, value, kinds[key])
    return target(**made_with)


def lacks(score: Score, scorer: Any) -> str | None:
    """Why a score can't be made with a scorer's checkpoints; None where it can."""
    needed = getattr(score, "min_checkpoints", 1)
    has_reference = getattr(score, "takes_reference", False) and scorer.has_reference
    if needed == 1 or len(scorer.steps) >= needed or has_reference:
        return None
    return (
        f"it needs {needed} checkpoints, and {len(scorer.steps)} is kept; train with "
        "--gin.KEEP_CHECKPOINTS=None"
    )
