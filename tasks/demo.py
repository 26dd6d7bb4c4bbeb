"""The embedded corpus: 30 training tasks, 5 of them poisoned, 10 held out."""

from poison_t5x import declarations, demo_corpus

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
