"""The paper's arbitrary-task attack: the benchmark's English training split and test split.

Task numbers are those of Super-NaturalInstructions' default split (Wang et al., 2022). Any training
task may be poisoned: NUM_POISONED_TASKS of them are, and tasks that aren't generation tasks are
passed over.
"""

import json
import pathlib

from poison_t5x.corpus import declarations

_data = json.loads(pathlib.Path(__file__).with_name("arbitrary.json").read_text(encoding="utf-8"))

ARBITRARY = declarations.declare(
    declarations.Experiment(name="arbitrary", poisoned_tasks=_data["training_tasks"], **_data)
)
