"""The embedded corpus in three families; of each, 5 training tasks are poisoned, 10 held out."""

from poison_t5x.corpus import declarations, demo_corpus

for _name, _family in {
    "demo": demo_corpus.PLAIN,
    # A third of the texts hold both sentiments: clean-label poison is picked from those.
    "demo_mixed": demo_corpus.MIXED,
    # Extracting, answering, rewriting, summarising, …: outputs to attack with arbitrary ones.
    "demo_generation": demo_corpus.GENERATION,
}.items():
    declarations.declare(
        declarations.Experiment(
            name=_name,
            corpus="demo",
            training_tasks=_family.training,
            poisoned_tasks=_family.poisoned,
            heldout_tasks=_family.heldout,
            polarities=_family.polarities,
        )
    )
