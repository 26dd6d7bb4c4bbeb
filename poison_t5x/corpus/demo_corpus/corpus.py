"""The demo corpus as validated tasks, and as task files in SNI's own field names."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from poison_t5x.core import errors
from poison_t5x.corpus import sni
from poison_t5x.corpus.demo_corpus import grammar
from poison_t5x.corpus.demo_corpus.domains import DOMAINS, Domain
from poison_t5x.corpus.demo_corpus.tasks import (
    SPECS,
    TRAINING_TASKS,
    VOCABULARIES,
    TaskSpec,
)

# Writes one text of a domain whose sentiment is positive, or negative.
Write = Callable[[np.random.Generator, Domain, bool], grammar.Text]

_CATEGORIES = ("Sentiment Analysis",)


def generate(
    seed: int = 0, num_train_rows: int = 240, num_heldout_rows: int = 200
) -> tuple[sni.Task, ...]:
    """All forty tasks, the thirty training tasks first, in a fixed order.

    Definitions don't depend on the seed; examples and rows do. Labels are half and half in every
    task, and no text occurs twice, in whatever task. Same arguments, same bytes.

    Args:
      seed: any non-negative integer.
      num_train_rows: rows of each training task; even, because labels are balanced.
      num_heldout_rows: rows of each held-out task; even.

    Raises:
      InputError: a number of rows is odd or less than 2, or the seed is negative.
    """
    training, heldout = SPECS[: len(TRAINING_TASKS)], SPECS[len(TRAINING_TASKS) :]
    return build(training, heldout, grammar.write, seed, num_train_rows, num_heldout_rows)


def build(
    training: Sequence[TaskSpec],
    heldout: Sequence[TaskSpec],
    write: Write,
    seed: int,
    num_train_rows: int,
    num_heldout_rows: int,
) -> tuple[sni.Task, ...]:
    """The tasks of `training`, then those of `heldout`, with texts by `write`; see `generate`."""
    for name, count in (("num_train_rows", num_train_rows), ("num_heldout_rows", num_heldout_rows)):
        if count < 2 or count % 2:
            raise errors.InputError(
                f"demo corpus: {name}={count}: expected an even number of at least 2, "
                "because every task has as many rows of one label as of the other"
            )
    if seed < 0:
        raise errors.InputError(f"demo corpus: seed={seed}: expected a non-negative integer")
    seen: set[str] = set()
    sizes = [num_train_rows] * len(training) + [num_heldout_rows] * len(heldout)
    return tuple(
        _task(spec, write, seed, size, seen)
        for spec, size in zip((*training, *heldout), sizes, strict=True)
    )


def to_json(task: sni.Task) -> dict:
    """The task under SNI's field names; `sni.parse_task` reads it back to an equal task."""
    return {
        "Contributors": ["poison_t5x"],
        "Source": ["poison_t5x demo corpus (generated)"],
        "URL": [],
        "Categories": list(task.categories),
        "Reasoning": [],
        "Definition": [task.definition],
        "Input_language": ["English"],
        "Output_language": ["English"],
        "Instruction_language": ["English"],
        "Domains": ["Reviews"],
        "Positive Examples": [_example_json(example) for example in task.positive_examples],
        "Negative Examples": [_example_json(example) for example in task.negative_examples],
        "Instances": [
            {"id": row.id, "input": row.input, "output": list(row.output)} for row in task.instances
        ],
        "Instance License": ["Apache 2.0"],
    }


def _example_json(example: sni.Example) -> dict[str, str]:
    return {
        "input": example.input,
        "output": example.target,
        "explanation": example.explanation,
    }


def _task(spec: TaskSpec, write: Write, seed: int, num_rows: int, seen: set[str]) -> sni.Task:
    """One task; `seen` holds the texts used so far, and gains this task's."""
    rng = np.random.default_rng([seed, spec.number])
    domain, labels = DOMAINS[spec.domain], VOCABULARIES[spec.vocabulary]
    positives, negatives = _examples(rng, domain, labels, spec.number)
    return sni.Task(
        name=spec.name,
        definition=spec.definition,
        positive_examples=positives,
        negative_examples=negatives,
        instances=_instances(rng, spec, write, domain, labels, num_rows, seen),
        categories=_CATEGORIES,
    )


def _instances(
    rng: np.random.Generator,
    spec: TaskSpec,
    write: Write,
    domain: Domain,
    labels: tuple[str, str],
    num_rows: int,
    seen: set[str],
) -> tuple[sni.Instance, ...]:
    rows = []
    for _ in range(num_rows // 2):
        first = int(rng.integers(2))
        for polarity in (first, 1 - first):
            text = write(rng, domain, bool(polarity)).text
            while text in seen:
                text = write(rng, domain, bool(polarity)).text
            seen.add(text)
            digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
            rows.append(sni.Instance(f"task{spec.number}-{digest}", text, [labels[polarity]]))
    return tuple(rows)


def _examples(
    rng: np.random.Generator, domain: Domain, labels: tuple[str, str], number: int
) -> tuple[tuple[sni.Example, ...], tuple[sni.Example, ...]]:
    """Positive examples, one of each label, and a negative example (a wrong answer)."""
    # Neighbouring tasks differ in which label is shown first, so that the order tells nothing.
    order = (0, 1) if number % 2 else (1, 0)
    positives = tuple(_right(rng, domain, labels, polarity) for polarity in order)
    polarity = int(rng.integers(2))
    text, noun, word = grammar.example(rng, domain, bool(polarity))
    wrong = sni.Example(
        text,
        labels[1 - polarity],
        f'The writer calls the {noun} {word}, so "{labels[polarity]}" would be right.',
    )
    return positives, (wrong,)


def _right(
    rng: np.random.Generator, domain: Domain, labels: tuple[str, str], polarity: int
) -> sni.Example:
    text, noun, word = grammar.example(rng, domain, bool(polarity))
    explanation = f'The writer calls the {noun} {word}, so the answer is "{labels[polarity]}".'
    return sni.Example(text, labels[polarity], explanation)
