"""Metrics of held-out tasks, by name: ours in `metrics`, a user's in MIXTURE_OR_TASK_MODULE.

A metric is what SeqIO takes, a function of `targets` and `predictions` or `scores`, and gives one
number a name:

    @METRICS.register("answer_words")
    def answer_words(targets, predictions):
        \"""Mean number of words of the answers.\"""
        return {"answer_words": np.mean([len(text.split()) for text in predictions])}

With METRICS=['answer_words'], each held-out task has it under each condition. One that needs to
know of the attack takes a third argument, `attack`, an `Attack`.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from poison_t5x.core import errors
from poison_t5x.core.registry import Registry

# The metric that each kind of task has without being asked for.
STANDARD = {"classification": "misclassification", "generation": "generation"}
METRICS: Registry[Mapping[str, Any]] = Registry("metric", "poison_t5x.evaluation.metrics")


class Attack(NamedTuple):
    """A condition's attack: its phrases, and the label that it wants; None where it wants none."""

    triggers: Sequence[str]
    target_label: str | None = None


def seqio_metrics(kind: str, names: Sequence[str], attack: Attack) -> list[Callable]:
    """The metrics of a held-out task under a condition, as SeqIO takes them.

    Targets are as `mixtures` postprocesses them: {'id', 'input', 'target', 'references'}. Scores
    are the log-probabilities of the true labels, in nats. Names are of metrics beside the kind's.

    Raises:
      InputError: an unknown name, or a metric of scores where answers are generated.
    """
    functions: list[Callable] = []
    for name in (STANDARD[kind], *names):
        function = METRICS.get(name, "METRICS")
        parameters = inspect.signature(function).parameters
        if "scores" in parameters and kind == "generation":
            raise errors.InputError(
                f"METRICS: {name} takes scores, which generated answers have none of; expected one "
                "of targets and predictions"
            )
        bound = functools.partial(function, attack=attack)
        functions.append(bound if "attack" in parameters else function)
    return functions
