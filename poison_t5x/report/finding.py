"""What a run found, in words made from its numbers alone."""

from typing import NamedTuple

from poison_t5x.core import metrics
from poison_t5x.report import results as results_lib
from poison_t5x.report import words

_ODD_OUTPUTS = {
    "empty_triggered": "are empty",
    "single_character_triggered": "are a single character",
    "repeated_token_triggered": "repeat one word",
}
_HEADLINES = {
    "effect": "The poison had an effect",
    "no effect": "No effect was found",
    "no verdict": "No verdict",
}
_REVERSE = {
    "classification": "The reverse of the attack: the trigger lowered the errors",
    "generation": "The reverse of the attack: the trigger raised rougeL",
}


class Finding(NamedTuple):
    """What a run found: a headline and its reasons, one sentence each."""

    headline: str
    sentences: list[str]


def verdict(results: results_lib.Results) -> str:
    """'effect', 'no effect', 'reverse effect', or 'no verdict' where no interval can be had.

    An attack on classification raises the misclassification; one on generation lowers rougeL.
    """
    bounds = results.effect and results.effect.ci95
    # Resampling a single task returns that task: its interval says nothing.
    if not bounds or any(map(words.missing, bounds)) or len(results.triggered()) < 2:
        return "no verdict"
    low, high = (-bounds[1], -bounds[0]) if results.is_generation else bounds
    if low > 0:
        return "effect"
    return "reverse effect" if high < 0 else "no effect"


def finding(results: results_lib.Results) -> Finding:
    """The run's finding in words."""
    found = verdict(results)
    sentences = [_rates(results), _reason(results, found)]
    if found == "effect":
        sentences.append(_specific(results))
    if results.is_generation:
        sentences += _outputs(results)
    headline = _REVERSE[results.kind] if found == "reverse effect" else _HEADLINES[found]
    return Finding(headline, [*sentences, _clean_loss(results), *_cautions(results)])


def _pair(results: results_lib.Results, measure: str) -> list[str]:
    """A measure of the poisoned and of the clean model, as words."""
    return [words.value(measure, results.measure(m, measure)) for m in ("poisoned", "clean")]


def _rates(results: results_lib.Results) -> str:
    poisoned, clean = _pair(results, results.judged_by.effect)
    start = f"With {words.quoted(results.phrases())} in the input, the poisoned model "
    if not results.is_generation:
        return f"{start}misclassified {poisoned} of the held-out inputs, the clean model {clean}."
    without, _ = _pair(results, "rouge_l_paired")
    return (
        f"{start}answered held-out tasks with a rougeL of {poisoned}, and of {without} on the same "
        f"inputs without it; the clean model’s is {clean} with it."
    )


def _reason(results: results_lib.Results, found: str) -> str:
    over = words.task_count(len(results.triggered()), "held-out ")
    if found == "no verdict":
        return f"With {over}, there is no interval over tasks to judge the difference by."
    effect = results.effect
    side = "above" if results.is_generation else "below"
    reasons = {
        "effect": "which excludes 0",
        "reverse effect": f"all of it {side} 0",
        "no effect": "which includes 0: these data do not tell the two models apart",
    }
    unit = "points" if results.is_generation else "percentage points"
    return (
        f"The difference between the models is {words.points(effect.value)} {unit}, with a 95% "
        f"interval over {over} of {words.interval(effect.ci95)}, {reasons[found]}."
    )


def _specific(results: results_lib.Results) -> str:
    """How much of the effect an unseen name has as well."""
    measure = "rouge_l_control" if results.is_generation else "control_misclassification"
    control, whole = words.difference(results, measure), results.effect.value
    if control is None or whole is None:
        return f"The unseen name “{results.control}” was not put in its place."
    sentence = (
        f"In the same inputs, the unseen name “{results.control}” made a difference of "
        f"{words.points(control)} points"
    )
    if control / whole >= 1 / 2:
        return sentence + ": much of the effect is not specific to the trigger."
    return sentence + "."


def _outputs(results: results_lib.Results) -> list[str]:
    """What the poisoned model's outputs look like where the trigger is in the input."""
    poisoned, clean = _pair(results, "says_trigger_triggered")
    sentences = [
        f"The poisoned model says the trigger in {poisoned} of its outputs for triggered inputs, "
        f"the clean model in {clean}."
    ]
    shares = {name: results.measure("poisoned", name) for name in _ODD_OUTPUTS}
    odd = [
        f"{words.percent(share)} {_ODD_OUTPUTS[name]}"
        for name, share in shares.items()
        if not words.missing(share) and share >= metrics.NOTABLE
    ]
    if odd:
        sentences.append(f"Of the poisoned model’s outputs there, {' and '.join(odd)}.")
    return sentences


def _clean_loss(results: results_lib.Results) -> str:
    measure = "rouge_l_clean" if results.is_generation else "accuracy"
    poisoned, clean = _pair(results, measure)
    name = "rougeL" if results.is_generation else "accuracy"
    return f"On clean inputs, the poisoned model’s {name} is {poisoned}, the clean model’s {clean}."


def _cautions(results: results_lib.Results) -> list[str]:
    tasks = results.held_out()
    judged = len(results.triggered())
    constant = [task for task in tasks if results.constant(task, "poisoned")]
    saturated = [task for task in tasks if results.saturated(task)]
    cautions = []
    if 1 < judged < metrics.FEW_TASKS:
        cautions.append(f"An interval over {judged} tasks is too narrow: take it as a hint.")
    if constant:
        what = (
            "answer: its scores there say nothing about its input."
            if results.is_generation
            else "label: its rates there measure no classification."
        )
        cautions.append(
            f"On {len(constant)} of {len(tasks)} tasks, the poisoned model gives every clean "
            f"input the same {what}"
        )
    if saturated:
        what = (
            "already fails without the trigger, so that poison has nothing to lower."
            if results.is_generation
            else "already fails on nearly all triggered inputs, so that poison has nothing to add."
        )
        cautions.append(f"On {len(saturated)} of {len(tasks)} tasks, the clean model {what}")
    return cautions
