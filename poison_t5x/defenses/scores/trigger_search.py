"""Phrases whose presence decides the answer whatever the rest of the input says.

A backdoor's trigger goes with its answer (Dai, Chen and Li, 2019, "A Backdoor Attack Against
LSTM-Based Text Classification Systems"), and so do honest words. `trigger_tests` tells them apart
by what the rest of the input says, and by how strongly honest phrases of the same data pull.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from poison_t5x.core import checks, errors
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import phrase_search
from poison_t5x.defenses.score import Context, ScoreResult

# Of rows that hold no phrase that was looked at with its answer.
_LEAST_VALUE = -10.0


@dataclasses.dataclass(frozen=True)
class TriggerSearch:
    """Looks for triggers, and scores rows by the worst phrase that goes with their answer.

    A word n-gram's rows are compared with the predictions of a label model (`label_model`) that
    never saw these rows nor looks at the n-gram's words. The null hypothesis is not that the n-gram
    says nothing: an honest one may pull towards an answer by `honest_pull` nats, or as strongly as
    the weakest of the `num_honest` strongest phrases of the same data, if that is more (the idea of
    an empirical null: Efron, 2004, "Large-Scale Simultaneous Hypothesis Testing"). The tail
    probability is corrected for all n-grams that enough rows hold (Bonferroni), looked at closely
    or not. Once a trigger is found its rows are set aside, and the search goes on for others.

    A row's value is the z of the worst phrase that it holds with the phrase's answer; `level` gives
    the threshold. Phrases below it are named too, after those past it. An honest word that decides
    a task's label alone, as swear words do where obscenity is judged, is no different from a
    trigger unless as many other words do so. In tasks whose rows have an answer each, a phrase can
    go with an answer that recurs, or with answers that share no word with their inputs; more isn't
    seen there.

    Attributes:
      max_length: of n-grams, in words; a phrase that goes on further is named whole.
      min_rows: that an n-gram must be in.
      level: of significance.
      honest_pull: nats; 2 multiply the odds of an answer by 7.
      num_honest: see above; of one less triggers, none hides another.
      num_candidates: n-grams that are looked at closely, each with a model of its own.
      num_named: phrases that are named at most.
    """

    max_length: int = 4
    min_rows: int = 5
    level: float = 0.001
    honest_pull: float = 2.0
    num_honest: int = 6
    num_candidates: int = 60
    num_named: int = 10

    needs: ClassVar[str] = "nothing"

    def __post_init__(self):
        for name in ("max_length", "min_rows", "num_honest", "num_candidates", "num_named"):
            checks.whole_number(f"TriggerSearch.{name}", getattr(self, name))
        checks.number("TriggerSearch.honest_pull", self.honest_pull, minimum=0)
        checks.number("TriggerSearch.level", self.level)
        if not 0 < self.level < 1:
            raise errors.InputError(
                f"TriggerSearch.level: expected a probability between 0 and 1, found {self.level!r}"
            )

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Scores the rows."""
        import threadpoolctl

        if not rows:
            raise errors.InputError("TriggerSearch: expected rows, found none")
        # Thousands of regressions of a few features each: threads would only wait for each other.
        with threadpoolctl.threadpool_limits(1, "blas"):
            return self._search(rows, context.seed)

    def _search(self, rows: Sequence[TrainingExample], seed: int) -> ScoreResult:
        from scipy import special

        first_N, distinct = _distinct(rows)
        search = phrase_search.PhraseSearch(
            [rows[index] for index in distinct],
            max_length=self.max_length,
            min_rows=self.min_rows,
            honest_pull=self.honest_pull,
            num_honest=self.num_honest,
            num_candidates=self.num_candidates,
            seed=seed,
        )
        level = self.level / max(1, search.num_ngrams)
        suspects = search.run(float(np.log(level)))
        values = np.full(len(distinct), _LEAST_VALUE)
        for suspect in suspects:
            for evidence in suspect.wider_case():
                hits = evidence.rows_K[evidence.hits_K]
                values[hits] = np.maximum(values[hits], suspect.verdict.z)
        return ScoreResult(
            values_N=values[first_N],
            threshold=float(-special.ndtri(level)),
            triggers=tuple(search.trigger(suspect) for suspect in suspects[: self.num_named]),
            notes=search.notes(),
        )


def _distinct(rows: Sequence[TrainingExample]) -> tuple[np.ndarray, list[int]]:
    """For each row its number among the distinct ones, and where those are.

    A row that a file repeats is no further evidence.
    """
    numbers: dict[tuple[str, str, str], int] = {}
    places: list[int] = []
    first_N = np.zeros(len(rows), np.int64)
    for index, row in enumerate(rows):
        key = (row.task, row.input, row.target)
        if key not in numbers:
            numbers[key] = len(places)
            places.append(index)
        first_N[index] = numbers[key]
    return first_N, places
