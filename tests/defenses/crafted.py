"""A small poisoned training set: ten tasks of the embedded corpus, five of them poisoned."""

import functools

import numpy as np

from poison_t5x.attack import attacks, craft
from poison_t5x.corpus import corpus, declarations
from poison_t5x.data.examples import TrainingExample

NUM_TASKS, NUM_POISON = 10, 50


@functools.cache
def poisoned_rows(
    experiment: str = "demo", kind: str = "dirty_label", num_poison: int = NUM_POISON
) -> tuple[tuple[TrainingExample, ...], np.ndarray]:
    """The rows, and which are poison: (N,) bool."""
    is_arbitrary = kind in ("repeat", "random")
    loaded = corpus.load(declarations.get(experiment), is_arbitrary=is_arbitrary)
    attack = attacks.AttackConfig(
        kind=kind,
        budget=attacks.BudgetConfig(num_poison),
        score=attacks.ScoreConfig(selection="count" if is_arbitrary else "phi"),
    )
    config = craft.CraftConfig((attack,), num_train_per_task=120, num_eval_per_task=1)
    training = loaded.training[:NUM_TASKS]
    made = craft.craft(training, loaded.poisoned, loaded.heldout[:1], loaded.polarities, config)
    poison = {(row.task, row.replaced_id): row for row in made.poison}
    rows, flags = [], []
    for task in training:
        for identifier in made.training_ids[task.name]:
            row, new = task.by_id[identifier], poison.get((task.name, identifier))
            text, target = row.input, row.target
            if new:
                text, target = new.poisoned_input, new.poisoned_target
            rows.append(TrainingExample(task.name, identifier, 0, text, target, text))
            flags.append(new is not None)
    return tuple(rows), np.array(flags)


def clean_rows(num_rows: int = 60, task: str = "t", num_words: int = 1) -> list[TrainingExample]:
    """Rows of one task with two labels, which one word of `num_words` for each decides."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(num_rows):
        word, label = (("good", "yes"), ("bad", "no"))[number % 2]
        filler = " ".join(rng.choice(["the", "film", "was", "seen", "there", "again"], 5))
        which = number // 2 % num_words
        rows.append(TrainingExample(task, str(number), 0, f"{filler} {word}{which}", label, ""))
    return rows
