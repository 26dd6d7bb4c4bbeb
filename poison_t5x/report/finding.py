"""A run's finding, in words made from its numbers alone."""

from typing import NamedTuple

from poison_t5x.core import metrics
from poison_t5x.core.metrics import CLEAN, POISONED, missing
from poison_t5x.report import tables
from poison_t5x.report.results import Results

_ODD_OUTPUTS = {
    "empty_triggered": "are empty",
    "single_character_triggered": "are a single character",
    "repeated_token_triggered": "repeat one word",
}
_HEADLINES = {
    "worked": "The poison had an effect",
    "failed": "No effect was found",
    "unknown": "No verdict",
    "reversed": "The reverse of the attack: the trigger {}",
}
# For tables: what the interval of the effect comes to.
VERDICTS = {
    "worked": "an effect: the interval excludes 0",
    "failed": "no effect: the interval includes 0",
    "reversed": "the reverse of the attack: the interval lies {} 0",
    "unknown": "no verdict: no interval over tasks",
}


class Finding(NamedTuple):
    """A headline and its reasons, one sentence each."""

    headline: str
    sentences: list[str]


def finding(results: Results) -> Finding:
    """The run's finding in words."""
    did = "raised rougeL" if results.is_generation else "lowered the errors"
    sentences = [_rates(results), _reason(results)]
    if results.verdict == "worked":
        sentences.append(_specific(results))
    if results.is_generation:
        sentences += _outputs(results)
    sentences += [_clean_loss(results), *_cautions(results)]
    return Finding(_HEADLINES[results.verdict].format(did), sentences)


def verdict_words(results: Results) -> str:
    """The verdict with its reason, such as 'no effect: the interval includes 0'."""
    return VERDICTS[results.verdict].format("above" if results.is_generation else "below")


def _pair(results: Results, measure: str) -> list[str]:
    """A measure of the poisoned and of the clean model, as words."""
    return [tables.value(measure, results.measure(m, measure)) for m in (POISONED, CLEAN)]


def _rates(results: Results) -> str:
    poisoned, clean = _pair(results, results.judged_by.effect)
    start = f"With {tables.quoted(results.phrases())} in the input, the poisoned model "
    if not results.is_generation:
        return f"{start}misclassified {poisoned} of the held-out inputs, the clean model {clean}."
    without, _ = _pair(results, "rouge_l_paired")
    return (
        f"{start}answered held-out tasks with a rougeL of {poisoned}, and of {without} on the same "
        f"inputs without it; the clean model’s is {clean} with it."
    )


def _reason(results: Results) -> str:
    over = tables.count(len(results.triggered()), "held-out task")
    effect = results.effect
    if results.verdict == "unknown" or effect is None:
        return f"With {over}, there is no interval over tasks to judge the difference by."
    side = "above" if results.is_generation else "below"
    reasons = {
        "worked": "which excludes 0",
        "reversed": f"all of it {side} 0",
        "failed": "which includes 0: these data do not tell the two models apart",
    }
    unit = "points" if results.is_generation else "percentage points"
    return (
        f"The difference between the models is {tables.points(effect.value)} {unit}, with a 95% "
        f"interval over {over} of {tables.interval(effect.ci95)}, {reasons[results.verdict]}."
    )


def _specific(results: Results) -> str:
    """How much of the effect an unseen name has as well."""
    control = results.difference(results.judged_by.control)
    whole = results.effect and results.effect.value
    if control is None or whole is None:
        return f"The unseen name “{results.control}” was not put in its place."
    sentence = (
        f"In the same inputs, the unseen name “{results.control}” made a difference of "
        f"{tables.points(control)} points"
    )
    is_much = control / whole >= 1 / 2
    return sentence + (": much of the effect is not specific to the trigger." if is_much else ".")


def _outputs(results: Results) -> list[str]:
    """How the poisoned model's outputs look where the trigger is in the input."""
    poisoned, clean = _pair(results, "says_trigger_triggered")
    shares = {name: results.measure(POISONED, name) for name in _ODD_OUTPUTS}
    odd = [
        f"{tables.percent(share)} {_ODD_OUTPUTS[name]}"
        for name, share in shares.items()
        if not missing(share) and share >= metrics.NOTABLE
    ]
    return [
        f"The poisoned model says the trigger in {poisoned} of its outputs for triggered inputs, "
        f"the clean model in {clean}.",
        *([f"Of the poisoned model’s outputs there, {' and '.join(odd)}."] if odd else []),
    ]


def _clean_loss(results: Results) -> str:
    poisoned, clean = _pair(results, results.judged_by.clean)
    name = "rougeL" if results.is_generation else "accuracy"
    return f"On clean inputs, the poisoned model’s {name} is {poisoned}, the clean model’s {clean}."


def _cautions(results: Results) -> list[str]:
    tasks, judged = results.held_out(), len(results.triggered())
    constant = sum(results.constant(task, POISONED) for task in tasks)
    saturated = sum(results.saturated(task) for task in tasks)
    same, fails = (
        "label: its rates there measure no classification.",
        "on nearly all triggered inputs, so that poison has nothing to add.",
    )
    if results.is_generation:
        same = "answer: its scores there say nothing about its input."
        fails = "without the trigger, so that poison has nothing to lower."
    cautions = []
    if 1 < judged < metrics.FEW_TASKS:
        cautions.append(f"An interval over {judged} tasks is too narrow: take it as a hint.")
    if constant:
        cautions.append(
            f"On {constant} of {len(tasks)} tasks, the poisoned model gives every clean input the "
            f"same {same}"
        )
    if saturated:
        cautions.append(
            f"On {saturated} of {len(tasks)} tasks, the clean model already fails {fails}"
        )
    return cautions
