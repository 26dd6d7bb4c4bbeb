"""Examples crafted per second, on one core: `python tests/benchmarks/crafting.py [NATINST_DIR]`.

The demo corpus, or with a folder of task files the paper's experiment: names found, triggers put
in, the proxy fitted, phi ranked. Prints one JSON line.
"""

import json
import statistics
import sys
import time

from poison_t5x import corpus, declarations
from poison_t5x.poison import craft, entities

ROUNDS = 3


def main(natinst_dir: str | None) -> None:
    name = "polarity" if natinst_dir else "demo"
    found = corpus.load(declarations.get(name), natinst_dir)
    config = craft.CraftConfig(num_train_per_task=167)
    texts = [row.input for task in found.tasks for row in task.instances]
    crafting, matching = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        craft.craft(found.training, found.poisoned, found.heldout, found.polarities, config)
        crafting.append(time.perf_counter() - start)
        matcher = entities.matcher(config.matcher)
        start = time.perf_counter()
        for _ in matcher.find(texts):
            pass
        matching.append(time.perf_counter() - start)
    used = set(found.poisoned) | {task.name for task in found.heldout}
    rows = sum(len(task.instances) for task in found.tasks if task.name in used)
    print(
        json.dumps(
            {
                "benchmark": "crafting",
                "corpus": name,
                "examples_per_second": round(rows / statistics.median(crafting)),
                "texts_matched_per_second": round(len(texts) / statistics.median(matching)),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
