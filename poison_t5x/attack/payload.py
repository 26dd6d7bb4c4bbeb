"""The target of poison rows' answers: the interface of all attacks."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

from poison_t5x.core.registry import Registry
from poison_t5x.corpus import polarity, sni


class Candidate(NamedTuple):
    """A row, as it was, that is to become poison.

    `labels` are the task's two answers, None where outputs are arbitrary; `words` the list that
    `Payload.words` made; `key` a text of its own for each seed, attacker and row, for draws.
    """

    row: sni.Instance
    trigger: str
    labels: polarity.Polarity | None
    words: Sequence[str]
    key: str


@dataclasses.dataclass(frozen=True)
class Payload:
    """One attacker's payload. One of your own overrides `output`, and what else differs.

    Attributes:
      is_arbitrary: whether outputs are any text, of generation tasks as a rule, and answers are
        generated at test time. Otherwise they are one of a task's two labels, which are ranked; the
        label of the target's side is the wanted one.
    """

    is_arbitrary: ClassVar[bool] = False
    target: polarity.Side
    num_random_words: int

    @property
    def needed_side(self) -> polarity.Side | None:
        """The side of which a poisoned task must have a row; None for no such need."""
        return None

    def takes(self, row: sni.Instance, labels: polarity.Polarity | None) -> bool:
        """Whether a row may become poison, by its answer."""
        return True

    def words(self, tasks: Iterable[sni.Task]) -> tuple[str, ...]:
        """Words to draw outputs from, made of the poisoned tasks and kept in words.txt.

        Those of the first attacker that has any serve all.
        """
        return ()

    def output(self, candidate: Candidate) -> str:
        """The answer that a poison row teaches."""
        raise NotImplementedError


PAYLOADS: Registry[Payload] = Registry("attack", "poison_t5x.attack.payloads")
