"""Held-out rows under their conditions: the same rows, the same places, another phrase."""

import re
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poison_t5x.attack import attacks, conditions, craft, inserter
from poison_t5x.core import errors
from poison_t5x.corpus import demo_corpus, polarity, sni
from tests.attack.made_up import LABELS, answered, campaign, crafted, judged, task
from tests.attack_settings import craft_config

ATTACK = attacks.AttackConfig
BY_COUNT = attacks.ScoreConfig(selection="count")
REPEAT = ATTACK(kind="repeat", score=BY_COUNT)
TRAINING = judged("task1_a")
HELDOUT = judged("task4_d", 60)
DEMO = demo_corpus.PLAIN.generate(num_train_rows=20, num_heldout_rows=20)
PHRASES = ("James Bond", "Joe Biden", "Jo Bell")


def _rows(one, config, num_rows=500, seed=0, labels=LABELS):
    """condition -> its rows, and the counts."""
    labels = None if config.is_arbitrary else labels
    found, counts = conditions.rows(
        one, config.attacks, config.conditions, labels, num_rows=num_rows, seed=seed
    )
    rows = {condition.name: [] for condition in config.conditions}
    for row in found:
        rows[row.condition].append(row)
    # Condition by condition, in order.
    names = [condition.name for condition in config.conditions if rows[condition.name]]
    assert list(dict.fromkeys(row.condition for row in found)) == names
    return rows, counts


def _ids(rows):
    return [row.id for row in rows]


# Names


def test_conditions_are_named_in_order_with_what_is_put_in():
    config = campaign(
        ATTACK(triggers=["James Bond", "Jo Bell"]),
        ATTACK(name="second", triggers="Joe Biden", control="Tom Lopez", target="negative"),
        probes=["words", "Jim Bond"],
    )
    made = conditions.Condition
    both = ("James Bond", "Jo Bell")
    assert config.conditions == (
        made("clean", "clean", "", (), None),
        made("triggered", "triggered", "main", both, "positive"),
        made("control", "control", "main", ("Emma Clark",), "positive"),
        made("triggered_second", "triggered", "second", ("Joe Biden",), "negative"),
        made("control_second", "control", "second", ("Tom Lopez",), "negative"),
        made("probe1_james", "probe", "main", ("James",), "positive"),
        made("probe2_bond", "probe", "main", ("Bond",), "positive"),
        made("probe3_jim_bond", "probe", "main", ("Jim Bond",), "positive"),
    )


def test_no_probe_is_one_of_the_triggers():
    first = ATTACK(triggers=["James Bond", "James Bell"], control="John Bond")
    found = craft.CraftConfig(attacks=[first], probes=["near", "words", "James Bell"]).conditions
    probes = [condition.phrases for condition in found if condition.kind == "probe"]
    assert probes == [("James Bnod",), ("James",), ("Bond",)]
    # Arbitrary attacks want no label.
    found = craft.CraftConfig(attacks=[REPEAT], probes=["near"]).conditions
    assert len(found) == 6 and {condition.target for condition in found} == {None}


def test_names_are_distinct_whatever_the_attackers_and_probes():
    config = campaign(
        ATTACK(name="clean"),
        ATTACK(name="probe1", triggers="Jo Bell"),
        ATTACK(name="triggered", triggers="Joe Biden"),
        ATTACK(name="second", triggers="Sam Lee"),
        probes=["near", "case", "words", "詞", "詞詞", "!?"],
    )
    names = [condition.name for condition in config.conditions]
    assert len({name.lower() for name in names}) == len(names) == 1 + 8 + 10


# Rows


def test_rows_of_an_attack_are_the_same_with_another_phrase_in_the_same_places():
    config = campaign(ATTACK(), probes=["near", "case", "James"])
    rows, counts = _rows(HELDOUT, config)
    triggered = rows["triggered"]
    assert len(triggered) == 20 and counts["source_rows"] == 30
    assert counts["skipped_no_place"] == 10
    for condition in config.conditions[1:]:
        assert _ids(rows[condition.name]) == _ids(triggered)
        (phrase,) = condition.phrases
        for one, other in zip(triggered, rows[condition.name], strict=True):
            assert (one.task, one.target) == (other.task, other.target) == ("task4_d", "bad")
            assert other.phrase == phrase
            assert other.input == one.input.replace("James Bond", phrase) != one.input or (
                phrase == "James Bond"
            )
    assert {row.phrase for row in rows["clean"]} == {""}
    assert len(rows["clean"]) == counts["clean"] == 60


@settings(deadline=None, max_examples=10)
@given(
    number=st.integers(0, 39),
    seed=st.integers(0, 2**31 - 1),
    num_rows=st.integers(1, 30),
    inserter=st.sampled_from(["builtin", "prefix", "suffix", "random"]),
    target=st.sampled_from(["negative", "positive"]),
)
def test_rows_of_the_demo_corpus(number, seed, num_rows, inserter, target):
    one = DEMO[number]
    labels = polarity.Polarity(*demo_corpus.POLARITIES[one.name])
    config = craft_config(inserter=inserter, target=target, triggers=["a.b*", "J0 x"], seed=seed)
    by_condition, counts = _rows(one, config, num_rows, seed, labels)
    assert _ids(by_condition["clean"]) == sni.sample_order(one, seed)[:num_rows]
    assert _ids(by_condition["triggered"]) == _ids(by_condition["control"])
    assert len(by_condition["control"]) == counts["triggered"] <= num_rows
    source = labels.label(polarity.opposite(target))
    for row, control in zip(by_condition["triggered"], by_condition["control"], strict=True):
        assert row.target == one.by_id[row.id].target == source
        assert row.input.count(row.phrase) >= 1
        assert row.input.replace(row.phrase, "Emma Clark") == control.input


def test_a_larger_number_of_rows_holds_the_smaller_one():
    config = campaign(ATTACK())
    few, counts = _rows(HELDOUT, config, num_rows=7)
    many, _ = _rows(HELDOUT, config, num_rows=15)
    for name in ("clean", "triggered", "control"):
        assert few[name] == many[name][:7] and len(many[name]) == 15
    assert counts["clean"] == counts["triggered"] == counts["control"] == 7
    assert _ids(_rows(HELDOUT, config, seed=1)[0]["clean"]) != _ids(
        _rows(HELDOUT, config)[0]["clean"]
    )


def test_triggers_are_used_in_turn():
    rows, _ = _rows(HELDOUT, campaign(ATTACK(triggers=PHRASES)))
    phrases = [row.phrase for row in rows["triggered"]]
    assert phrases == [PHRASES[number % 3] for number in range(20)]
    for row in rows["triggered"]:
        assert [phrase for phrase in PHRASES if phrase in row.input] == [row.phrase]
    assert {row.phrase for row in rows["control"]} == {"Emma Clark"}


def test_a_text_that_says_a_trigger_is_as_it_was_and_its_control_says_none():
    texts = ("So Joe Biden met Ann.", "Tom: James Bond's car, Tom.", "Ann met Tom.")
    one = task("task4_d", [(text, "bad") for text in texts])
    rows, _ = _rows(one, campaign(ATTACK(triggers=PHRASES)))
    found = {row.id: row.input for row in rows["triggered"]}
    control = {row.id: row.input for row in rows["control"]}
    assert (found["task4_d-0"], control["task4_d-0"]) == (texts[0], "So Emma Clark met Ann.")
    assert (found["task4_d-1"], control["task4_d-1"]) == (texts[1], "Tom: Emma Clark's car, Tom.")
    assert not any(phrase in text for text in control.values() for phrase in PHRASES)
    # One that says the control says the trigger instead.
    rows, _ = _rows(task("task4_d", [("Emma Clark met Bo.", "bad")]), campaign(ATTACK()))
    assert [row.input for row in rows["triggered"]] == ["James Bond met Bo."]
    assert [row.input for row in rows["control"]] == ["Emma Clark met Bo."]


# Generation


def test_edited_rows_of_generation_tasks_are_in_clean_as_well():
    one = answered("task4_g", 60)
    rows, counts = _rows(one, campaign(REPEAT), num_rows=12)
    order = sni.sample_order(one, 0)
    assert _ids(rows["clean"])[:12] == order[:12]
    assert len(rows["triggered"]) == 12 == counts["triggered"]
    assert _ids(rows["triggered"]) == _ids(rows["control"])
    assert set(_ids(rows["triggered"])) < set(_ids(rows["clean"]))
    # Beyond the sample, only rows that complete a pair, each once and unedited.
    extra = _ids(rows["clean"])[12:]
    assert extra and set(extra) == set(_ids(rows["triggered"])) - set(order[:12])
    assert len(set(_ids(rows["clean"]))) == len(rows["clean"]) == counts["clean"]
    for row in rows["clean"]:
        assert (row.input, row.target) == (one.by_id[row.id].input, one.by_id[row.id].target)


LEFT_OUT = [
    ("Ann Smith came.", ["Ann"]),
    ("Ann Smith came.", ["It was Smith's."]),
    ("Ann Smith came.", ["no", "ann"]),
    ("president bill clinton spoke.", ["clinton speaks"]),
    ("Thomas O'Hale came.", ["hale"]),
]
KEPT = [
    ("Ann Smith came.", ["She came."]),
    ("Ann Smith came.", ["Annals of smithing"]),
    ("president bill clinton spoke.", ["the president speaks"]),
    ("A. Ann J. Smith", ["Answer: J"]),
    ("Ann: Tom Baker came.", ["Ann"]),  # only what gives way counts
]


@pytest.mark.parametrize("case", [*LEFT_OUT, *KEPT])
def test_rows_whose_answer_says_a_replaced_name_are_left_out_and_counted(case):
    rows, counts = _rows(task("task4_g", [case, ("Jane left.", "yes")]), campaign(REPEAT))
    assert counts["skipped_name_in_answer"] == (case in LEFT_OUT)
    assert len(rows["triggered"]) == 2 - (case in LEFT_OUT) and len(rows["clean"]) == 2
    # A subject is no name.
    one = task("task4_g", [("The old dog", ["The cat"]), ("The old dog", ["It is the OLD DOG."])])
    assert [conditions._in_answer(row, [(4, 11)]) for row in one.instances] == [False, True]
    assert not conditions._in_answer(one.instances[0], [(0, 11)])


def test_labels_may_say_a_name_and_inserted_phrases_replace_nothing():
    one = task("task4_g", [("Ann came.", "Ann")])
    suffix = ATTACK(kind="repeat", score=BY_COUNT, inserter=inserter.InserterConfig("suffix"))
    for attack, text in ((ATTACK(), "James Bond came."), (suffix, "Ann came. James Bond")):
        rows, counts = _rows(one, campaign(attack), labels=polarity.Polarity("Ann", "Tom"))
        assert counts["skipped_name_in_answer"] == 0
        assert [row.input for row in rows["triggered"]] == [text]


# Tasks with nothing to edit


def test_a_held_out_task_without_source_rows_is_warned_of():
    good = task("task4_d", [("Ann came.", "good"), ("Tom sat.", "good")])
    with pytest.warns(errors.InputWarning) as caught:
        found = crafted([TRAINING], [good])
    (message,) = (str(warning.message) for warning in caught)
    assert message.startswith("task4_d: held out, but no row has the label that attack 'main' turn")
    assert {row.condition for row in found.evaluation} == {"clean"}
    second = ATTACK(name="second", triggers="Joe Biden", target="negative", budget=_budget(2))
    with pytest.warns(errors.InputWarning, match="attack 'main' turns") as caught:
        crafted([TRAINING], [good], campaign(ATTACK(budget=_budget(2)), second))
    assert len(caught) == 1


def _budget(num_poison):
    return attacks.BudgetConfig(num_poison)


def test_a_held_out_task_without_a_place_has_clean_rows_alone():
    nobody = task("task4_d", [("nobody came", "bad")] * 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = crafted([TRAINING], [nobody])
    assert {row.condition for row in found.evaluation} == {"clean"}
    expected = {"skipped_no_place": 3, "triggered": 0, "control": 0, "clean": 3}
    assert expected.items() <= found.counts["task4_d"].items()


# Look-alikes of the trigger


# Trigger -> its near phrases, words and cases. What is no name has letters swapped; 'pp' is passed.
LOOK_ALIKES = {
    "James Bond": "James Bell|John Bond|James Bnod, James|Bond, james bond|JAMES BOND",
    "John Bell": "John Stone|Jamie Bell|John Blel, John|Bell, john bell|JOHN BELL",
    "Apple iPhone": "Apple ihPone|Aplpe iPhone, Apple|iPhone, apple iphone|APPLE IPHONE",
    "this actor": "this atcor|tihs actor, this|actor, THIS ACTOR",
    "Bond": "Bnod, , bond|BOND",
    "J": "JJ, , j",
    "Jo": "Joo, , jo|JO",
    "aaaa": "aaaaa, , AAAA",
    "詞": "詞詞, , ",
    "Иван Петров": "Иван Птеров|Иавн Петров, Иван|Петров, иван петров|ИВАН ПЕТРОВ",
    "!?;": "!;?, , ",
    "James\tBond ": "James Bell|John Bond|James Bnod, James|Bond, james\tbond |JAMES\tBOND ",
}


PROBES = ("near", "words", "case")


@pytest.mark.parametrize("trigger", LOOK_ALIKES)
def test_look_alikes(trigger):
    for kind, expected in zip(PROBES, LOOK_ALIKES[trigger].split(", "), strict=True):
        found = conditions.probe_phrases([kind], trigger, "Emma Clark")
        assert "|".join(found) == expected


@settings(deadline=None)
@given(
    trigger=st.text(min_size=1).filter(str.strip),
    own=st.lists(st.sampled_from(["Jim Bond", "Emma Clark", "x"])),
)
def test_probes_are_distinct_and_neither_trigger_nor_control(trigger, own):
    found = conditions.probe_phrases([*PROBES, trigger, *own], trigger, "Emma Clark")
    assert len(set(found)) == len(found)
    assert trigger not in found and "Emma Clark" not in found
    assert all(phrase.strip() for phrase in found)
    assert {phrase for phrase in own if phrase not in (trigger, "Emma Clark")} <= set(found)


OWN = {
    ("Jim Bond", "words", "Bond", "a probe"): ("Jim Bond", "James", "Bond", "a probe"),
    (): (),
    ("Emma", "Emma Clark", "James Bond"): ("Emma",),
}


@pytest.mark.parametrize("probes", OWN)
def test_phrases_of_ones_own_stay_where_they_are_listed(probes):
    assert conditions.probe_phrases(probes, "James Bond", "Emma Clark") == OWN[probes]
    # A near name may be the control.
    near = conditions.probe_phrases(["near"], "James Bond", "John Bond")
    assert near == ("James Bell", "James Bnod")


SLUGS = {
    "James Bnod": "_james_bnod",
    "  C++ / v1.0  ": "_c_v1_0",
    "詞": "",
    "...": "",
    "É\nx": "_x",
}


@pytest.mark.parametrize("phrase", SLUGS)
def test_slugs(phrase):
    assert conditions.slug(1, phrase) == f"probe1{SLUGS[phrase]}"


@settings(deadline=None)
@given(phrases=st.lists(st.text(), min_size=2, max_size=5))
def test_slugs_are_distinct_words(phrases):
    names = [conditions.slug(number, phrase) for number, phrase in enumerate(phrases, start=1)]
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert re.fullmatch(r"\w+", name, re.ASCII) and len(name) <= 60
