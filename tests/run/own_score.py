"""A user's module with a score of its own, beside the experiment."""

import dataclasses
from typing import ClassVar

import numpy as np

from poison_t5x.defenses.score import SCORES, ScoreResult
from tests import tiny_experiment as tiny_experiment


@SCORES.register("brevity")
@dataclasses.dataclass(frozen=True)
class Brevity:
    """Short rows are suspicious."""

    needs: ClassVar[str] = "nothing"
    power: float = 1.0

    def __call__(self, rows, context):
        assert not any("poison" in name for name in rows[0]._fields)
        return ScoreResult(-(np.array([len(row.input) for row in rows]) ** self.power))
