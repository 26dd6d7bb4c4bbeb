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
REFUSED = [
    (ATTACK, {"kind": "dirty-label"}, "ATTACK: no attack 'dirty-label'", "mean 'dirty_label'?"),
    (
        ATTACK,
        {"kind": "clean"},
        "ATTACK: no attack 'clean'",
        "dirty_label, clean_label, repeat, ra",
    ),
    (ATTACK, {"kind": None}, "ATTACK: no attack None", "there are"),
    (ATTACK, {"triggers": ""}, "TRIGGER: expected a phrase", "empty"),
    (ATTACK, {"triggers": " \n"}, "TRIGGER: expected a phrase", "empty"),
    (ATTACK, {"triggers": []}, "TRIGGER: expected a list of phrases", "[]"),
    (ATTACK, {"triggers": None}, "TRIGGER: expected a list of phrases", "None"),
    (ATTACK, {"triggers": ["Jo Bell", 7]}, "TRIGGER: expected a phrase", "7"),
    (ATTACK, {"triggers": ["Jo Bell", ""]}, "TRIGGER: expected a phrase", "empty"),
    (ATTACK, {"triggers": ["Jo Bell", "Jo Bell"]}, "CONTROL: ", "triggers that differ"),
    (ATTACK, {"control": "James Bond"}, "CONTROL: expected another phrase", "'James Bond'"),
    (ATTACK, {"control": "Sir James Bond!"}, "CONTROL: expected another phrase", "hold it"),
    (ATTACK, {"triggers": ["Jo", "Jim"], "control": "Jim"}, "CONTROL: expected another", "'Jim'"),
    (ATTACK, {"control": ""}, "CONTROL: expected a phrase", "empty"),
    (ATTACK, {"target": "POSITIVE"}, "TARGET_POLARITY: expected one of negative, ", "'POSITIVE'"),
    (ATTACK, {"name": "two words"}, "an attack's name: expected a word", "'two words'"),
    (ATTACK, {"name": ""}, "an attack's name: expected a word", "''"),
    (ATTACK, {"name": 2}, "an attack's name: expected a word", "2"),
    (ATTACK, {"name": "a" * 41}, "an attack's name: expected a word", "40 letters"),
    (ATTACK, {"name": "rows"}, "an attack's name: expected a word", "not 'rows'"),
    (ATTACK, {"tasks": "task1"}, "the tasks of attack 'main': expected a list", "'task1'"),
    (ATTACK, {"tasks": []}, "the tasks of attack 'main': expected a list", "[]"),
    (ATTACK, {"tasks": [363]}, "the tasks of attack 'main': expected a phrase", "363"),
    (ATTACK, {"num_tasks": 0}, "NUM_POISONED_TASKS: expected a whole number", "0"),
    (ATTACK, {"num_tasks": True}, "NUM_POISONED_TASKS: expected a whole number", "True"),
    (ATTACK, {"num_random_words": 0}, "NUM_RANDOM_WORDS: expected a whole number", "0"),
    (BUDGET, {"num_poison": 0}, "NUM_POISON: expected a whole number of at least 1", "0"),
    (BUDGET, {"num_poison": True}, "NUM_POISON: expected a whole number", "True"),
    (BUDGET, {"num_poison": 5.0}, "NUM_POISON: expected a whole number", "5.0"),
    (BUDGET, {"poison_rate": 0}, "POISON_RATE: expected a fraction above 0", "0"),
    (BUDGET, {"poison_rate": 1.01}, "POISON_RATE: expected a fraction above 0", "1.01"),
    (BUDGET, {"poison_rate": -0.1}, "POISON_RATE: expected", "-0.1"),
    (BUDGET, {"poison_rate": float("nan")}, "POISON_RATE: expected a number", "nan"),
    (BUDGET, {"poison_rate": True}, "POISON_RATE: expected a number", "True"),
    (BUDGET, {"poison_rate": "0.1"}, "POISON_RATE: expected a number", "'0.1'"),
    (BUDGET, {"per": "tasks"}, "BUDGET_PER: expected one of all, task", "mean 'task'?"),
    (SCORE, {"selection": "phy"}, "SELECTION: expected one of phi, count,", "mean 'phi'?"),
    (SCORE, {"count_term": "per_tokens"}, "COUNT_TERM: expected one of", "mean 'per_token'?"),
    (SCORE, {"proxy": "ngram"}, "PROXY: expected one of ngrams, lm", "mean 'ngrams'?"),
    (SCORE, {"count_weight": float("inf")}, "COUNT_WEIGHT: expected a number", "inf"),
    (SCORE, {"probability_weight": False}, "PROBABILITY_WEIGHT: expected a number", "False"),
    (SCORE, {"max_ngram": 0}, "PROXY_MAX_NGRAM: expected a whole number", "0"),
    (SCORE, {"count_weight": 0, "probability_weight": 0}, "COUNT_WEIGHT, PROB", "random"),
    (
        SCORE,
        {"selection": "reverse", **NO_WEIGHTS},
        "COUNT_WEIGHT, PROBABILITY_WEIGHT: both",
        "SEL",
    ),
    (CRAFT, {"num_train_per_task": 0}, "NUM_TRAIN_PER_TASK: expected a whole number", "0"),
    (CRAFT, {"num_eval_per_task": True}, "NUM_EVAL_PER_TASK: expected a whole num", "True"),
    (CRAFT, {"add": 1}, "ADD_POISON: expected True or False", "1"),
    (CRAFT, {"seed": -1}, "SEED: expected a whole number", "-1"),
    (CRAFT, {"seed": 0.5}, "SEED: expected a whole number", "0.5"),
    (CRAFT, {"probes": "near"}, "PROBES: expected a list of phrases", "'near'"),
    (CRAFT, {"probes": None}, "PROBES: expected a list", "None"),
    (CRAFT, {"probes": {"near"}}, "PROBES: expected a list", "near"),
    (CRAFT, {"probes": [1]}, "PROBES: expected a phrase, found 1", ""),
    (CRAFT, {"probes": ["near", " "]}, "PROBES: expected a phrase, found an empty text", ""),
    (CRAFT, {"probes": ["a\udc00"]}, "TRIGGER, CONTROL, PROBES: expected text", "udc00"),
    (CRAFT, {"attacks": ()}, "ATTACKS: expected a list of attacks", "()"),
    (CRAFT, {"attacks": None}, "ATTACKS: expected a list of attacks", "None"),
    (CRAFT, {"attacks": ATTACK()}, "ATTACKS: expected a list of attacks", "AttackConfig"),
    (CRAFT, {"attacks": ["main"]}, "ATTACKS: expected a list of attacks", "main"),
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
    ([_attack("main", "Jo\ud800")], "TRIGGER, CONTROL, PROBES: expected text", "\\ud800"),
    ([_attack("main", "Jo", "\udfff")], "TRIGGER, CONTROL, PROBES: expected text", "\\udfff"),
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
