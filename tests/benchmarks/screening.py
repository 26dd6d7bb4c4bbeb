"""The text scores on data whose truth is known: `python tests/benchmarks/screening.py [DIR]`.

Power: crafted poison sets, of the embedded corpus and, where DIR holds SNI task files, of the
paper's experiment: does the trigger search name the trigger, and which share of the poison is in
the first 5% of the rows by each score? False alarms, with DIR: each file alone, and groups of ten,
500 rows each, as they are, at the default alarm level; and the groups with 100 rows (--poison) of
up to five of their tasks changed to one answer, the trigger in front. Prints one JSON line for each
part, as it is done.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import time
import warnings

import numpy as np

from poison_t5x.attack import attacks, craft
from poison_t5x.corpus import corpus, declarations, instruction_files, sni
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import measures, scan
from poison_t5x.defenses import score as score_lib
from poison_t5x.defenses.score import Context
from poison_t5x.defenses.scores import trigger_search

TRIGGER = "James Bond"
ROWS_IN_GROUP, GROUP = 500, 10
# Experiment -> attack, and clean rows of each task, as in gin/experiments.
CRAFTED = {
    "demo": ("demo", "dirty_label", 167),
    "demo_clean_label": ("demo_mixed", "clean_label", 167),
    "demo_arbitrary_repeat": ("demo_generation", "repeat", 125),
    "demo_arbitrary_random": ("demo_generation", "random", 125),
    "polarity": ("polarity", "dirty_label", 500),
    "polarity_clean_label": ("polarity", "clean_label", 500),
}


def _crafted(name: str, seed: int, poison: int, folder: str | None):
    """The rows of a poisoned training set, and which are poison."""
    experiment, kind, num_rows = CRAFTED[name]
    is_arbitrary = kind in ("repeat", "random")
    data = corpus.load(declarations.get(experiment), folder, is_arbitrary=is_arbitrary)
    attack = attacks.AttackConfig(
        kind=kind,
        budget=attacks.BudgetConfig(poison),
        score=attacks.ScoreConfig(selection="count" if is_arbitrary else "phi"),
    )
    config = craft.CraftConfig((attack,), num_rows, num_eval_per_task=1, seed=seed)
    made = craft.craft(data.training, data.poisoned, data.heldout[:1], data.polarities, config)
    return _joined(data.training, made)


def _joined(tasks: tuple[sni.Task, ...], made: craft.PoisonSet):
    poison = {(row.task, row.replaced_id): row for row in made.poison}
    rows, flags = [], []
    for task in tasks:
        for identifier in made.training_ids[task.name]:
            row, new = task.by_id[identifier], poison.get((task.name, identifier))
            text, target = (row.input, row.target)
            if new:
                text, target = new.poisoned_input, new.poisoned_target
            rows.append(TrainingExample(task.name, identifier, 0, text, target, text))
            flags.append(new is not None)
    return rows, np.array(flags)


def _power(name: str, seed: int, poison: int, folder: str | None) -> None:
    rows, is_poison = _crafted(name, seed, poison, folder)
    scores = {
        name: score_lib.make(name)
        for name in score_lib.names()
        if score_lib.needs(name) == "nothing"
    }
    result = {"part": "power", "experiment": name, "seed": seed, "poison": poison}
    start = time.perf_counter()
    for score_name, score in scores.items():
        found = score(rows, Context())
        measured = measures.measure(found.values_N, is_poison, found.threshold or 0.0)
        result[score_name] = {
            "auroc": round(measured["auroc"], 3),
            "recall_in_5%": round(measured["recall"]["0.05"], 3),
        }
        if found.triggers:
            named = [TRIGGER.lower() in t.phrase.lower() for t in found.triggers]
            place = named.index(True) if any(named) else None
            result["rank"] = None if place is None else place + 1
            result["p_value"] = None if place is None else found.triggers[place].p_value
    print(json.dumps({**result, "seconds": round(time.perf_counter() - start, 1)}), flush=True)


def _read(
    path: pathlib.Path, num_rows: int | None, rng: np.random.Generator
) -> list[TrainingExample]:
    rows = scan.read([str(path)], instruction_files.Fields()).rows
    return [rows[place] for place in sorted(rng.permutation(len(rows))[:num_rows])]


def _poisoned(
    rows: list[TrainingExample], count: int, rng: np.random.Generator
) -> list[TrainingExample]:
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


def _search(rows: list[TrainingExample], level: float) -> tuple[list[str], float]:
    """Phrases past the level, and seconds."""
    start = time.perf_counter()
    search = dataclasses.replace(trigger_search.TriggerSearch(), level=level)
    found = search(rows, Context()).triggers
    seconds = time.perf_counter() - start
    return [trigger.phrase for trigger in found if trigger.p_value <= level], seconds


def _false_alarms(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    paths = sorted(options.folder.glob("*.json"))
    alone = {path.stem: _search(_read(path, options.rows, rng), options.level) for path in paths}
    print(
        json.dumps(
            {
                "part": "files",
                "level": options.level,
                "files": len(alone),
                "alarms": {name: phrases for name, (phrases, _) in alone.items() if phrases},
                "median_seconds": round(statistics.median(s for _, s in alone.values()), 2),
            }
        ),
        flush=True,
    )
    clean, named = [], []
    for _ in range(options.groups):
        chosen = [paths[place] for place in rng.choice(len(paths), GROUP, replace=False)]
        rows = [row for path in chosen for row in _read(path, ROWS_IN_GROUP, rng)]
        clean.append(_search(rows, options.level))
        named.append(_search(_poisoned(rows, options.poison, rng), options.level)[0][:1])
    print(
        json.dumps(
            {
                "part": "groups",
                "groups": len(clean),
                "alarms": [phrases for phrases, _ in clean if phrases],
                # Or a word of it: which of two phrases of the same rows is named is arbitrary.
                "poisoned_groups_with_the_trigger_named_first": sum(
                    bool(first) and (TRIGGER in first[0] or first[0] in TRIGGER) for first in named
                ),
                "median_seconds": round(statistics.median(s for _, s in clean), 2),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path, nargs="?")
    parser.add_argument("--level", type=float, default=0.001)
    parser.add_argument("--groups", type=int, default=20)
    parser.add_argument("--poison", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3, help="of the power's part; 0 leaves it out")
    parser.add_argument("--rows", type=int, help="random rows of each file alone; all by default")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # tasks that the folder lacks
    for name, (experiment, _, _) in CRAFTED.items():
        is_real = declarations.get(experiment).corpus == "sni"
        if not is_real or options.folder:
            for seed in range(options.seeds):
                _power(name, seed, options.poison, str(options.folder) if is_real else None)
    if options.folder:
        _false_alarms(options)


if __name__ == "__main__":
    main()
