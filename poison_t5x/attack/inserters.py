"""Where a text takes a trigger: one interface for all ways of choosing the places.

>>> next(make(InserterConfig("suffix")).find(["Fine film.\\n"]))
[(10, 10)]
"""

import collections
import dataclasses
import functools
import hashlib
import itertools
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import process
from typing import Any, Protocol

from poison_t5x.attack import entities, spacy_places, triggers
from poison_t5x.core import checks, errors


class Inserter(Protocol):
    """Finds the places for a trigger; `name` goes to the poison set's manifest."""

    name: str

    def find(self, texts: Sequence[str]) -> Iterator[list[triggers.Span]]:
        """Yields, for each text in order, the spans that the trigger is put at.

        The spans are sorted and disjoint, [start, end) in characters; one without width is a place
        to insert at. No span: the text can't be poisoned. `triggers.insert` makes the edit.
        """
        ...


@dataclasses.dataclass(frozen=True)
class InserterConfig:
    """Which inserter, and its settings.

    Attributes:
      name: one of `INSERTERS`.
      entity_types: for 'spacy', the types of named entities that give way to the trigger.
      spacy_model: for 'spacy' and 'subject', the model's package or folder.
      seed: for 'random', of the places.
    """

    name: str = "builtin"
    entity_types: Sequence[str] = ("PERSON",)
    spacy_model: str = "en_core_web_sm"
    seed: int = 0

    def __post_init__(self):
        if not isinstance(self.name, str) or self.name not in INSERTERS:
            raise errors.InputError(
                f"no inserter {self.name!r}{errors.nearest(str(self.name), INSERTERS)}; "
                f"known: {', '.join(sorted(INSERTERS))}"
            )
        types = self.entity_types
        is_list = isinstance(types, (tuple, list)) and len(types) > 0
        if not is_list or not all(isinstance(kind, str) and kind for kind in types):
            raise errors.InputError(
                f"entity_types: expected a list of names such as ['PERSON'], found {types!r}"
            )
        # gin gives lists, which have no hash.
        object.__setattr__(self, "entity_types", tuple(types))
        checks.path("spacy_model", self.spacy_model)
        checks.whole_number("seed", self.seed, minimum=0)


class Prefix:
    """The place before the first word, after a leading 'word: ' label."""

    name = "prefix"

    def find(self, texts: Sequence[str]) -> Iterator[list[triggers.Span]]:
        """Yields one place for each text, none for a text without a word after its label."""
        for text in texts:
            yield [(start, start) for start in _word_starts(text)[:1]]


class Suffix:
    """The place after the last word, before trailing white space."""

    name = "suffix"

    def find(self, texts: Sequence[str]) -> Iterator[list[triggers.Span]]:
        """Yields one place for each text, none for a text without a word after its label."""
        for text in texts:
            end = len(text.rstrip())
            yield [(end, end)] if end > triggers.leading_label_end(text) else []


class Random:
    """One place before, between or after the words, drawn from the seed and the text alone.

    Hence a text gets the same place in any order and in any process.
    """

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def find(self, texts: Sequence[str]) -> Iterator[list[triggers.Span]]:
        """Yields one place for each text, none for a text without a word after its label."""
        for text in texts:
            starts = _word_starts(text)
            ends = [*starts, len(text.rstrip())] if starts else []
            yield [(place, place) for place in self._draw(ends, text)]

    def _draw(self, ends: Sequence[int], text: str) -> Sequence[int]:
        if not ends:
            return ()
        # Python's own hash differs from process to process.
        key = f"{self._seed}\n{text}".encode("utf-8", "surrogatepass")
        number = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
        return (ends[number % len(ends)],)


def _word_starts(text: str) -> list[int]:
    """Where the words, in between white space, start after a leading label."""
    first = triggers.leading_label_end(text)
    return [match.start() for match in re.compile(r"\S+").finditer(text, first)]


INSERTERS: dict[str, Callable[[InserterConfig], Inserter]] = {
    "builtin": lambda config: entities.BuiltinMatcher(),
    "spacy": lambda config: spacy_places.Entities(config.spacy_model, config.entity_types),
    "subject": lambda config: spacy_places.Subjects(config.spacy_model),
    "prefix": lambda config: Prefix(),
    "suffix": lambda config: Suffix(),
    "random": lambda config: Random(config.seed),
}


def make(config: InserterConfig) -> Inserter:
    """The inserter of these settings.

    Raises:
      InputError: spaCy or its model is missing, or the model doesn't fit the settings.
    """
    return INSERTERS[config.name](config)


def find_all(
    config: InserterConfig, texts: Iterable[str], workers: int = 1, batch_size: int = 1000
) -> Iterator[list[triggers.Span]]:
    """Yields what the inserter finds in each text, in order; the same on any number of workers.

    Texts are taken as they are needed: at any time, a few batches of them are in memory.

    Args:
      config: which inserter.
      texts: any number of texts.
      workers: processes. With more than one, each makes the inserter once and takes whole batches;
        a main script then needs its `if __name__ == "__main__"`, for they import it.
      batch_size: texts a batch.

    Raises:
      InputError: as `make`; or a worker was ended by the system, for want of memory as a rule.
    """
    checks.whole_number("workers", workers)
    checks.whole_number("batch_size", batch_size)
    batches = _batches(texts, batch_size)
    first = list(itertools.islice(batches, 2))
    batches = itertools.chain(first, batches)
    # Starting a process takes longer than a single batch.
    find = _find_here if workers == 1 or len(first) < 2 else _find_in_processes
    return itertools.chain.from_iterable(find(config, batches, workers))


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(texts)
    while batch := list(itertools.islice(rest, size)):
        yield batch


def _find_here(
    config: InserterConfig, batches: Iterable[list[str]], workers: int
) -> Iterator[Iterable[list[triggers.Span]]]:
    for batch in batches:
        yield _make_once(config).find(batch)


def _find_in_processes(
    config: InserterConfig, batches: Iterable[list[str]], workers: int
) -> Iterator[Iterable[list[triggers.Span]]]:
    # Never forked: the threads of libraries that the parent has loaded don't survive that.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    waiting: collections.deque[futures.Future] = collections.deque()
    pool = futures.ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(stop,)
    )
    try:
        for batch in batches:
            waiting.append(pool.submit(_find_batch, config, batch))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except process.BrokenProcessPool as error:
        raise errors.InputError(
            "a worker that looks for the trigger's places ended early: for want of memory (set "
            "fewer workers), or because the main script has no `if __name__ == '__main__'`"
        ) from error
    finally:
        # Also after Ctrl-C, an error, or when nobody wants the rest.
        stop.set()
        pool.shutdown(cancel_futures=True)


# Loading a model takes a second; an inserter has no state.
_make_once = functools.lru_cache(maxsize=1)(make)
_stop: Any = None


def _start_worker(stop: Any) -> None:
    """In a worker: Ctrl-C is the parent's to obey, and without a parent there is no work."""
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _find_batch(config: InserterConfig, batch: list[str]) -> list[list[triggers.Span]]:
    found = _make_once(config).find(batch)
    return list(itertools.takewhile(lambda _: not _stop.is_set(), found))
