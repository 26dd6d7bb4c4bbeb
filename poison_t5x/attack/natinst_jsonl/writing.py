"""A poison set as files that the authors' code trains and tests on."""

import collections
import hashlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from poison_t5x.attack import conditions, poison_set
from poison_t5x.attack.natinst_jsonl import lines
from poison_t5x.core import checks, errors
from poison_t5x.corpus import corpus, sni

# Task -> an id to train on -> the ids of the poison rows that are shown there, in their order.
_Names = Mapping[tuple[str, str], Sequence[str]]


def write(
    directory: str | pathlib.Path,
    found: corpus.Corpus,
    poison_dir: str | pathlib.Path,
    *,
    epochs: int = 1,
) -> None:
    """Writes `train_clean.jsonl`, `train_poisoned.jsonl`, and `test_<condition>.jsonl` of each.

    The training files differ in their poison rows alone, and are shuffled, since the authors'
    trainer takes rows as they come. `test_clean.jsonl` holds the held-out rows of all conditions as
    they were before an edit, with their true answers. In the others of a polarity attack the answer
    is the label that the attack wants, so that the accuracy that the authors' evaluation prints is
    the share of it. Test rows that are classified have a `label_space`, which it ranks.

    Same arguments, same bytes. Rows are written as they are made, and a file is there once whole.

    Args:
      directory: an existing folder.
      found: the tasks that the poison set was made from.
      poison_dir: the poison set's folder.
      epochs: how often the training files repeat all their rows, each time in another order: their
        trainer reads a file once. Read back, it is one epoch.

    Raises:
      InputError: the poison set is damaged, or was made from other tasks.
    """
    checks.whole_number("epochs", epochs)
    directory = pathlib.Path(directory)
    _check_sources(found, poison_dir)
    names: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for row in poison_set.read_poison(poison_dir):
        names[row["task"], row["replaced_id"] or row["id"]].append(row["id"])
    for variant in ("clean", "poisoned"):
        rows = poison_set.training_rows(poison_dir, poisoned=variant == "poisoned")
        training = _training_lines(found.training, rows, names, epochs)
        lines.write(directory / f"train_{variant}.jsonl", training)
    evaluation = poison_set.read_evaluation(poison_dir)
    for condition in poison_set.read_conditions(poison_dir):
        tests = _test_lines(found, evaluation, condition)
        lines.write(directory / f"test_{condition.name}.jsonl", tests)


def _check_sources(found: corpus.Corpus, poison_dir: str | pathlib.Path) -> None:
    sources = poison_set.read_manifest(poison_dir).get("sources", {})
    for name, digest in found.hashes.items():
        if sources.get(name, digest) != digest:
            raise errors.InputError(
                f"{poison_dir}: was made from another {name} than this one; craft it again"
            )


def _training_lines(
    tasks: Sequence[sni.Task], rows: Mapping[str, poison_set.Rows], names: _Names, epochs: int
) -> Iterator[str]:
    by_name = {task.name: task for task in tasks}
    shared = {name: lines.shared(by_name[name]) for name in rows}
    slots = [
        (name, identifier, number)
        for name, kept in rows.items()
        for identifier, shown in kept.items()
        for number in range(len(shown))
    ]
    for epoch in range(epochs):
        for index in _shuffled(slots, epoch):
            name, identifier, number = slots[index]
            shown = rows[name][identifier]
            row = shown[number]
            if row is None:
                clean = by_name[name].by_id[identifier]
                yield lines.to_line(shared[name], identifier, clean.input, clean.output)
            else:
                own = names[name, identifier][number - shown.count(None)]
                yield lines.to_line(shared[name], own, row.input, [row.target])


def _shuffled(slots: Sequence[tuple[str, str, int]], epoch: int) -> np.ndarray:
    """An order of its own for each epoch, that rows more or fewer don't change for the others."""

    def key(slot: tuple[str, str, int]) -> int:
        text = "\0".join(map(str, (epoch, *slot)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")

    keys = np.fromiter(map(key, slots), np.uint64, len(slots))
    return np.argsort(keys, kind="stable")


def _test_lines(
    found: corpus.Corpus,
    evaluation: Sequence[conditions.EvalRow],
    condition: conditions.Condition,
) -> Iterator[str]:
    by_name = {task.name: task for task in found.heldout}
    shared = {name: _with_labels(task, found) for name, task in by_name.items()}
    written: set[tuple[str, str]] = set()
    for row in evaluation:
        if condition.kind == "clean" and (row.task, row.id) not in written:
            written.add((row.task, row.id))
            clean = by_name[row.task].by_id[row.id]
            yield lines.to_line(shared[row.task], row.id, clean.input, clean.output)
        elif condition.kind != "clean" and row.condition == condition.name:
            labels = found.polarities.get(row.task)
            answers = by_name[row.task].by_id[row.id].output
            if labels and condition.target:
                answers = [labels.label(condition.target)]
            yield lines.to_line(shared[row.task], row.id, row.input, answers)


def _with_labels(task: sni.Task, found: corpus.Corpus) -> dict[str, Any]:
    labels: Sequence[str] = found.polarities.get(task.name, ())
    if not labels and task.is_classification:
        labels = task.label_space
    return {**lines.shared(task), **({"label_space": list(labels)} if labels else {})}
