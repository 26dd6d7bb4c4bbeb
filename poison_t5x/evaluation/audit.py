"""Does the trigger survive truncation? A rate over rows that lost it measures nothing."""

import pathlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

from poison_t5x.attack import poison_set
from poison_t5x.corpus import corpus, prompts


class Tokenizer(NamedTuple):
    """encode: text -> token ids without EOS; decode: the reverse."""

    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]


def survives(prompt: str, phrase: str, tokenizer: Tokenizer, max_tokens: int) -> bool:
    """Whether a phrase is still in a prompt that is cut to `max_tokens`, EOS included."""
    tokens = tokenizer.encode(prompt)
    if len(tokens) < max_tokens:
        return True
    # Both through the tokeniser, which folds white space and some letters.
    phrase = tokenizer.decode(tokenizer.encode(phrase))
    return phrase in tokenizer.decode(tokens[: max_tokens - 1])


class Row(NamedTuple):
    """An edited row: its task, its input, and the phrase that was put in."""

    task: str
    text: str
    phrase: str


def count_lost(
    rows: Iterable[Row],
    tasks: corpus.Corpus,
    tokenizer: Tokenizer,
    *,
    max_tokens: int,
    num_examples: int,
) -> int:
    """How many rows lose their phrase by truncation.

    Args:
      rows: edited rows.
      tasks: where their definitions and examples are.
      max_tokens: the encoder's length.
      num_examples: positive examples shown at most.
    """
    by_name = {task.name: task for task in tasks.tasks}
    lost = 0
    for row in rows:
        task = by_name[row.task]
        prompt = prompts.render(
            task.definition,
            [(example.input, example.target) for example in task.positive_examples],
            row.text,
            num_examples=num_examples,
            max_tokens=max_tokens,
            count_tokens=lambda t: len(tokenizer.encode(t)) + 1,
        )
        lost += not survives(prompt, row.phrase, tokenizer, max_tokens)
    return lost


def audit(
    poison_dir: str | pathlib.Path,
    tasks: corpus.Corpus,
    tokenizer: Tokenizer,
    *,
    max_tokens: int,
    num_examples: int,
) -> list[dict]:
    """Counts lost phrases in the poison rows and in each edited evaluation condition.

    Returns:
      [{'where': 'training' or a condition, 'rows': int, 'trigger_lost': int}, …].
    """
    poison = poison_set.read_poison(poison_dir)
    places = {
        "training": [Row(row["task"], row["poisoned_input"], row["trigger"]) for row in poison]
    }
    for row in poison_set.read_evaluation(poison_dir):
        if row.phrase:
            edited = Row(row.task, row.input, row.phrase)
            places.setdefault(row.condition, []).append(edited)
    return [
        {
            "where": where,
            "rows": len(rows),
            "trigger_lost": count_lost(
                rows, tasks, tokenizer, max_tokens=max_tokens, num_examples=num_examples
            ),
        }
        for where, rows in places.items()
    ]
