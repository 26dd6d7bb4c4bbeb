"""An attacker's settings: what is refused, in which words, and how many rows a budget comes to."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poison_t5x.attack import attacks, craft
from poison_t5x.core import artifacts
from tests.attack.made_up import campaign, refusal

ATTACK = attacks.AttackConfig
BUDGET = attacks.BudgetConfig
SCORE = attacks.ScoreConfig
CRAFT = craft.CraftConfig


NO_WEIGHTS = {"count_weight": 0.0, "probability_weight": 0}
# What a type alone says is tested in tests/core/test_settings.py.
REFUSED = [
    (ATTACK, {"kind": "dirty-label"}, "ATTACK: no attack 'dirty-label'", "mean 'dirty_label'?"),
    (
        ATTACK,
        {"kind": "clean"},
        "ATTACK: no attack 'clean'",
        "dirty_label, clean_label, repeat, ra",
    ),
    (ATTACK, {"triggers": " \n"}, "TRIGGER: expected a phrase", "empty"),
    (ATTACK, {"triggers": []}, "TRIGGER: expected a list of phrases", "[]"),
    (ATTACK, {"triggers": None}, "TRIGGER: expected a phrase or a list of phrases", "None"),
    (ATTACK, {"triggers": ["Jo Bell", 7]}, "TRIGGER[1]: expected a phrase", "7"),
    (ATTACK, {"triggers": ["Jo Bell", "Jo Bell"]}, "CONTROL: ", "triggers that differ"),
    (ATTACK, {"triggers": "Jo\ud800"}, "TRIGGER: expected text, found half a character", ""),
    (ATTACK, {"control": "\udfff"}, "CONTROL: expected text, found half a character", ""),
    (ATTACK, {"control": "James Bond"}, "CONTROL: expected another phrase", "'James Bond'"),
    (ATTACK, {"control": "Sir James Bond!"}, "CONTROL: expected another phrase", "hold it"),
    (ATTACK, {"triggers": ["Jo", "Jim"], "control": "Jim"}, "CONTROL: expected another", "'Jim'"),
    (ATTACK, {"target": "POSITIVE"}, "TARGET_POLARITY: expected one of negative, ", "'POSITIVE'"),
    (ATTACK, {"name": "two words"}, "AttackConfig.name: expected a word", "'two words'"),
    (ATTACK, {"name": ""}, "AttackConfig.name: expected a word", "''"),
    (ATTACK, {"name": "a" * 41}, "AttackConfig.name: expected a word", "40 letters"),
    (ATTACK, {"name": "rows"}, "AttackConfig.name: expected a word", "not 'rows'"),
    (ATTACK, {"tasks": []}, "AttackConfig.tasks: expected a list", "[]"),
    (BUDGET, {"poison_rate": 0}, "POISON_RATE: expected a number above 0 and of at most 1", "0"),
    (BUDGET, {"poison_rate": 1.01}, "POISON_RATE: expected a number above 0", "1.01"),
    (BUDGET, {"per": "tasks"}, "BUDGET_PER: expected one of all, task", "mean 'task'?"),
    (SCORE, {"count_weight": 0, "probability_weight": 0}, "COUNT_WEIGHT, PROB", "random"),
    (
        SCORE,
        {"selection": "reverse", **NO_WEIGHTS},
        "COUNT_WEIGHT, PROBABILITY_WEIGHT: both",
        "SEL",
    ),
    (CRAFT, {"probes": {"near"}}, "PROBES: expected a list", "near"),
    (CRAFT, {"probes": ["near", " "]}, "PROBES[1]: expected a phrase, found an empty text", ""),
    (CRAFT, {"attacks": ()}, "ATTACKS: expected a list of AttackConfigs", "()"),
    (CRAFT, {"attacks": ["main"]}, "ATTACKS[0]: expected a AttackConfig", "main"),
]


def _attack(name, triggers, control="Emma Clark", **rest):
    return ATTACK(name=name, triggers=triggers, control=control, **rest)


ANOTHER = "CONTROL: expected another phrase than any attacker's trigger, found "
OF_SECOND = _attack("second", "Joe Biden"), _attack("second", "Joe Biden", control="James Bond")
REPEAT = _attack("echo", "Jo Bell", kind="repeat", score=SCORE(selection="count"))
TOGETHER = [
    ([_attack("x", "Jo"), _attack("X", "Bo")], "ATTACKS: expected distinct names", "'x'"),
    ([ATTACK(), REPEAT], "ATTACKS: expected polarity attacks or arbitrary ones", "both"),
    ([ATTACK(), OF_SECOND[1]], f"{ANOTHER}'James Bond'", "'main'"),
    ([_attack("main", "Jo", "Old Joe Biden"), OF_SECOND[0]], f"{ANOTHER}'Old Joe Bi", "'second'"),
]
REFUSED += [(CRAFT, {"attacks": attackers}, *rest) for attackers, *rest in TOGETHER]


@pytest.mark.parametrize(("kind", "setting", "start", "hint"), REFUSED)
def test_a_wrong_setting_is_refused_in_one_line_that_names_it(kind, setting, start, hint):
    message = refusal(kind, **setting)
    assert message.startswith(start) and hint in message and len(message) < 250


@pytest.mark.parametrize("kind", ("repeat", "random"))
@pytest.mark.parametrize("selection", ["phi", "reverse"])
def test_generation_tasks_have_no_probability_to_rank_by(kind, selection):
    message = refusal(ATTACK, kind=kind, score=SCORE(selection=selection))
    assert message.startswith(f"SELECTION: {selection!r} needs p(POSITIVE | x)")
    assert "PROBABILITY_WEIGHT to 0" in message
    ATTACK(kind=kind, score=SCORE(selection=selection, probability_weight=0))
    ATTACK(kind=kind, score=SCORE(selection="count"))
    ATTACK(kind="dirty_label", score=SCORE(selection=selection))


NEEDED = (("phi", 1.0), ("reverse", -2.0))


@pytest.mark.parametrize(
    ("selection", "weight"), [*NEEDED, ("phi", 0), ("reverse", 0.0), ("count", 1.0), ("random", 1)]
)
def test_a_proxy_is_asked_only_where_it_has_a_say(selection, weight):
    config = SCORE(selection=selection, probability_weight=weight)
    assert config.needs_probabilities == ((selection, weight) in NEEDED)


def test_weights_of_0_are_taken_where_nothing_is_weighted():
    for selection in ("count", "random"):
        SCORE(selection=selection, **NO_WEIGHTS)
    SCORE(count_weight=0)


def test_a_control_may_share_letters_or_words_with_a_trigger():
    for control in ("Emma Bond", "James Bonde", "james bond", "James"):
        assert ATTACK(control=control).control == control


def test_the_triggers_that_a_text_says_are_words_of_its_own():
    attack = ATTACK(triggers=["Ann", "C++", "."])
    assert attack.said("Anna likes C and ann") == []
    assert attack.said("Ann, likes C+++") == [0, 1]
    assert attack.said("So it ends.") == [2]


def test_settings_are_json_with_the_attackers_by_name():
    config = campaign(ATTACK(), _attack("second", ["Joe Biden", "Jo Bell"]), probes=["near"])
    found = json.loads(artifacts.canonical_json(config.settings()))
    assert list(found["attacks"]) == ["main", "second"]
    assert found["attacks"]["second"]["triggers"] == ["Joe Biden", "Jo Bell"]
    assert found["attacks"]["main"]["budget"] == dataclasses.asdict(BUDGET())
    assert found["probes"] == ["near"]


# Budgets


def _shares(budget, sizes, num_tasks=None, add=False):
    num_tasks = num_tasks or len(sizes)
    return [
        budget.share(number, num_tasks, sizes[number], sum(sizes), add=add)
        for number in range(num_tasks)
    ]


def test_a_rate_of_1_is_not_reached_by_adding():
    message = refusal(_shares, BUDGET(poison_rate=1), [10], add=True)
    assert message.startswith("POISON_RATE: 1 can't be reached by adding")


@settings(deadline=None)
@given(
    num_poison=st.integers(1, 10**6),
    sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=9),
)
def test_a_number_is_shared_out_evenly_and_wholly(num_poison, sizes):
    shares = _shares(BUDGET(num_poison), sizes)
    assert sum(shares) == num_poison
    assert shares == sorted(shares, reverse=True)
    assert max(shares) - min(shares) <= 1


@settings(deadline=None)
@given(
    rate=st.floats(1e-4, 0.99),
    sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=9),
    add=st.booleans(),
)
def test_the_rate_is_that_of_all_rows_in_the_end(rate, sizes, add):
    poison = sum(_shares(BUDGET(poison_rate=rate), sizes, add=add))
    clean = sum(sizes)
    end = clean + poison if add else clean
    # Half a row of rounding; a row more or less also changes the whole.
    assert abs(poison - rate * end) <= 0.5 + 1e-6
