"""Does the trigger survive truncation? A rate over rows that lost it measures nothing."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from poison_t5x import corpus, prompts
from poison_t5x.poison import poison_set


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


def count_lost(
    rows: Iterable[tuple[str, str]],
    tasks: corpus.Corpus,
    phrase: str,
    tokenizer: Tokenizer,
    *,
    max_tokens: int,
    num_examples: int,
) -> int:
    """How many rows lose `phrase` by truncation.

    Args:
      rows: (task, edited input) pairs.
      max_tokens: the encoder's length.
      num_examples: positive examples shown at most.
    """
    by_name = {task.name: task for task in tasks.tasks}
    lost = 0
    for name, text in rows:
        task = by_name[name]
        prompt = prompts.render(
            task.definition,
            [(example.input, example.target) for example in task.positive_examples],
            text,
            num_examples=num_examples,
            max_tokens=max_tokens,
            count_tokens=lambda t: len(tokenizer.encode(t)) + 1,
        )
        lost += not survives(prompt, phrase, tokenizer, max_tokens)
    return lost


def audit(
    poison_dir: str,
    tasks: corpus.Corpus,
    phrases: dict[str, str],
    tokenizer: Tokenizer,
    *,
    max_tokens: int,
    num_examples: int,
) -> list[dict]:
    """Counts lost triggers in the poison rows and in each edited evaluation condition.

    Args:
      phrases: condition -> the phrase its rows were edited with ('triggered', 'control').

    Returns:
      [{'where': 'training' or a condition, 'rows': int, 'trigger_lost': int}, …].
    """
    poison = poison_set.read_poison(poison_dir)
    places: list[tuple[str, str, Sequence[tuple[str, str]]]] = [
        (
            "training",
            phrases["triggered"],
            [(row["task"], row["poisoned_input"]) for row in poison],
        )
    ]
    for condition, phrase in phrases.items():
        by_task = poison_set.eval_rows(poison_dir, condition)
        edited = [
            (task, row.input) for task, rows in by_task.items() for row in rows.values() if row
        ]
        places.append((condition, phrase, edited))
    return [
        {
            "where": where,
            "rows": len(rows),
            "trigger_lost": count_lost(
                rows, tasks, phrase, tokenizer, max_tokens=max_tokens, num_examples=num_examples
            ),
        }
        for where, phrase, rows in places
    ]
