"""A small corpus of forty invented sentiment tasks in Super-NaturalInstructions' form.

It lets every stage of an experiment run without a download, and its texts are regular enough for
a tiny T5 trained from scratch to answer held-out tasks.
"""

from poison_t5x.demo_corpus.corpus import generate, to_json
from poison_t5x.demo_corpus.tasks import (
    HELDOUT_TASKS,
    POISONED_TASKS,
    POLARITIES,
    TRAINING_TASKS,
)

__all__ = [
    "HELDOUT_TASKS",
    "POISONED_TASKS",
    "POLARITIES",
    "TRAINING_TASKS",
    "generate",
    "to_json",
]
