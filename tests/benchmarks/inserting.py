"""Places found per second: `python tests/benchmarks/inserting.py [NATINST_DIR]`.

On up to 6,000 texts of the demo corpus, or with a folder of task files of the paper's tasks:
the built-in matcher; spaCy's persons as we look for them, and as the authors' code does, with the
whole pipeline on each text and again on each of its sentences; and both inserters in two processes.

On one core means: pinned to one, one thread in each library, and CPU time, so that a busy machine
counts little. Both ways with spaCy take turns on the same third of the texts; ratios and rates are
medians of the three. Two processes are timed by the clock, their start included. Each part prints
a JSON line; without spaCy or its model one says so.
"""

import itertools
import json
import os
import random
import statistics
import sys
import time
import warnings
from collections.abc import Sequence

# Before any library reads them.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"):
    os.environ[_name] = "1"

import measuring  # noqa: E402

from poison_t5x.attack import inserter as inserters  # noqa: E402
from poison_t5x.attack.inserters import spacy_places  # noqa: E402
from poison_t5x.core import errors  # noqa: E402
from poison_t5x.corpus import corpus, declarations  # noqa: E402

TEXTS, ROUNDS = 6000, 3


def _texts(natinst_dir: str | None) -> list[str]:
    experiment = declarations.get("polarity" if natinst_dir else "demo")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.InputWarning)
        tasks = corpus.load(experiment, natinst_dir).tasks
    texts = [row.input for task in tasks for row in task.instances]
    return random.Random(0).sample(texts, min(TEXTS, len(texts)))


def _builtin(texts: Sequence[str]) -> dict:
    config = inserters.InserterConfig("builtin")
    find = lambda: sum(map(bool, inserters.find_all(config, texts)))  # noqa: E731
    seconds, found = measuring.median_seconds(find, ROUNDS, clock=time.process_time), find()
    rate = round(len(texts) / seconds)
    return {"texts_per_second": rate, "texts_with_a_person": found}


def _authors_way(pipeline, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Parses each text and each sentence; returns the persons of the pass over the whole text."""
    persons = []
    for text in texts:
        doc = pipeline(text)
        for sentence in doc.sents:
            pipeline(sentence.text)
        entities = [entity for entity in doc.ents if entity.label_ == "PERSON"]
        spans = (spacy_places.trimmed(text, e.start_char, e.end_char) for e in entities)
        persons.append(list(itertools.chain.from_iterable(spans)))
    return persons


def _spacy(texts: Sequence[str]) -> dict:
    config = inserters.InserterConfig("spacy")
    inserter = inserters.make(config)
    import spacy

    pipeline = spacy.load(config.spacy_model)
    rates, ratios, counts = [], [], [0, 0, 0]
    for part in (texts[start::ROUNDS] for start in range(ROUNDS)):
        start = time.process_time()
        ours = list(inserter.find(part))
        between = time.process_time()
        theirs = _authors_way(pipeline, part)
        end = time.process_time()
        rates.append((len(part) / (between - start), len(part) / (end - between)))
        ratios.append((end - between) / (between - start))
        for left, right in zip(ours, theirs, strict=True):
            for index, spans in enumerate((left, right, set(left) & set(right))):
                counts[index] += len(spans)
    return {
        "texts_per_second": round(statistics.median(rate[0] for rate in rates), 1),
        "authors_way_texts_per_second": round(statistics.median(rate[1] for rate in rates), 1),
        "ratio": round(statistics.median(ratios), 2),
        "persons": dict(zip(("ours", "whole_pipeline", "same"), counts, strict=True)),
    }


def _processes(name: str, texts: Sequence[str]) -> dict:
    config = inserters.InserterConfig(name)
    rates, results = [], []
    for workers in (1, 2):
        start = time.perf_counter()
        results.append(list(inserters.find_all(config, texts, workers=workers, batch_size=250)))
        rates.append(len(texts) / (time.perf_counter() - start))
    assert results[0] == results[1]
    one, two = (round(rate, 1) for rate in rates)
    return {"texts_per_second_by_the_clock": {"1 worker": one, "2 workers": two}}


def _print(part: str, results: dict) -> None:
    print(json.dumps({"benchmark": "inserting", "part": part} | results), flush=True)


def main(natinst_dir: str | None) -> None:
    texts = _texts(natinst_dir)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    _print("builtin", {"texts": len(texts)} | _builtin(texts))
    names = ["builtin"]
    try:
        _print("spacy", _spacy(texts))
        names.append("spacy")
    except errors.InputError as error:
        _print("spacy", {"skipped": str(error)})
    os.sched_setaffinity(0, cores)
    for name in names:
        _print(f"{name} in processes", _processes(name, texts))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
