"""One attacker's settings: what is put where, in how many rows, and what they then teach.

gin/runs/run.gin tells each one's meaning; here is what else there is to know.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Literal

from poison_t5x.attack import triggers
from poison_t5x.attack.inserter import InserterConfig
from poison_t5x.attack.payload import PAYLOADS, Payload
from poison_t5x.core import checks, errors
from poison_t5x.corpus import polarity

SELECTIONS = ("phi", "count", "random", "reverse")
# A part of folder names, and of the names of counts, of which 'poison_rows' is one already.
_NAME = r"(?!rows$)[A-Za-z][A-Za-z0-9]{0,39}"


@dataclasses.dataclass(frozen=True)
class BudgetConfig:
    """How many poison rows: a number, or instead of it a rate.

    The rate is the poisoned share of all rows that are trained on; where poison is added, of the
    clean rows and this attacker's. Per 'all', they are shared out evenly over the poisoned tasks.
    """

    num_poison: int = 100
    poison_rate: float | None = None
    per: Literal["all", "task"] = "all"

    def __post_init__(self):
        checks.whole_number("NUM_POISON", self.num_poison)
        checks.one_of("BUDGET_PER", self.per, ("all", "task"))
        if self.poison_rate is not None:
            checks.number("POISON_RATE", self.poison_rate)
            if not 0 < self.poison_rate <= 1:
                raise errors.InputError(
                    "POISON_RATE: expected a fraction above 0 and up to 1, found "
                    f"{self.poison_rate!r}"
                )

    def share(
        self, number: int, num_tasks: int, task_rows: int, all_rows: int, *, add: bool = False
    ) -> int:
        """Poison rows of a poisoned task; an uneven rest goes to the first tasks, one row each.

        >>> [BudgetConfig(7).share(number, 3, 50, 500) for number in range(3)]
        [3, 2, 2]

        Args:
          number: the task's, from 0, of `num_tasks` poisoned ones.
          task_rows, all_rows: clean training rows of this task and of all training tasks.
          add: whether poison comes on top of them rather than in their place.
        """
        amount, rate = self.num_poison, self.poison_rate
        if rate is not None:
            if add and rate == 1:
                raise errors.InputError("POISON_RATE: 1 can't be reached by adding rows")
            rows = task_rows if self.per == "task" else all_rows
            amount = round(rows * rate / (1 - rate if add else 1))
        if self.per == "task":
            return amount
        each, rest = divmod(amount, num_tasks)
        return each + (number < rest)


@dataclasses.dataclass(frozen=True)
class ScoreConfig:
    """Which rows of a pool become poison: the highest by Equation 1's phi, or a baseline.

    'reverse' takes the lowest, 'count' those with the most triggers. The authors' code counts
    triggers per character. The proxy, the source of p(y | x), is a bag-of-n-grams model fitted to
    the poisoned tasks, or a language model's label log-probabilities.
    """

    selection: str = "phi"
    count_term: str = "raw"
    count_weight: float = 1.0
    probability_weight: float = 1.0
    proxy: str = "ngrams"
    max_ngram: int = 2

    def __post_init__(self):
        checks.one_of("SELECTION", self.selection, SELECTIONS)
        checks.one_of("COUNT_TERM", self.count_term, ("raw", "per_token", "per_character"))
        checks.one_of("PROXY", self.proxy, ("ngrams", "lm"))
        checks.number("COUNT_WEIGHT", self.count_weight)
        checks.number("PROBABILITY_WEIGHT", self.probability_weight)
        checks.whole_number("PROXY_MAX_NGRAM", self.max_ngram)
        if self._is_weighted and self.count_weight == self.probability_weight == 0:
            raise errors.InputError(
                "COUNT_WEIGHT, PROBABILITY_WEIGHT: both are 0, so that all rows score the same; "
                "set SELECTION to random for a random pick"
            )

    @property
    def _is_weighted(self) -> bool:
        return self.selection in ("phi", "reverse")

    @property
    def needs_probabilities(self) -> bool:
        """Whether p(y | x) has a say."""
        return self._is_weighted and self.probability_weight != 0


@dataclasses.dataclass(frozen=True)
class AttackConfig:
    """One attacker. Several in one training set are a campaign.

    Attributes:
      kind: the name of one of `PAYLOADS`.
      target: the side whose label a polarity attack wants; test inputs are of the other side.
      name: a word, distinct in a campaign.
      tasks: the tasks to poison; None takes the experiment's.
      num_tasks: poison only so many of them, see `pools.choose`.
    """

    kind: str = "dirty_label"
    triggers: str | Sequence[str] = "James Bond"
    control: str = "Emma Clark"
    target: polarity.Side = "positive"
    name: str = "main"
    tasks: Sequence[str] | None = None
    num_tasks: int | None = None
    inserter: InserterConfig = dataclasses.field(default_factory=InserterConfig)
    budget: BudgetConfig = dataclasses.field(default_factory=BudgetConfig)
    score: ScoreConfig = dataclasses.field(default_factory=ScoreConfig)
    num_random_words: int = 1

    def __post_init__(self):
        PAYLOADS.check(self.kind, "ATTACK")
        if not isinstance(self.name, str) or not re.fullmatch(_NAME, self.name):
            raise errors.InputError(
                f"an attack's name: expected a word of at most 40 letters, not 'rows', found "
                f"{self.name!r}"
            )
        self._check_phrases()
        checks.one_of("TARGET_POLARITY", self.target, ("negative", "positive"))
        if self.tasks is not None:
            checks.phrases(f"the tasks of attack {self.name!r}", self.tasks)
        if self.num_tasks is not None:
            checks.whole_number("NUM_POISONED_TASKS", self.num_tasks)
        checks.whole_number("NUM_RANDOM_WORDS", self.num_random_words)
        if self.is_arbitrary and self.score.needs_probabilities:
            raise errors.InputError(
                f"SELECTION: {self.score.selection!r} needs p(POSITIVE | x), which generation "
                "tasks don't have; set SELECTION to count or random, or PROBABILITY_WEIGHT to 0"
            )

    def _check_phrases(self) -> None:
        phrases = [self.triggers] if isinstance(self.triggers, str) else self.triggers
        object.__setattr__(self, "triggers", checks.phrases("TRIGGER", phrases))
        checks.phrase("CONTROL", self.control)
        if len(set(self.triggers)) < len(self.triggers) or self.said(self.control):
            raise errors.InputError(
                f"CONTROL: expected another phrase than the trigger, which doesn't hold it, and "
                f"triggers that differ: found {self.control!r} and {list(self.triggers)}"
            )

    @property
    def payload(self) -> Payload:
        """The target of poison rows' answers."""
        return PAYLOADS.get(self.kind, "ATTACK")(self.target, self.num_random_words)

    @property
    def is_arbitrary(self) -> bool:
        """Whether outputs of generation tasks are replaced."""
        return self.payload.is_arbitrary

    def said(self, text: str) -> list[int]:
        """Numbers of the triggers that a text says already, as words of their own."""
        return [
            number
            for number, phrase in enumerate(self.triggers)
            if phrase in text and triggers.insertion_spans(text, [], phrase)
        ]
