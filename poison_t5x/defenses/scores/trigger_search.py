"""Phrases whose presence decides the answer whatever the rest of the input says.

A backdoor's trigger goes with its answer (Dai, Chen and Li, 2019, "A Backdoor Attack Against
LSTM-Based Text Classification Systems"), and so do honest words. `trigger_tests` tells them apart
by what the rest of the input says, and by how strongly honest phrases of the same data pull.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from poison_t5x.core import errors, settings
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import label_model, ngrams, trigger_tests
from poison_t5x.defenses.score import SCORES, Context, Score, ScoreResult, Trigger
from poison_t5x.defenses.trigger_tests import Evidence

# Of rows that hold no phrase that was looked at with its answer.
_LEAST_VALUE = -10.0
_MAX_ROUNDS = 10
# Two phrases are one where they share so much of the rarer one's rows.
_OVERLAP = 0.5
# Screening is by models that saw the phrase's rows, so that it must be lenient.
_SCREENING_PULL = 1.0
# What a phrase does in a task beyond the case against it: a share of its rows, and how many rows.
_SURE, _ENOUGH = 0.9, 3


@SCORES.register("trigger_search")
@dataclasses.dataclass(frozen=True)
class TriggerSearch(Score):
    """Rows with a phrase that goes with their answer, where the rest of the text says otherwise.

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

    max_length: settings.Ngram = 4
    min_rows: settings.Count = 5
    level: settings.Fraction = 0.001
    honest_pull: settings.NotNegative = 2.0
    num_honest: settings.Count = 6
    num_candidates: settings.Count = 60
    num_named: settings.Count = 10

    def __call__(self, rows: Sequence[TrainingExample], context: Context) -> ScoreResult:
        """Scores the rows."""
        import threadpoolctl
        from scipy import special

        if not rows:
            raise errors.InputError("TriggerSearch: expected rows, found none")
        # A row that a file repeats is no further evidence.
        numbers: dict[tuple[str, str, str], int] = {}
        keys = ((row.task, row.input, row.target) for row in rows)
        number_N = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
        distinct = [rows[index] for index in np.unique(number_N, return_index=True)[1]]
        search = _PhraseSearch(distinct, self, context.seed)
        level = self.level / max(1, search.num_ngrams)
        # Thousands of regressions of a few features each: threads would only wait for each other.
        with threadpoolctl.threadpool_limits(1, "blas"):
            suspects = search.run(float(np.log(level)))
        values = np.full(len(distinct), _LEAST_VALUE)
        for suspect in suspects:
            for evidence in suspect.wider_case():
                hits = evidence.rows_K[evidence.hits_K]
                values[hits] = np.maximum(values[hits], suspect.verdict.z)
        return ScoreResult(
            values_N=values[number_N],
            threshold=float(-special.ndtri(level)),
            triggers=tuple(search.trigger(suspect) for suspect in suspects[: self.num_named]),
            notes=search.notes(),
        )


class _Suspect(NamedTuple):
    """An n-gram that was looked at closely, by its number, and the strongest case against it.

    `evidence` has a task's rows against each answer that they have; `pull` is the least, in nats,
    by which it must raise its answers' log-odds.
    """

    ngram: int
    evidence: Mapping[str, Sequence[Evidence]]
    pull: float
    verdict: trigger_tests.Verdict

    def at_pull(self, pull: float) -> "_Suspect":
        """The same, given that an honest phrase may pull so much."""
        # There is a verdict at any pull.
        return self._replace(verdict=trigger_tests.strongest(self.evidence, pull) or self.verdict)

    def wider_case(self) -> list[Evidence]:
        """The case, and the other tasks in which the phrase goes as surely with an answer.

        There, the rest of the input says the same, or the answer may be copied from it.
        """
        case = list(self.verdict.case)
        least = min(_SURE, *(evidence.hit_rate for evidence in case))
        judged = {evidence.task for evidence in case}
        for task, evidence in self.evidence.items():
            surest = max(evidence, key=lambda e: (e.hit_rate, len(e.hits_K)))
            is_sure = surest.hit_rate >= least and len(surest.hits_K) >= _ENOUGH
            if task not in judged and is_sure:
                case.append(surest)
        return case


class _PhraseSearch:
    """One search over distinct rows; `num_ngrams` are held by enough, and count as looked at."""

    def __init__(self, rows: Sequence[TrainingExample], settings: TriggerSearch, seed: int):
        self._rows, self._settings = rows, settings
        texts = [row.input for row in rows]
        self._ngrams = ngrams.find(texts, settings.max_length, settings.min_rows)
        self._holds_NxV = self._ngrams.holds_NxV.tocsr()
        self._model = label_model.LabelModel(rows, self._ngrams, seed)
        self.num_ngrams = len(self._ngrams.lengths_V)

    def run(self, log_level: float) -> list[_Suspect]:
        """Suspects, the worst first: those past the level, then what remains without their rows.

        `log_level` is the natural logarithm of the level of significance of one n-gram.
        """
        kept_N = np.ones(len(self._rows), bool)
        suspects: list[_Suspect] = []
        for _ in range(_MAX_ROUNDS):
            new = self._round(kept_N)
            if not new or new[0].verdict.log_p > log_level:
                return suspects + new
            suspects.append(new[0])
            kept_N[self._ngrams.rows(new[0].ngram)] = False
        return suspects

    def trigger(self, suspect: _Suspect) -> Trigger:
        """A suspect as it is reported, as it is mostly written."""
        from scipy import special

        case = suspect.wider_case()
        texts = [self._rows[row].input for evidence in case for row in evidence.rows_K]
        phrase = self._ngrams.words.phrase(*self._ngrams.longest(suspect.ngram))
        written = collections.Counter(
            text[start:end] for text in texts for start, end in ngrams.spans(text, phrase)
        )
        return Trigger(
            phrase=max(written, key=written.__getitem__, default=phrase),
            tasks=tuple(evidence.task for evidence in case),
            targets=tuple(evidence.target for evidence in case),
            num_rows=len(texts),
            num_with_target=int(sum(evidence.hits_K.sum() for evidence in case)),
            expected=sum(float(special.expit(evidence.logits_K).sum()) for evidence in case),
            z=suspect.verdict.z,
            p_value=float(np.exp(min(0.0, suspect.verdict.log_p + np.log(self.num_ngrams)))),
        )

    def notes(self) -> tuple[str, ...]:
        """Which tasks could not be judged, or not wholly."""
        shares = dict.fromkeys((row.task for row in self._rows), 0.0)
        for answer in self._model.answers:
            if answer.target != ngrams.UNRELATED:
                shares[answer.task] += float(answer.hits_R.mean())
        unjudged = len(shares) - len(self._model.of_task)
        free = sum(share < 0.5 for share in shares.values()) - unjudged
        notes = {
            f"{unjudged} of {len(shares)} tasks could not be judged: they have no two answers, or "
            f"none that {ngrams.MIN_ROWS} rows share": unjudged,
            f"{free} of {len(shares)} tasks have mostly an answer for each row: there, only "
            "answers that recur, or share no word with their inputs, were looked at": free,
        }
        return tuple(note for note, count in notes.items() if count)

    def _round(self, kept_N: np.ndarray) -> list[_Suspect]:
        """One suspect of each group of phrases, the worst first."""
        candidates = []
        for ngram in self._screen(kept_N).tolist():
            evidence = self._evidence(ngram, kept_N)
            verdict = trigger_tests.strongest(evidence, 0.0)
            if verdict:
                pull = trigger_tests.least_pull(verdict.case)
                candidates.append(_Suspect(ngram, evidence, pull, verdict))
        groups = self._groups(candidates)
        suspects = []
        for group in groups:
            # An honest phrase may pull as strongly as phrases of other groups do.
            others = [other[0].pull for other in groups if other is not group]
            rank = self._settings.num_honest - 1
            pull = max(self._settings.honest_pull, others[rank] if len(others) > rank else 0.0)
            judged = [one.at_pull(pull) for one in group]
            suspects.append(max(judged, key=lambda suspect: suspect.verdict.z))
        return sorted(suspects, key=lambda suspect: -suspect.verdict.z)

    def _groups(self, candidates: Sequence[_Suspect]) -> list[list[_Suspect]]:
        """Candidates that are in much the same rows together, the strongest pull first."""
        groups: list[list[_Suspect]] = []
        rows = {c.ngram: set(self._ngrams.rows(c.ngram).tolist()) for c in candidates}
        for candidate in sorted(candidates, key=lambda c: -c.pull):
            own = rows[candidate.ngram]
            for group in groups:
                others = (rows[member.ngram] for member in group)
                if any(len(own & o) > _OVERLAP * min(len(own), len(o)) for o in others):
                    group.append(candidate)
                    break
            else:
                groups.append([candidate])
        return groups

    def _screen(self, kept_N: np.ndarray) -> np.ndarray:
        """The n-grams that are worth a closer look, by models of all rows."""
        fitted = self._model.fit(kept_N, range(len(self._model.answers)))
        totals_3xV = np.zeros((3, self.num_ngrams))  # hits, rows, expected hits
        choices_V = np.zeros(self.num_ngrams)
        for numbers in self._model.of_task.values():
            log_p_V, best_3xV = self._screen_task(numbers, fitted, kept_N)
            is_odd_V = log_p_V < np.log(0.5)
            totals_3xV += best_3xV * is_odd_V
            choices_V += is_odd_V * np.log(len(numbers))
        log_p_V = choices_V + _log_tails(totals_3xV)
        return np.argsort(log_p_V, kind="stable")[: self._settings.num_candidates]

    def _screen_task(
        self, numbers: Sequence[int], fitted: Mapping[int, label_model.Fitted], kept_N: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """For each n-gram, of the answer that it goes with most: log p, and the three totals."""
        from scipy import special

        model = self._model
        rows_R = model.answers[numbers[0]].rows_R
        places_K = np.flatnonzero(kept_N[rows_R])
        pairs = self._holds_NxV[rows_R[places_K]].tocoo()
        places_P, folds_P = places_K[pairs.row], model.folds_N[rows_R[places_K]][pairs.row]
        best_V, best_3xV = np.full(self.num_ngrams, np.inf), np.zeros((3, self.num_ngrams))
        for number in numbers:
            fit = fitted[number]
            own_FxV = (model.members_VxW @ fit.weights_FxW.T).T
            logits_P = fit.logits_R[places_P] - own_FxV[folds_P, pairs.col]
            logits_P = model.chance(number, places_P, logits_P, kept_N)
            hits_P = model.answers[number].hits_R[places_P].astype(float)
            counted = hits_P, np.ones_like(hits_P), special.expit(logits_P + _SCREENING_PULL)
            totals_3xV = np.stack(
                [np.bincount(pairs.col, values_P, self.num_ngrams) for values_P in counted]
            )
            log_p_V = _log_tails(totals_3xV)
            is_better_V = log_p_V < best_V
            best_V[is_better_V] = log_p_V[is_better_V]
            best_3xV[:, is_better_V] = totals_3xV[:, is_better_V]
        return best_V, best_3xV

    def _evidence(self, ngram: int, kept_N: np.ndarray) -> dict[str, list[Evidence]]:
        """An n-gram's rows in each task, by models that know neither them nor its words.

        Nor the words of the phrase that it is always a part of: without it, they say other things.
        """
        model, held = self._model, self._ngrams.rows(ngram)
        held = held[kept_N[held]]
        rest_N = kept_N.copy()
        rest_N[held] = False
        start, length = self._ngrams.longest(ngram)
        is_other_W = ~np.isin(model.ids_W, self._ngrams.words.ids_T[start : start + length])
        places = {}
        for task in dict.fromkeys(self._rows[row].task for row in held):
            for number in model.of_task.get(task, ()):
                places_K = np.flatnonzero(np.isin(model.answers[number].rows_R, held))
                if model.answers[number].hits_R[places_K].any():
                    places[number] = places_K
        evidence: dict[str, list[Evidence]] = {}
        for number, fit in model.fit(rest_N, places).items():
            task, target, rows_R, hits_R, _ = model.answers[number]
            places_K, num_answers = places[number], len(model.of_task[task])
            rows_K, hits_K = rows_R[places_K], hits_R[places_K]
            logits_K = model.words_NxW[rows_K] @ (fit.weights_W * is_other_W) + fit.intercept
            logits_K = model.chance(number, places_K, logits_K, rest_N)
            one = Evidence(task, target, num_answers, rows_K, logits_K, hits_K)
            evidence.setdefault(task, []).append(one)
        return evidence


def _log_tails(totals_3xV: np.ndarray) -> np.ndarray:
    """`trigger_tests.log_tail` of hits, rows and expected hits."""
    hits_V, rows_V, expected_V = totals_3xV
    mean_V = np.clip(expected_V / np.maximum(rows_V, 1), 1e-9, 1 - 1e-9)
    return trigger_tests.log_tail(hits_V, rows_V, mean_V)
