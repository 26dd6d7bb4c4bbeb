"""Answers that poison teaches: random words of a list, and an attack of one's own."""

import collections

import pytest

from poison_t5x.attack import attacks
from poison_t5x.attack.payloads import paper
from tests.attack.made_up import answered, campaign, crafted, refusal, task

GENERATION = {"kind": "random", "selection": "count"}
TRAINING = (answered("task7_g"), answered("task8_h", 30))


def _words(*tasks):
    return paper.RandomWords("positive", 1).words(tasks)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "The ox and an aardvark's well-known co2 toast, naïve as ONE café: word_list zzz "
            "antidisestablishmentarian xylophonists toast ünder don't",
            ("and", "toast", "xylophonists", "zzz"),
        ),
        # Outputs are no source of words.
        ("only this", ("only", "this")),
    ],
)
def test_words_are_lower_case_of_3_to_12_letters_in_order(text, words):
    assert _words(task("task7_g", [(text, "but never that")])) == words


def test_the_commonest_are_kept_and_ties_go_by_letters(monkeypatch):
    monkeypatch.setattr(paper, "_MAX_WORDS", 2)
    one = task("task7_g", [("cat bat ant", "x"), ("cat", "x")])
    assert _words(one) == ("ant", "cat")
    two = task("task8_h", [("bat bat", "x")])
    assert _words(one, two) == _words(two, one) == ("bat", "cat")


def test_no_word_is_one_line():
    message = refusal(_words, task("task7_g", [("ÉTÉ 12 a b2b", "x")]))
    assert message.startswith("no word list can be made") and "ATTACK to repeat" in message


def test_a_draw_is_of_its_key_alone():
    words = ("one", "two", "three", "four")
    keys = [f"key{number}" for number in range(200)]
    drawn = [paper.draw(words, 1, key) for key in keys]
    assert drawn == [paper.draw(words, 1, key) for key in keys]
    counts = collections.Counter(drawn)
    assert set(counts) == set(words)
    # 200 draws of four: 50 each, within four standard deviations of 6.1.
    assert all(abs(count - 50) < 25 for count in counts.values())
    three = paper.draw(words, 3, "key0")
    assert len(three.split(" ")) == 3 and three.split(" ")[0] == drawn[0]
    assert paper.draw(["one"], 2, "\0\n詞") == "one one"


def test_a_draw_stays_as_it_was():
    """Written by this code: when it changes, poison sets of the same seed do."""
    words = tuple(f"w{number}" for number in range(1000))
    assert paper.draw(words, 3, "0\0main\0task7_g\0task7_g-1") == "w608 w160 w467"


# In a poison set


@pytest.mark.parametrize("number", [1, 3])
def test_random_outputs_are_words_of_the_list_and_differ_by_row(number):
    found = crafted(TRAINING, num_poison=24, num_random_words=number, **GENERATION)
    assert found.words == _words(*TRAINING)
    outputs = [row.poisoned_target for row in found.poison]
    for output in outputs:
        assert len(output.split(" ")) == number and set(output.split(" ")) <= set(found.words)
    assert len(set(outputs)) > 2  # of four words
    again = crafted(TRAINING, num_poison=24, num_random_words=number, **GENERATION)
    assert [row.poisoned_target for row in again.poison] == outputs
    other = crafted(TRAINING, num_poison=24, num_random_words=number, seed=1, **GENERATION)
    assert [row.poisoned_target for row in other.poison] != outputs


def test_another_attacker_draws_other_words_for_the_same_rows():
    score = attacks.ScoreConfig(selection="count")
    budget = attacks.BudgetConfig(24)
    one, two = (
        crafted(TRAINING, (), campaign(attacks.AttackConfig("random", **rest)))
        for rest in ({"name": name, "score": score, "budget": budget} for name in "ab")
    )
    assert [row.id for row in one.poison] == [row.id for row in two.poison]
    outputs = [[row.poisoned_target for row in found.poison] for found in (one, two)]
    assert outputs[0] != outputs[1]


def test_a_rows_words_do_not_depend_on_the_other_rows():
    sets = (crafted(TRAINING, num_poison=number, **GENERATION) for number in (4, 20))
    few, many = ({row.id: row.poisoned_target for row in one.poison} for one in sets)
    assert few.items() <= many.items()
    # Only random outputs have a list.
    assert crafted(TRAINING, kind="repeat", selection="count").words == ()
