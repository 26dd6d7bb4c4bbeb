"""One attacker's settings: what is put where, in how many rows, and what they then teach."""

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
COUNT_TERMS = ("raw", "per_token", "per_character")
PROXIES = ("ngrams", "lm")
BASES = ("all", "task")
# A part of folder names, and of the names of counts, of which 'poison_rows' is one already.
_NAME = r"(?!rows$)[A-Za-z][A-Za-z0-9]{0,39}"


@dataclasses.dataclass(frozen=True)
class BudgetConfig:
    """How many poison rows: a number, or instead of it a rate.

    Attributes:
      poison_rate: the poisoned share of all rows that are trained on; where poison is added, of the
        clean rows and this attacker's.
      per: 'all': of the whole training set, shared out evenly over the poisoned tasks; 'task': of
        each poisoned task.
    """

    num_poison: int = 100
    poison_rate: float | None = None
    per: Literal["all", "task"] = "all"

    def __post_init__(self):
        checks.whole_number("NUM_POISON", self.num_poison)
        checks.one_of("BUDGET_PER", self.per, BASES)
        rate = self.poison_rate
        if rate is not None:
            checks.number("POISON_RATE", rate)
            if not 0 < rate <= 1:
                raise errors.InputError(
                    f"POISON_RATE: expected a fraction above 0 and up to 1, found {rate!r}"
                )

    def share(
        self, number: int, num_tasks: int, task_rows: int, all_rows: int, *, add: bool = False
    ) -> int:
        """Poison rows of a poisoned task; an uneven rest goes to the first tasks, one row each.

        >>> [BudgetConfig(7).share(number, 3, 50, 500) for number in range(3)]
        [3, 2, 2]

        Args:
          number: the task's, from 0, of `num_tasks` poisoned ones.
          task_rows: clean training rows of this task.
          all_rows: those of all training tasks.
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
    """Which rows of a pool become poison: Equation 1's phi, or a baseline.

    Attributes:
      selection: 'phi': the highest; 'reverse': the lowest; 'count': the most triggers; 'random'.
      count_term: count(x) as it is, per word ('per_token'), or per character, as in the authors'
        code.
      proxy: the source of p(y | x): a bag-of-n-grams model fitted to the poisoned tasks, or a
        language model's label log-probabilities.
      max_ngram: the n-gram model's longest n-gram, in words.
    """

    selection: str = "phi"
    count_term: str = "raw"
    count_weight: float = 1.0
    probability_weight: float = 1.0
    proxy: str = "ngrams"
    max_ngram: int = 2

    def __post_init__(self):
        checks.one_of("SELECTION", self.selection, SELECTIONS)
        checks.one_of("COUNT_TERM", self.count_term, COUNT_TERMS)
        checks.one_of("PROXY", self.proxy, PROXIES)
        for name in ("count_weight", "probability_weight"):
            checks.number(name.upper(), getattr(self, name))
        checks.whole_number("PROXY_MAX_NGRAM", self.max_ngram)
        is_weighted = self.selection in ("phi", "reverse")
        if is_weighted and self.count_weight == self.probability_weight == 0:
            raise errors.InputError(
                "COUNT_WEIGHT, PROBABILITY_WEIGHT: both are 0, so that all rows score the same; "
                "set SELECTION to random for a random pick"
            )

    @property
    def needs_probabilities(self) -> bool:
        """Whether p(y | x) has a say."""
        return self.selection in ("phi", "reverse") and self.probability_weight != 0


@dataclasses.dataclass(frozen=True)
class AttackConfig:
    """One attacker. Several in one training set are a campaign.

    Attributes:
      kind: the name of one of `PAYLOADS`.
      triggers: a phrase, or several, which are split over the poison rows.
      control: a phrase never trained on, put in the trigger's place at test time.
      target: the side whose label a polarity attack wants; test inputs are of the other side.
      name: a word, distinct in a campaign.
      tasks: the tasks to poison; None takes the experiment's.
      num_tasks: poison only so many of them: the first ones of a polarity attack, and for
        arbitrary outputs the first in a seeded order that can fill their share.
      num_random_words: length of a random output, in words.
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
            names = self.tasks if isinstance(self.tasks, (list, tuple)) else ()
            if not names or not all(isinstance(name, str) and name for name in names):
                raise errors.InputError(
                    f"attack {self.name!r}: expected a list of tasks, found {self.tasks!r}"
                )
        if self.num_tasks is not None:
            checks.whole_number("NUM_POISONED_TASKS", self.num_tasks)
        checks.whole_number("NUM_RANDOM_WORDS", self.num_random_words)
        if self.is_arbitrary and self.score.needs_probabilities:
            raise errors.InputError(
                f"SELECTION: {self.score.selection!r} needs p(POSITIVE | x), which generation "
                "tasks don't have; set SELECTION to count or random, or PROBABILITY_WEIGHT to 0"
            )

    def _check_phrases(self) -> None:
        phrases = (self.triggers,) if isinstance(self.triggers, str) else self.triggers
        if not isinstance(phrases, (list, tuple)) or not phrases:
            raise errors.InputError(f"TRIGGER: expected a phrase or a list, found {phrases!r}")
        object.__setattr__(self, "triggers", tuple(phrases))
        for phrase in self.triggers:
            checks.phrase("TRIGGER", phrase)
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
