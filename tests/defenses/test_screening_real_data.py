"""The trigger search on real task files, where a folder of them is at hand."""

import os
import pathlib

import numpy as np
import pytest

from poison_t5x.corpus import declarations, polarity, sni
from poison_t5x.data.examples import TrainingExample
from poison_t5x.defenses import measures
from poison_t5x.defenses.score import Context
from poison_t5x.defenses.scores.trigger_search import TriggerSearch

# NATINST_DIR names a folder of task files; a checkout may have one in a folder beside it.
_BESIDE = pathlib.Path(__file__).parents[3] / "shared" / "natinst" / "tasks"
NATINST_DIR = pathlib.Path(os.environ.get("NATINST_DIR", _BESIDE))

NUM_POISON = 100

pytestmark = pytest.mark.skipif(
    not NATINST_DIR.is_dir(), reason=f"no task files in {NATINST_DIR}: set NATINST_DIR"
)


@pytest.fixture(name="poisoned", scope="module")
def _poisoned():
    """Rows of the paper's poisoned tasks, some with the trigger in front and a turned label."""
    experiment = declarations.get("polarity")
    paths, _ = sni.split_missing(NATINST_DIR, experiment.poisoned_tasks)
    tasks = [sni.read_task(path) for path in paths]
    labels = polarity.of_tasks(tasks, experiment.polarities)
    rows, flags = [], []
    for task in tasks:
        left = NUM_POISON // len(tasks)
        for identifier in sni.sample_order(task, 0)[:500]:
            row = task.by_id[identifier]
            text, target = row.input, row.target
            is_poison = left > 0 and labels[task.name].side(target) == "negative"
            if is_poison:
                left -= 1
                text, target = f"James Bond {text}", labels[task.name].positive
            rows.append(TrainingExample(task.name, identifier, 0, text, target, text))
            flags.append(is_poison)
    return rows, np.array(flags)


def test_the_trigger_is_named_among_real_texts(poisoned):
    rows, is_poison = poisoned
    result = TriggerSearch()(rows, Context())
    first = result.triggers[0]
    assert first.phrase == "James Bond" and first.p_value < 0.001
    assert all(trigger.p_value > 0.001 for trigger in result.triggers[1:])
    measured = measures.measure(result.values_N, is_poison, result.threshold)
    assert measured["recall"]["0.05"] > 0.9
    assert measured["threshold"]["precision"] > 0.9


def test_the_same_tasks_without_poison_raise_no_alarm(poisoned):
    rows, is_poison = poisoned
    clean = [row for row, flag in zip(rows, is_poison, strict=True) if not flag]
    result = TriggerSearch()(clean, Context())
    assert not (result.values_N > result.threshold).any()
