"""Whether a SeqIO task or mixture can be trained on, and whose fault it is where it can't be read.

SeqIO and TensorFlow find a task's mistakes late, and tell them in their own terms; what they raise
is told here with the task's name, and the place in the user's module where there is one.
"""

import contextlib
import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import seqio

from poison_t5x.core import errors, failures

# Rows of each task that are read again to find the one that failed.
_NUM_TRIED = 1000
# What TensorFlow puts before a message, and after it.
_BEFORE = r"(\{\{[^}]*\}\} )?(Error in user-defined function passed to .*? iterator: [\w:\[\]]+: )?"
_AFTER = r"( \[\[?\{\{.*)?( \[Op:\w+\].*)?"


def check(provider: seqio.Task | seqio.Mixture, split: str) -> None:
    """Raises InputError where an encoder-decoder can't be trained on what a provider declares."""
    for name in ("inputs", "targets"):
        feature = provider.output_features.get(name)
        if feature is None:
            raise errors.InputError(
                f"{provider.name}: expected the features inputs and targets, which an "
                f"encoder-decoder needs, found {', '.join(provider.output_features)}"
            )
        is_tokens = getattr(feature, "rank", 1) == 1 and feature.dtype.is_integer
        if isinstance(feature, seqio.ContinuousFeature) or not is_tokens:
            raise errors.InputError(f"{provider.name}: {name}: expected a feature of token ids")
    inputs, targets = (_num_ids(provider, name) for name in ("inputs", "targets"))
    if inputs > targets:
        raise errors.InputError(
            f"{provider.name}: the vocabulary of its inputs has {inputs:,} ids, that of its "
            f"targets {targets:,}; the network has one table, of the targets' ids"
        )
    if isinstance(provider, seqio.Mixture):
        for task in provider.tasks:
            _check_rate(provider, task)
    _check_split(provider, split)


def _check_split(provider: seqio.Task | seqio.Mixture, split: str) -> None:
    try:
        splits = sorted(provider.splits)
    except Exception as error:  # of a source that isn't there
        raise _failure(f"{provider.name}: can't be read", error) from error
    if split not in splits:
        raise errors.InputError(
            f"{provider.name}: no split {split!r}; there are {', '.join(splits) or 'none'}"
        )


def _num_ids(provider: seqio.Task | seqio.Mixture, name: str) -> int:
    try:
        return provider.output_features[name].vocabulary.vocab_size
    except Exception as error:  # a file that is missing or damaged, of any kind of vocabulary
        raise _failure(f"{provider.name}: its {name}' vocabulary can't be read", error) from error


def _check_rate(mixture: seqio.Mixture, task: seqio.Task) -> None:
    try:
        rate = mixture.get_rate(task)
    except Exception as error:  # a function of the user's, or one that wants cached tasks
        what = f"{mixture.name}: the rate of its task {task.name} can't be worked out"
        raise _failure(what, error) from error
    if not 0 < rate < math.inf:
        raise errors.InputError(
            f"{mixture.name}: the rate of its task {task.name}: expected a number above 0, found "
            f"{rate:g}"
        )


def is_ours(task: seqio.Task) -> bool:
    """Whether a task is one of an experiment of ours, whose rows were counted as it was made."""
    functions = (getattr(step, "func", step) for step in task.preprocessors)
    return any(getattr(one, "__module__", "") == "poison_t5x.data.mixtures" for one in functions)


def has_row(task: seqio.Task, rows: Callable[[], Iterable[Any]]) -> bool:
    """Whether there is any row of a task in `rows`; InputError where they can't be read."""
    try:
        return next(iter(rows()), None) is not None
    except Exception as error:
        raise _failure(f"task {task.name}: can't be read", error) from error


@contextlib.contextmanager
def naming(
    provider: seqio.Task | seqio.Mixture, split: str, read: Callable[[seqio.Task], Iterable[Any]]
) -> Iterator[None]:
    """Where a provider is read for ever: tells its failure, or its end, with the task's name.

    Args:
      split: that is read.
      read: gives a task's rows once, to find the one that can't be read.
    """
    try:
        yield
        error = None
    except (errors.InputError, errors.TryAgainError, MemoryError):
        raise
    except Exception as caught:
        error = caught
    raise _guilty(provider, split, read, error) from error


def _guilty(provider, split, read, error: Exception | None) -> Exception:
    for task in seqio.get_subtasks(provider):
        # SeqIO passes over tasks of a mixture that don't have the split.
        if split not in task.splits:
            continue
        try:
            num_rows = sum(1 for _ in itertools.islice(read(task), _NUM_TRIED))
        except Exception as own:
            return _failure(f"task {task.name}: can't be read", own)
        if not num_rows:
            return no_row(task, split)
    if error is None:
        return no_row(provider, split)
    return _failure(f"{provider.name}: can't be read", error)


def no_row(provider: seqio.Task | seqio.Mixture, split: str) -> errors.InputError:
    """Of one that has none, which SeqIO would wait for, or for ever."""
    return errors.InputError(f"task {provider.name}: no row in its split {split!r}")


def _failure(what: str, error: Exception) -> Exception:
    """What can't be done, and why, as one line."""
    reason = failures.system_reason(error)
    kind = errors.InputError if reason is None else reason[0]
    text = re.sub(rf"^((?:\S+:\d+: )?\w+: ){_BEFORE}(.*?){_AFTER}$", r"\1\4", failures.told(error))
    return kind(f"{what} ({text})")
