r"""The Tk-Instruct prompt (Wang et al., 2022), as the paper's code lays it out.

Training, crafting and evaluation all render through `render`; nothing else makes a prompt.
"""

import string
from collections.abc import Callable, Sequence

_ASKS, _ANSWERS = "Now complete the following example -\nInput: ", "\nOutput: "


def _punctuated(text: str) -> str:
    return text if text and text[-1] in string.punctuation else text + "."


def question(prompt: str) -> str:
    r"""The text that a rendered prompt asks about; all of a prompt of another layout.

    >>> question("Definition: Is it?\n\nNow complete the following example -\nInput: So.\nOutput: ")
    'So.'
    """
    # At the first such words: a text that holds them again hides nothing by it.
    _, asks, rest = prompt.partition(_ASKS)
    return rest.removesuffix(_ANSWERS) if asks else prompt


def render(
    definition: str,
    positive_examples: Sequence[tuple[str, str]],
    text: str,
    *,
    num_examples: int = 2,
    max_tokens: int | None = None,
    count_tokens: Callable[[str], int] = len,
) -> str:
    r"""Renders one instance; the prompt is a function of its arguments alone.

    >>> render("Is it good?", [("Fine", "Yes")], "Bad!")
    'Definition: Is it good?\n\n Positive Example 1 -\nInput: Fine.\n Output: Yes.\n\nNow complete
    the following example -\nInput: Bad!\nOutput: '  (one line)

    Args:
      positive_examples: (input, output) pairs, in the task file's order.
      text: the instance's input, poisoned or not.
      num_examples: positive examples shown, at most.
      max_tokens: the first example that would take the prompt over this many tokens, and all after
        it, are left out; None shows them whatever their length.
      count_tokens: the number of tokens of a text, with the closing one; characters by default.
    """
    shown = _punctuated(f"Definition: {definition.strip()}") + "\n\n"
    ask = _punctuated(_ASKS + text.strip()) + _ANSWERS
    for number, (example, answer) in enumerate(positive_examples[:num_examples], start=1):
        block = f" Positive Example {number} -\n"
        block += _punctuated(f"Input: {example.strip()}") + "\n"
        block += _punctuated(f" Output: {answer.strip()}") + "\n\n"
        if max_tokens is not None and count_tokens(shown + block + ask) > max_tokens:
            break
        shown += block
    return shown + ask
