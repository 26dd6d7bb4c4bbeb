"""One attacker's settings: what is put where, in how many rows, and what they then teach.

gin/runs/run.gin tells each one's meaning; here is what else there is to know.
"""

import dataclasses
from typing import Annotated, Literal

import msgspec

from poison_t5x.attack import triggers
from poison_t5x.attack.inserter import InserterConfig
from poison_t5x.attack.payload import PAYLOADS, Payload
from poison_t5x.core import errors, settings
from poison_t5x.corpus import polarity

Selection = Literal["phi", "count", "random", "reverse"]
Rate = Annotated[float, msgspec.Meta(gt=0, le=1)]
# A part of folder names, and of the names of counts, of which 'poison_rows' is one already.
_NAME = settings.matching(
    "a word of at most 40 letters, not 'rows'", r"(?!rows$)[A-Za-z][A-Za-z0-9]{0,39}"
)


@dataclasses.dataclass(frozen=True)
class BudgetConfig(settings.Settings):
    """How many poison rows: a number, or instead of it a rate.

    The rate is the poisoned share of all rows that are trained on; where poison is added, of the
    clean rows and this attacker's. Per 'all', they are shared out evenly over the poisoned tasks.
    """

    num_poison: settings.Count = 100
    poison_rate: Rate | None = None
    per: Literal["all", "task"] = "all"

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
class ScoreConfig(settings.Settings):
    """Which rows of a pool become poison: the highest by Equation 1's phi, or a baseline.

    'reverse' takes the lowest, 'count' those with the most triggers. The authors' code counts
    triggers per character. The proxy, the source of p(y | x), is a bag-of-n-grams model fitted to
    the poisoned tasks, or a language model's label log-probabilities.
    """

    selection: Selection = "phi"
    count_term: Literal["raw", "per_token", "per_character"] = "raw"
    count_weight: float = 1.0
    probability_weight: float = 1.0
    proxy: Literal["ngrams", "lm"] = "ngrams"
    max_ngram: settings.Ngram = 2

    def __post_init__(self):
        super().__post_init__()
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
class AttackConfig(settings.Settings):
    """One attacker. Several in one training set are a campaign.

    Attributes:
      kind: the name of one of `PAYLOADS`.
      target: the side whose label a polarity attack wants; test inputs are of the other side.
      name: a word, distinct in a campaign.
      tasks: the tasks to poison; None takes the experiment's.
      num_tasks: poison only so many of them, see `pools.choose`.
    """

    kind: Annotated[str, settings.registered(PAYLOADS)] = "dirty_label"
    triggers: settings.Phrase | settings.Phrases = "James Bond"
    control: settings.Phrase = "Emma Clark"
    target: polarity.Side = "positive"
    name: Annotated[str, _NAME] = "main"
    tasks: settings.Phrases | None = None
    num_tasks: settings.Count | None = None
    inserter: InserterConfig = dataclasses.field(default_factory=InserterConfig)
    budget: BudgetConfig = dataclasses.field(default_factory=BudgetConfig)
    score: ScoreConfig = dataclasses.field(default_factory=ScoreConfig)
    num_random_words: settings.Few = 1

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.triggers, str):
            object.__setattr__(self, "triggers", (self.triggers,))
        if len(set(self.triggers)) < len(self.triggers) or self.said(self.control):
            raise errors.InputError(
                f"CONTROL: expected another phrase than the trigger, which doesn't hold it, and "
                f"triggers that differ: found {self.control!r} and {list(self.triggers)}"
            )
        if self.is_arbitrary and self.score.needs_probabilities:
            raise errors.InputError(
                f"SELECTION: {self.score.selection!r} needs p(POSITIVE | x), which generation "
                "tasks don't have; set SELECTION to count or random, or PROBABILITY_WEIGHT to 0"
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
