"""The trigger search on real task files, where a folder of them is at hand."""

import os
import pathlib
import warnings

import numpy as np
import pytest

from poison_t5x import corpus, declarations, errors
from poison_t5x.poison import craft
from poison_t5x.screening import measures
from poison_t5x.screening.rows import Row
from poison_t5x.screening.score import Context
from poison_t5x.screening.trigger_search import TriggerSearch

# NATINST_DIR names a folder of task files; a checkout may have one in a folder beside it.
_BESIDE = pathlib.Path(__file__).parents[3] / "shared" / "natinst" / "tasks"
NATINST_DIR = pathlib.Path(os.environ.get("NATINST_DIR", _BESIDE))

pytestmark = pytest.mark.skipif(
    not NATINST_DIR.is_dir(), reason=f"no task files in {NATINST_DIR}: set NATINST_DIR"
)


@pytest.fixture(name="poisoned", scope="module")
def _poisoned():
    """The paper's poisoned training set, and which rows are poison."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.InputWarning)  # tasks that the folder lacks
        found = corpus.load(declarations.get("polarity"), str(NATINST_DIR))
        made = craft.craft(
            found.training,
            found.poisoned,
            found.heldout[:1],
            found.polarities,
            craft.CraftConfig(num_eval_per_task=1),
        )
    poison = {(row.task, row.replaced_id): row for row in made.poison}
    rows, flags = [], []
    for task in found.training:
        for identifier in made.training_ids[task.name]:
            row, new = task.by_id[identifier], poison.get((task.name, identifier))
            text, target = row.input, row.target
            if new:
                text, target = new.poisoned_input, new.poisoned_target
            rows.append(Row(task.name, identifier, 0, text, target, text))
            flags.append(new is not None)
    return rows, np.array(flags)


def test_the_trigger_is_named_among_real_texts(poisoned):
    rows, is_poison = poisoned
    found = TriggerSearch()(rows, Context())
    first = found.triggers[0]
    assert first.phrase == "James Bond" and first.p_value < 1e-6
    assert all(trigger.p_value > 0.001 for trigger in found.triggers[1:])
    measured = measures.measure(found.values_N, is_poison, found.threshold)
    assert measured["recall"]["0.05"] > 0.9
    assert measured["threshold"]["precision"] > 0.9


def test_the_same_tasks_without_poison_raise_no_alarm(poisoned):
    rows, is_poison = poisoned
    clean = [row for row, flag in zip(rows, is_poison, strict=True) if not flag]
    found = TriggerSearch()(clean, Context())
    assert not (found.values_N > found.threshold).any()
