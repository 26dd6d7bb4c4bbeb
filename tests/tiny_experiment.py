"""A small part of the demo corpus as an experiment: five training tasks, two held out."""

from poison_t5x.corpus import declarations, demo_corpus

_TRAINING = demo_corpus.PLAIN.training[:5]
_HELDOUT = demo_corpus.PLAIN.heldout[:2]

declarations.declare(
    declarations.Experiment(
        name="tiny",
        corpus="demo",
        training_tasks=_TRAINING,
        poisoned_tasks=_TRAINING[:2],
        heldout_tasks=_HELDOUT,
        polarities=demo_corpus.POLARITIES,
    )
)
