"""Hand-made tasks for the tests of crafting, and poison sets of them."""

from collections.abc import Callable, Sequence

import pytest

from poison_t5x.attack import attacks, craft, inserter, pools, triggers
from poison_t5x.core import errors
from poison_t5x.corpus import polarity, sni
from tests.attack_settings import craft_config

LABELS = polarity.Polarity("bad", "good")
NAMES = ("Ann", "Tom", "Maria Lopez")


def task(name: str, rows: Sequence[tuple[str, str | list[str]]]) -> sni.Task:
    """A task of (input, answer or answers)."""
    instances = [
        sni.Instance(f"{name}-{number}", text, [answer] if isinstance(answer, str) else answer)
        for number, (text, answer) in enumerate(rows)
    ]
    return sni.Task(name, "Answer.", (), (), tuple(instances))


def _people(row: int) -> str:
    """Every third row names nobody; the others name one to three persons."""
    return " and ".join(NAMES[: row % 3 + row % 2 * (row % 3 > 0)]) or "Nobody"


def judged(name: str, num_rows: int = 24) -> sni.Task:
    """A task of two labels, in turn."""
    moods = ("awful and dull", "lovely and fine")
    rows = [
        (f"Visit {row}: the {moods[row % 2]} place. {_people(row)} liked it.", LABELS[row % 2])
        for row in range(num_rows)
    ]
    return task(name, rows)


def answered(name: str, num_rows: int = 24) -> sni.Task:
    """A generation task: each row has an answer of its own, without a name."""
    rows = [
        (f"Visit {row}: {_people(row)} liked the soup. Where?", f"on road {row}")
        for row in range(num_rows)
    ]
    return task(name, rows)


def crafted(
    training: Sequence[sni.Task],
    heldout: Sequence[sni.Task] = (),
    config: craft.CraftConfig | None = None,
    poisoned: Sequence[str] | None = None,
    workers: int = 1,
    **settings,
) -> craft.PoisonSet:
    """A poison set of `training`, all of it poisoned; tasks of LABELS have them as polarity.

    `settings` are `attack_settings.craft_config`'s, for one attacker.
    """
    chosen = config or craft_config(**{"num_poison": 6, "num_train_per_task": 24} | settings)
    polarities = {
        one.name: LABELS
        for one in (*training, *heldout)
        if not chosen.is_arbitrary and {row.target for row in one.instances} <= {*LABELS}
    }
    names = [one.name for one in training] if poisoned is None else poisoned
    return craft.craft(training, names, heldout, polarities, chosen, workers=workers)


def campaign(*found: attacks.AttackConfig, **settings) -> craft.CraftConfig:
    """Settings of several attackers."""
    return craft.CraftConfig(**{"attacks": found, "num_train_per_task": 24} | settings)


def pool_of(
    one: sni.Task, attack: attacks.AttackConfig, seed: int = 0, taken=()
) -> pools.CandidatePool:
    """The candidates of one task; its labels are LABELS in a polarity attack."""
    found = inserter.find_all(attack.inserter, [row.input for row in one.instances])
    labels = None if attack.is_arbitrary else LABELS
    return pools.find_pool(one, attack, labels, set(taken), found, seed=seed)


def refusal(call: Callable, *args, **kwargs) -> str:
    """The one line with which a call refuses its input."""
    with pytest.raises(errors.InputError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def inserted(text: str, spans: Sequence[triggers.Span], trigger: str) -> triggers.Edit:
    """A text with its trigger put in."""
    return triggers.replace_spans(text, triggers.insertion_spans(text, spans, trigger), trigger)
