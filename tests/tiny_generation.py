"""A small part of the demo's generation tasks as an experiment."""

from poison_t5x.corpus import declarations, demo_corpus

_TRAINING = demo_corpus.GENERATION.training[:5]

declarations.declare(
    declarations.Experiment(
        name="tiny_generation",
        corpus="demo",
        training_tasks=_TRAINING,
        poisoned_tasks=_TRAINING[:2],
        heldout_tasks=demo_corpus.GENERATION.heldout[:2],
    )
)
