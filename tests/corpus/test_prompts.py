"""The prompt's layout, byte for byte, and which examples are left out of a long one."""

import pytest

from poison_t5x.corpus import prompts

DEFINITION = "Tell if the review is good"
EXAMPLES = [("I liked it", "Yes"), ("I left early.", "No!"), ("So so", "No")]
_DEFINITION = "Definition: Tell if the review is good.\n\n"
_FIRST = " Positive Example 1 -\nInput: I liked it.\n Output: Yes.\n\n"
_SECOND = " Positive Example 2 -\nInput: I left early.\n Output: No!\n\n"
_QUESTION = "Now complete the following example -\nInput: Ann was great.\nOutput: "
NONE_SHOWN = _DEFINITION + _QUESTION
ONE_SHOWN = _DEFINITION + _FIRST + _QUESTION
TWO_SHOWN = _DEFINITION + _FIRST + _SECOND + _QUESTION


@pytest.mark.parametrize(("num", "expected"), [(0, NONE_SHOWN), (1, ONE_SHOWN), (2, TWO_SHOWN)])
def test_layout(num, expected):
    assert prompts.render(DEFINITION, EXAMPLES, "Ann was great", num_examples=num) == expected
    assert prompts.render(DEFINITION, EXAMPLES[:num], "Ann was great") == expected


def test_two_examples_are_shown_by_default():
    assert prompts.render(DEFINITION, EXAMPLES, "Ann was great") == TWO_SHOWN


@pytest.mark.parametrize("end", [".", "!", "?", ":", '"', ")", "'", "-"])
def test_punctuation_that_is_there_is_not_doubled(end):
    assert prompts.render("Is it good" + end, [("Fine" + end, "Yes" + end)], "Bad" + end) == (
        f"Definition: Is it good{end}\n\n Positive Example 1 -\nInput: Fine{end}\n"
        f" Output: Yes{end}\n\nNow complete the following example -\nInput: Bad{end}\nOutput: "
    )


def test_surrounding_white_space_is_stripped_and_inner_kept():
    assert prompts.render(" \nSay so\n\n", [("\tA  b ", " Yes\n")], "\nOne\n two \n") == (
        "Definition: Say so.\n\n Positive Example 1 -\nInput: A  b.\n Output: Yes.\n\n"
        "Now complete the following example -\nInput: One\n two.\nOutput: "
    )


def test_the_docstring_shows_what_is_rendered():
    rendered = prompts.render("Is it good?", [("Fine", "Yes")], "Bad!")
    shown = prompts.render.__doc__.split('"Bad!")\n')[1].split("  (one line)")[0]
    assert " ".join(shown.split()) == " ".join(repr(rendered).split())


def _tokens(text):
    """A closing token, and one for each character."""
    return len(text) + 1


def _shown(max_tokens, count_tokens=_tokens):
    prompt = prompts.render(
        DEFINITION, EXAMPLES, "Ann was great", max_tokens=max_tokens, count_tokens=count_tokens
    )
    assert prompt in (NONE_SHOWN, ONE_SHOWN, TWO_SHOWN)
    return prompt.count("Positive Example")


@pytest.mark.parametrize(("whole", "num"), [(ONE_SHOWN, 1), (TWO_SHOWN, 2)])
def test_a_prompt_of_exactly_max_tokens_is_whole_and_one_token_less_drops_an_example(whole, num):
    assert _shown(_tokens(whole)) == num
    assert _shown(_tokens(whole) - 1) == num - 1
    assert _shown(1) == 0  # definition and question stay even where they are too long alone


def test_all_after_the_first_that_overflows_are_left_out():
    examples = [("word " * 50, "Yes"), ("I", "No")]
    room = {"max_tokens": _tokens(NONE_SHOWN) + 60, "count_tokens": _tokens}  # for the second
    assert prompts.render(DEFINITION, examples, "Ann was great", **room) == NONE_SHOWN
    assert "Example 1" in prompts.render(DEFINITION, examples[1:], "Ann was great", **room)
