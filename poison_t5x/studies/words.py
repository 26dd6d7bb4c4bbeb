"""Numbers and names of a study as words."""

from collections.abc import Mapping
from typing import Any

from poison_t5x.studies import aggregate

_NAMES = {
    "effect": "effect of the attack",
    "clean": "clean model, triggered inputs",
    "poisoned": "poisoned model, triggered inputs",
    "control": "poisoned model, unseen name",
    "control_effect": "effect of an unseen name",
    "accuracy": "poisoned model's score, clean inputs",
    "accuracy_change": "change of the score on clean inputs",
    "final": "defended model, triggered inputs",
    "final_effect": "effect that is left",
    "final_accuracy": "defended model's score, clean inputs",
    "removed": "share of the rows removed",
    "poison_removed": "share of the poison removed",
    "train_loss": "training loss, nats a target token",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "best_f1": "best F1",
    "proxy_overlap": "share of the poison that the n-gram proxy chose too",
    "phi_correlation": "rank correlation of phi with the n-gram proxy's",
    "probability_correlation": "rank correlation of p(target | x) with the n-gram proxy's",
}
_DIFFERENCES = ("effect", "control_effect", "final_effect", "accuracy_change")
# Neither fractions that are said in percent nor differences of such.
_PLAIN = ("auroc", "average_precision", "best_f1", "threshold_f1", "trigger_rank", "train_loss")
_COUNTS = ("num_poison", "proxy_common", "trigger_rank")


def measure(name: str) -> str:
    """A measure's name for people."""
    if name.startswith("removed_for_"):
        return f"share of the data removed to lose {float(name[12:]):.0%} of the poison"
    if name.startswith("recall_"):
        return f"share of the poison in the first {float(name[7:]):.0%} of the rows"
    return _NAMES.get(name, name.replace("_", " ").replace(".", ": "))


def is_percent(name: str) -> bool:
    """Whether a measure is said in percent."""
    return not (name in _PLAIN or name in _COUNTS or name.endswith("_correlation"))


def unit(name: str) -> str:
    """Of a measure that is said in percent: 'points' for a difference, or '%'."""
    return "points" if name in _DIFFERENCES else "%"


def value(name: str, number: float | None, *, difference: bool = False) -> str:
    """A measure's value: '91.3%', '+91.3 points', '0.930'; '–' for none.

    Args:
      difference: it is the difference of two values.
    """
    if number is None:
        return "–"
    signed = "+" if difference or name in _DIFFERENCES else ""
    if is_percent(name):
        unit = " points" if signed else "%"
        return f"{round(100 * number, 1) + 0.0:{signed}.1f}{unit}"
    digits = ".4g" if name in _COUNTS else ".3f"
    return f"{number + 0.0:{signed}{digits}}"


def estimate(name: str, found: aggregate.Estimate | None, *, difference: bool = False) -> str:
    """A value and its interval: '+91.3 points [+79.1, +98.4]'."""
    if found is None:
        return "–"
    text = value(name, found.mean, difference=difference)
    return text if found.interval is None else f"{text} {interval(name, found.interval)}"


def interval(name: str, bounds: tuple[float, float]) -> str:
    """'[79.1, 98.4]', in percent where the measure is."""
    scale, digits = (100, 1) if is_percent(name) else (1, 3)
    return "[{}, {}]".format(*(f"{round(scale * b, digits) + 0.0:.{digits}f}" for b in bounds))


def place(dimension: str, found: Any) -> str:
    """A place along a dimension: '50', 'phi', 'None'."""
    if isinstance(found, (list, tuple)):
        return " + ".join(map(str, found))
    return str(found)


def setting(macros: Mapping[str, Any]) -> str:
    """'NUM_POISON 50, SEED 0'; 'the study’s own settings' for none."""
    if not macros:
        return "the study’s own settings"
    return ", ".join(f"{name} {place(name, found)}" for name, found in macros.items())
