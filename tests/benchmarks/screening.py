"""False alarms of the trigger search on clean tasks: `python tests/benchmarks/screening.py DIR`.

DIR holds SNI task files. Scans 1,000 random rows of each file alone, then groups of ten files,
500 rows each, at the default alarm level, and prints one JSON line: how many raised the alarm,
with what phrases, and seconds. Each group is scanned again with 100 rows (--poison) of up to five
of its tasks changed to one answer, the trigger in front: how often is it named first?
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import time

import numpy as np

from poison_t5x.screening import files, records, trigger_search
from poison_t5x.screening.rows import Row
from poison_t5x.screening.score import Context

TRIGGER = "James Bond"
ROWS_ALONE, ROWS_IN_GROUP, GROUP = 1000, 500, 10


def _read(path: pathlib.Path, num_rows: int, rng: np.random.Generator) -> list[Row]:
    rows = files.read([str(path)], records.Fields()).rows
    chosen = rng.permutation(len(rows))[:num_rows]
    return [rows[place] for place in sorted(chosen)]


def _poisoned(rows: list[Row], count: int, rng: np.random.Generator) -> list[Row]:
    """`count` rows get the trigger, and the answer that their task gives most seldom."""
    tasks: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        tasks.setdefault(row.task, []).append(place)
    labels = {task: [rows[p].target for p in places] for task, places in tasks.items()}
    classified = [task for task in tasks if 2 <= len(set(labels[task])) <= 8]
    changed = list(rows)
    for task in classified[:5]:
        target = min(sorted(set(labels[task])), key=labels[task].count)
        others = [place for place in tasks[task] if rows[place].target != target]
        for place in rng.permutation(others)[: count // min(5, len(classified))]:
            text = f"{TRIGGER} {rows[place].input}"
            changed[place] = rows[place]._replace(input=text, target=target)
    return changed


def _scan(rows: list[Row], level: float) -> tuple[list[str], float]:
    """Phrases past the level, and seconds."""
    start = time.perf_counter()
    search = dataclasses.replace(trigger_search.TriggerSearch(), level=level)
    found = search(rows, Context()).triggers
    seconds = time.perf_counter() - start
    return [trigger.phrase for trigger in found if trigger.p_value < level], seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--level", type=float, default=0.001)
    parser.add_argument("--groups", type=int, default=12)
    parser.add_argument("--poison", type=int, default=100)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    paths = sorted(options.folder.glob("*.json"))
    alone = {path.stem: _scan(_read(path, ROWS_ALONE, rng), options.level) for path in paths}
    clean, named = [], []
    for _ in range(options.groups):
        chosen = [paths[place] for place in rng.choice(len(paths), GROUP, replace=False)]
        rows = [row for path in chosen for row in _read(path, ROWS_IN_GROUP, rng)]
        clean.append(_scan(rows, options.level))
        named.append(_scan(_poisoned(rows, options.poison, rng), options.level)[0][:1])
    result = {
        "level": options.level,
        "files": len(alone),
        "alarms": {name: phrases for name, (phrases, _) in alone.items() if phrases},
        "groups": len(clean),
        "group_alarms": [phrases for phrases, _ in clean if phrases],
        "poisoned_groups_with_the_trigger_named_first": sum(
            bool(first) and TRIGGER.lower() in first[0].lower() for first in named
        ),
        "median_seconds": {
            "file": round(statistics.median(seconds for _, seconds in alone.values()), 2),
            "group": round(statistics.median(seconds for _, seconds in clean), 2),
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
