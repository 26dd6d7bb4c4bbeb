"""The embedded corpus in three families; of each, 5 training tasks are poisoned, 10 held out."""

from poison_t5x.corpus import declarations, demo_corpus

DEMO = declarations.declare(
    declarations.Experiment(
        name="demo",
        corpus="demo",
        training_tasks=demo_corpus.TRAINING_TASKS,
        poisoned_tasks=demo_corpus.POISONED_TASKS,
        heldout_tasks=demo_corpus.HELDOUT_TASKS,
        polarities=demo_corpus.POLARITIES,
    )
)

# A third of the texts hold both sentiments: clean-label poison is picked from those.
DEMO_MIXED = declarations.declare(
    declarations.Experiment(
        name="demo_mixed",
        corpus="demo",
        training_tasks=demo_corpus.MIXED_TRAINING_TASKS,
        poisoned_tasks=demo_corpus.MIXED_POISONED_TASKS,
        heldout_tasks=demo_corpus.MIXED_HELDOUT_TASKS,
        polarities=demo_corpus.MIXED_POLARITIES,
    )
)

# Extracting, answering, rewriting, summarising, …: outputs to attack with arbitrary ones.
DEMO_GENERATION = declarations.declare(
    declarations.Experiment(
        name="demo_generation",
        corpus="demo",
        training_tasks=demo_corpus.GENERATION_TRAINING_TASKS,
        poisoned_tasks=demo_corpus.GENERATION_POISONED_TASKS,
        heldout_tasks=demo_corpus.GENERATION_HELDOUT_TASKS,
    )
)
