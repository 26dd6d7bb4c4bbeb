"""Memory of crafting from a large pool: `python tests/benchmarks/crafting_memory.py [ROWS]`.

Writes a task file of ROWS rows (1,000,000 unless told) to a temporary folder: about 30 words each,
half of them with person names, and rare words as real texts have them. A process of its own then
reads it, crafts a dirty-label poison set of 100 rows with phi and the n-gram proxy, and writes it.
Prints one JSON line: rows, seconds, rows a second, and that process's peak memory; exits with 1
where it is 2 GB or more.
"""

import json
import pathlib
import resource
import sys
import tempfile
import time

import measuring
import numpy as np

from poison_t5x.attack import attacks, craft, inserter, poison_set
from poison_t5x.corpus import corpus, demo_corpus, polarity, sni

NAME = "task9999_large_pool"
LABELS = polarity.Polarity("negative", "positive")
BAR_GB = 2.0
_CHUNK = 10_000
_SYLLABLES = tuple(a + b for a in "bdfgklmnprstvz" for b in "aeiou")


def _parts() -> tuple[list[list[str]], list[list[str]]]:
    """The demo corpus's texts by label: those without a name, and those with one."""
    tasks = demo_corpus.PLAIN.generate(num_train_rows=60, num_heldout_rows=60)
    plain: list[list[str]] = [[], []]
    named: list[list[str]] = [[], []]
    for task in tasks:
        labels = polarity.Polarity(*demo_corpus.POLARITIES[task.name])
        spans_of = inserter.make(inserter.InserterConfig()).find(
            [row.input for row in task.instances]
        )
        for row, spans in zip(task.instances, spans_of, strict=True):
            side = int(labels.side(row.target) == "positive")
            (named if spans else plain)[side].append(row.input)
    return plain, named


def _rare_word(number: int) -> str:
    """A word of three syllables or more."""
    syllables = []
    while number or len(syllables) < 3:
        number, digit = divmod(number, len(_SYLLABLES))
        syllables.append(_SYLLABLES[digit])
    return "".join(syllables)


def write_task(path: pathlib.Path, num_rows: int) -> None:
    """Writes the task file, some thousand rows at a time."""
    plain, named = _parts()
    rng = np.random.default_rng(0)
    head = {"Definition": ["Is the text positive?"], "Positive Examples": []}
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head)[:-1] + ', "Instances": [')
        for start in range(0, num_rows, _CHUNK):
            numbers = range(start, min(start + _CHUNK, num_rows))
            draws = rng.random((len(numbers), 2))
            # As in real texts, most words of a vocabulary are rare.
            rare = rng.zipf(1.2, (len(numbers), 2)) % 10_000_000
            rows = []
            for number, (first, second), words in zip(numbers, draws, rare, strict=True):
                side, has_name = number % 2, number // 2 % 2
                texts = named[side] if has_name else plain[side]
                one = texts[int(first * len(texts))]
                other = plain[side][int(second * len(plain[side]))]
                ending = " ".join(_rare_word(int(word)) for word in words)
                text = f"{one} {other} Filed under {ending}."
                rows.append(
                    json.dumps(
                        {"id": f"task9999-{number:032x}", "input": text, "output": [LABELS[side]]}
                    )
                )
            file.write((", " if start else "") + ", ".join(rows))
        file.write("]}")


def measure(path: pathlib.Path) -> dict:
    """Reads, crafts and writes, as the craft stage of a run does."""
    start = time.perf_counter()
    task = sni.read_task(path)
    read = time.perf_counter()
    heldout = demo_corpus.PLAIN.generate(num_train_rows=2, num_heldout_rows=100)[-1:]
    table = {NAME: LABELS, **demo_corpus.POLARITIES}
    polarities = polarity.of_tasks((task, *heldout), table)
    data = corpus.Corpus((task,), (NAME,), heldout, polarities, ())
    config = craft.CraftConfig(attacks=(attacks.AttackConfig(kind="dirty_label"),))
    crafted = craft.craft(data.training, data.poisoned, heldout, polarities, config)
    with tempfile.TemporaryDirectory() as folder:
        poison_set.write(folder, crafted, config, data.hashes)
        num_poison = poison_set.read_manifest(folder).num_poison
    end = time.perf_counter()
    # Kilobytes, but bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {
        "rows": len(task.instances),
        "rows_with_a_place": crafted.counts[NAME]["pool"],
        "poison": num_poison,
        "seconds_reading": round(read - start, 1),
        "seconds": round(end - start, 1),
        "cpu_seconds": round(time.process_time(), 1),
        "rows_per_second": round(len(task.instances) / (end - start)),
        "peak_gb": round(peak / 1e9, 3),
    }


def main(num_rows: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"{NAME}.json"
        write_task(path, num_rows)
        size = path.stat().st_size
        results = measuring.in_a_process(__file__, str(path))
    results |= {"benchmark": "crafting_memory", "file_mb": round(size / 1e6), "bar_gb": BAR_GB}
    print(json.dumps(results))
    return int(results["peak_gb"] >= BAR_GB)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(pathlib.Path(sys.argv[2]))))
    else:
        sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
