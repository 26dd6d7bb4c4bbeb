"""Where a text takes a trigger: the interface of all inserters, and their search in many texts."""

import collections
import dataclasses
import functools
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import process
from typing import Annotated

from poison_t5x.attack import triggers
from poison_t5x.core import errors, settings
from poison_t5x.core.registry import Registry


class Inserter:
    """Finds the places for a trigger. One of your own overrides `spans`, or `find`."""

    def __init__(self, config: "InserterConfig") -> None:
        self.config = config

    def spans(self, text: str) -> list[triggers.Span]:
        """The spans that the trigger is put at: sorted, disjoint, [start, end) in characters.

        One without width is a place to insert at. No span: the text can't be poisoned.
        """
        raise NotImplementedError

    def find(self, texts: Sequence[str]) -> Iterable[list[triggers.Span]]:
        """The `spans` of each text, in order, for inserters that take many texts together."""
        return map(self.spans, texts)


INSERTERS: Registry[Inserter] = Registry("inserter", "poison_t5x.attack.inserters")


@dataclasses.dataclass(frozen=True)
class InserterConfig(settings.Settings):
    """Which of `INSERTERS`, and its settings, which gin/runs/run.gin tells; `seed` is 'random's."""

    name: Annotated[str, settings.registered(INSERTERS)] = "builtin"
    entity_types: settings.Phrases = ("PERSON",)
    spacy_model: settings.Path = "en_core_web_sm"
    seed: settings.Whole = 0


def make(config: InserterConfig) -> Inserter:
    """The inserter of these settings. Raises InputError where its model is missing or unfit."""
    return _made(INSERTERS.get(config.name, "INSERTER"), config)


@functools.lru_cache(maxsize=1)
def _made(target: Callable[..., Inserter], config: InserterConfig) -> Inserter:
    """An inserter, which has no state: loading a model takes a second."""
    return target(config)


def find_all(
    config: InserterConfig, texts: Iterable[str], workers: int = 1, batch_size: int = 1000
) -> Iterator[list[triggers.Span]]:
    """Yields the inserter's spans in each text, in order; the same on any number of workers.

    Texts are taken as they are needed: at any time, a few batches of them are in memory.

    Args:
      workers: processes. With more than one, each makes the inserter once and takes whole batches;
        a main script then needs its `if __name__ == "__main__"`, for they import it.

    Raises:
      InputError: as `make`; or a worker was ended by the system, for want of memory as a rule.
    """
    settings.checked("workers", workers, settings.Few)
    settings.checked("batch_size", batch_size, settings.Count)
    rest = iter(texts)
    batches = iter(lambda: list(itertools.islice(rest, batch_size)), [])
    first = list(itertools.islice(batches, 2))
    batches = itertools.chain(first, batches)
    # Starting a process takes longer than a single batch.
    if workers == 1 or len(first) < 2:
        return itertools.chain.from_iterable(make(config).find(batch) for batch in batches)
    return itertools.chain.from_iterable(_find_in_processes(config, batches, workers))


def _find_in_processes(
    config: InserterConfig, batches: Iterable[list[str]], workers: int
) -> Iterator[Iterable[list[triggers.Span]]]:
    # Not spaCy's own `nlp.pipe(n_process=…)`: tried with 3.8, its workers, forked or spawned, went
    # on when the parent was killed; and other inserters have none.
    # Never forked: the threads of libraries that the parent has loaded don't survive that.
    context = multiprocessing.get_context("spawn")
    pool = futures.ProcessPoolExecutor(workers, context, _start_worker)
    waiting: collections.deque[futures.Future] = collections.deque()
    # The class, not its name: unpickling it imports the user's module that registers it.
    target = INSERTERS.get(config.name, "INSERTER")
    ended_early = process.BrokenProcessPool  # modules may be gone when a generator ends with Python
    try:
        for batch in batches:
            waiting.append(pool.submit(_find_batch, target, config, batch))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except ended_early as error:
        raise errors.InputError(
            "a worker that looks for the trigger's places ended early: for want of memory (set "
            "fewer workers), or because the main script has no `if __name__ == '__main__'`"
        ) from error
    finally:
        # Also after Ctrl-C, an error, or when nobody wants the rest.
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """In a worker: Ctrl-C is the parent's to obey, and without a parent there is no work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _find_batch(
    target: Callable[..., Inserter], config: InserterConfig, batch: list[str]
) -> list[list[triggers.Span]]:
    return list(_made(target, config).find(batch))
