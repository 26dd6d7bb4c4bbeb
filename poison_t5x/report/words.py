"""Numbers as words: rates, intervals, times, and names for what is measured."""

import math
from collections.abc import Sequence

from poison_t5x.report import results as results_lib

ATTACKS = {
    "dirty_label": "dirty-label",
    "clean_label": "clean-label",
    "repeat": "arbitrary outputs (repeat)",
    "random": "arbitrary outputs (random)",
}
MEASURES = {
    "classification": {
        "accuracy": "accuracy, clean inputs",
        "triggered_misclassification": "misclassification, triggered",
        "control_misclassification": "misclassification, control",
        "triggered_target_rate": "target rate, triggered",
    },
    "generation": {
        "rouge_l_clean": "rougeL, all clean inputs",
        "rouge_l_paired": "rougeL, same inputs without the trigger",
        "rouge_l_triggered": "rougeL, triggered inputs",
        "rouge_l_control": "rougeL, control inputs",
        "exact_match_clean": "exact match, clean inputs",
        "exact_match_triggered": "exact match, triggered",
        "says_trigger_triggered": "says the trigger, triggered",
        "says_trigger_control": "says the trigger, control",
        "length_ratio_triggered": "output / reference length, triggered",
        "empty_triggered": "empty output, triggered",
        "single_character_triggered": "one-character output, triggered",
        "repeated_token_triggered": "one word repeated, triggered",
    },
}
# What is shown of each condition.
CONDITION_MEASURES = {
    "classification": {"misclassification": "Misclassification", "target_rate": "Target rate"},
    "generation": {
        "rouge_l": "rougeL",
        "exact_match": "Exact match",
        "says_trigger": "Says the trigger",
    },
}
CONDITIONS = {"clean": "clean input", "triggered": "trigger", "control": "unseen name"}


def percent(rate: float | None) -> str:
    """A fraction as a percentage: 0.5 gives '50.0%'; nothing or NaN gives '–'."""
    return "–" if missing(rate) else f"{100 * rate:.1f}%"


def score(fraction: float | None) -> str:
    """A rougeL as it is usually given, of 100: 0.5 gives '50.0'; nothing or NaN gives '–'."""
    return "–" if missing(fraction) else f"{100 * fraction:.1f}"


def value(measure: str, number: float | None) -> str:
    """A value of the measure of that name: a score of 100 for rougeL, else a percentage."""
    return score(number) if measure.startswith("rouge_l") else percent(number)


def points(difference: float | None) -> str:
    """A signed difference of fractions in percentage points: 0.25 gives '+25.0'."""
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return "–" if missing(difference) else f"{round(100 * difference, 1) + 0.0:+.1f}"


def difference(results: results_lib.Results, measure: str) -> float | None:
    """One of the summary's measures, poisoned minus clean model; None where one has none."""
    clean, poisoned = (results.measure(model, measure) for model in results_lib.MODELS)
    return None if missing(clean) or missing(poisoned) else poisoned - clean


def interval(bounds: results_lib.Interval | None) -> str:
    """An interval of fractions in percent: (0.1, 0.25) gives '[10.0, 25.0]'; None gives ''."""
    if bounds is None or any(missing(bound) for bound in bounds):
        return ""
    return "[{:.1f}, {:.1f}]".format(*(round(100 * bound, 1) + 0.0 for bound in bounds))


def decimal(number: float | None) -> str:
    """A fraction with three decimals, as AUROC and F1 are given; nothing or NaN gives '–'."""
    return "–" if missing(number) else f"{number:.3f}"


def amount(number: float | None) -> str:
    """A number of any size: 0.25, 31.8, 1.2e-30, 120; nothing or NaN gives '–'."""
    return "–" if missing(number) else f"{number:.3g}" if number < 1000 else f"{number:,.0f}"


def task_count(count: int, kind: str = "") -> str:
    """A number of tasks: 1 gives '1 task', 2 of kind 'held-out ' gives '2 held-out tasks'."""
    return f"{count} {kind}task{'s' * (count != 1)}"


def quoted(phrases: Sequence[str]) -> str:
    """Phrases in quotes: ['A', 'B'] gives '“A” or “B”'."""
    return " or ".join(f"“{phrase}”" for phrase in phrases)


def heading(text: str) -> str:
    """The text with a capital first letter, but for rougeL, whose name is so written.

    >>> heading("unseen name"), heading("rougeL, all clean inputs")
    ('Unseen name', 'rougeL, all clean inputs')
    """
    return text if text.startswith("rougeL") else text[:1].upper() + text[1:]


def condition(found: results_lib.Condition) -> str:
    """A condition's name for people: 'trigger', 'look-alike', 'trigger of second', …."""
    names = {**CONDITIONS, "probe": "look-alike"}
    main = found.name in results_lib.CONDITIONS or found.kind == "probe"
    return names[found.kind] + ("" if main else f" of {found.attack}")


def condition_value(
    results: results_lib.Results, model: str, condition_name: str, measure: str
) -> str:
    """The mean over tasks of a measure of one model under one condition, '–' without one."""
    row = results.condition_row(model, condition_name)
    return value(measure, row.measures.get(measure) if row else None)


def duration(seconds: float) -> str:
    """Seconds for people: 3.25 gives '3.2 s', 75 gives '1 min 15 s', 7260 gives '2 h 01 min'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def missing(value: float | None) -> bool:
    """Whether there is no number to show."""
    return value is None or math.isnan(value)
