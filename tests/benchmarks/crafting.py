"""Examples crafted per second, on one core: `python tests/benchmarks/crafting.py [NATINST_DIR]`.

The demo corpus, or with a folder of task files the paper's experiment: names found, triggers put
in, the proxy fitted, phi ranked; by phi and by trigger count alone. Prints one JSON line.
"""

import dataclasses
import json
import sys

import measuring

from poison_t5x.attack import attacks, craft
from poison_t5x.corpus import corpus, declarations


def main(natinst_dir: str | None) -> None:
    name = "polarity" if natinst_dir else "demo"
    data = corpus.load(declarations.get(name), natinst_dir)
    parts = data.training, data.poisoned, data.heldout, data.polarities
    used = set(data.poisoned) | {task.name for task in data.heldout}
    rows = sum(len(task.instances) for task in data.tasks if task.name in used)
    rates = {}
    for selection in ("phi", "count"):
        attack = attacks.AttackConfig(score=attacks.ScoreConfig(selection=selection))
        config = dataclasses.replace(craft.CraftConfig(num_train_per_task=167), attacks=(attack,))
        seconds = measuring.median_seconds(lambda c=config: craft.craft(*parts, c) and None, 3)
        rates[f"examples_per_second_{selection}"] = round(rows / seconds)
    print(json.dumps({"benchmark": "crafting", "corpus": name, "rows": rows, **rates}))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
