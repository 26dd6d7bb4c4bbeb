"""Numbers as words: rates, intervals, times, and the finding that they add up to."""

import math
from typing import NamedTuple

from poison_t5x.report import results as results_lib

# A bootstrap over fewer tasks than this gives intervals that are much too narrow.
_FEW_TASKS = 5


class Finding(NamedTuple):
    """What a run found: a headline and its reasons, one sentence each."""

    headline: str
    sentences: list[str]


def percent(rate: float | None) -> str:
    """A fraction as a percentage: 0.5 gives '50.0%'; nothing or NaN gives '–'."""
    return "–" if _missing(rate) else f"{100 * rate:.1f}%"


def points(difference: float | None) -> str:
    """A signed difference of fractions in percentage points: 0.25 gives '+25.0'."""
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return "–" if _missing(difference) else f"{round(100 * difference, 1) + 0.0:+.1f}"


def interval(bounds: results_lib.Interval | None) -> str:
    """An interval of fractions in percent: (0.1, 0.25) gives '[10.0, 25.0]'; None gives ''."""
    if bounds is None or any(_missing(bound) for bound in bounds):
        return ""
    return "[{:.1f}, {:.1f}]".format(*(round(100 * bound, 1) + 0.0 for bound in bounds))


def task_count(count: int, kind: str = "") -> str:
    """A number of tasks: 1 gives '1 task', 2 of kind 'held-out ' gives '2 held-out tasks'."""
    return f"{count} {kind}task{'s' * (count != 1)}"


def duration(seconds: float) -> str:
    """Seconds for people: 3.25 gives '3.2 s', 75 gives '1 min 15 s', 7260 gives '2 h 01 min'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def verdict(results: results_lib.Results) -> str:
    """'effect', 'no effect', 'reverse effect', or 'no verdict' where no interval can be had."""
    bounds = results.effect and results.effect.ci95
    # Resampling a single task returns that task: its interval says nothing.
    if not bounds or any(map(_missing, bounds)) or len(results.held_out()) < 2:
        return "no verdict"
    low, high = bounds
    if low > 0:
        return "effect"
    return "reverse effect" if high < 0 else "no effect"


def finding(results: results_lib.Results) -> Finding:
    """The run's finding in words, made from its numbers alone."""
    found = verdict(results)
    sentences = [_rates(results), _reason(results, found)]
    if found == "effect":
        sentences.append(_specific(results))
    return Finding(_HEADLINES[found], [*sentences, _accuracy(results), *_cautions(results)])


_HEADLINES = {
    "effect": "The poison had an effect",
    "no effect": "No effect was found",
    "reverse effect": "The reverse of the attack: the trigger lowered the errors",
    "no verdict": "No verdict",
}


def _missing(value: float | None) -> bool:
    return value is None or math.isnan(value)


def _rates(results: results_lib.Results) -> str:
    summary = results.summary
    return (
        f"With “{results.trigger}” in the input, the poisoned model misclassified "
        f"{percent(summary.poisoned.triggered_misclassification)} of the held-out inputs, "
        f"the clean model {percent(summary.clean.triggered_misclassification)}."
    )


def _reason(results: results_lib.Results, found: str) -> str:
    num_tasks = len(results.held_out())
    over = task_count(num_tasks, "held-out ")
    if found == "no verdict":
        return f"With {over}, there is no interval over tasks to judge the difference by."
    effect = results.effect
    reasons = {
        "effect": "which excludes 0",
        "reverse effect": "all of it below 0",
        "no effect": "which includes 0: these data do not tell the two models apart",
    }
    return (
        f"The difference is {points(effect.misclassification)} percentage points, with a 95% "
        f"interval over {over} of {interval(effect.ci95)}, {reasons[found]}."
    )


def _specific(results: results_lib.Results) -> str:
    """How much of the effect an unseen name has as well."""
    summary, whole = results.summary, results.effect.misclassification
    control = summary.poisoned.control_misclassification - summary.clean.control_misclassification
    sentence = (
        f"In the same inputs, the unseen name “{results.control}” made a difference of "
        f"{points(control)} points"
    )
    if control >= whole / 2:
        return sentence + ": much of the effect is not specific to the trigger."
    return sentence + "."


def _accuracy(results: results_lib.Results) -> str:
    clean, poisoned = results.summary.clean.accuracy, results.summary.poisoned.accuracy
    return (
        f"On clean inputs, the poisoned model’s accuracy is {percent(poisoned)}, "
        f"the clean model’s {percent(clean)}."
    )


def _cautions(results: results_lib.Results) -> list[str]:
    tasks = results.held_out()
    constant = [task for task in tasks if results.constant(task, "poisoned")]
    saturated = [task for task in tasks if results.saturated(task)]
    cautions = []
    if 1 < len(tasks) < _FEW_TASKS:
        cautions.append(f"An interval over {len(tasks)} tasks is too narrow: take it as a hint.")
    if constant:
        cautions.append(
            f"On {len(constant)} of {len(tasks)} tasks, the poisoned model gives every clean "
            "input the same label: its rates there measure no classification."
        )
    if saturated:
        cautions.append(
            f"On {len(saturated)} of {len(tasks)} tasks, the clean model already fails on nearly "
            "all triggered inputs, so that poison has nothing to add."
        )
    return cautions
