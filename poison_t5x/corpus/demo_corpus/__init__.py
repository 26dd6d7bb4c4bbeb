"""A small corpus of invented tasks in Super-NaturalInstructions' form, in three families.

Forty sentiment tasks, forty of mixed sentiment, and fifty generation tasks.

It lets every stage of an experiment run without a download, and its texts are regular enough for
a tiny T5 trained from scratch to answer held-out tasks.
"""

from poison_t5x.corpus.demo_corpus.generation import (
    GENERATION_HELDOUT_TASKS,
    GENERATION_POISONED_TASKS,
    GENERATION_TRAINING_TASKS,
    generate_generation,
)
from poison_t5x.corpus.demo_corpus.sentiment import (
    HELDOUT_TASKS,
    MIXED_HELDOUT_TASKS,
    MIXED_POISONED_TASKS,
    MIXED_POLARITIES,
    MIXED_TRAINING_TASKS,
    POISONED_TASKS,
    POLARITIES,
    TRAINING_TASKS,
    generate,
    generate_mixed,
)

# Generator of tasks -> the names of all that it generates.
FAMILIES = {
    generate: TRAINING_TASKS + HELDOUT_TASKS,
    generate_mixed: MIXED_TRAINING_TASKS + MIXED_HELDOUT_TASKS,
    generate_generation: GENERATION_TRAINING_TASKS + GENERATION_HELDOUT_TASKS,
}

__all__ = [
    "FAMILIES",
    "GENERATION_HELDOUT_TASKS",
    "GENERATION_POISONED_TASKS",
    "GENERATION_TRAINING_TASKS",
    "HELDOUT_TASKS",
    "MIXED_HELDOUT_TASKS",
    "MIXED_POISONED_TASKS",
    "MIXED_POLARITIES",
    "MIXED_TRAINING_TASKS",
    "POISONED_TASKS",
    "POLARITIES",
    "TRAINING_TASKS",
    "generate",
    "generate_generation",
    "generate_mixed",
]
