"""Rates worked on paper, Wilson's interval, and metrics as SeqIO takes them."""

import inspect
import math

import pytest

from poison_t5x.core.errors import InputError
from poison_t5x.evaluation import metric
from poison_t5x.evaluation.metrics.misclassification import misclassification, wilson

LABELS = ["bad", "bad", "good", "bad", "good", "good", "bad"]
GUESSES = ["bad", "good", "good", "good", "bad", "good", "good"]
ATTACK = metric.Attack(("James Bond",), "good")
Z = 1.959964


def _targets(labels):
    return [{"id": f"row{n}", "input": "a text", "target": label} for n, label in enumerate(labels)]


@pytest.mark.parametrize(("target", "rate"), [("good", 5 / 7), ("bad", 2 / 7)])
def test_rates_on_paper(target, rate):
    rates = misclassification(_targets(LABELS), GUESSES, metric.Attack((), target))
    # Wrong: the second, the fourth, the fifth and the last; five guesses are 'good'.
    low, high = wilson(4, 7)
    assert low < 4 / 7 < high
    assert rates == {
        "n": 7,
        "accuracy": pytest.approx(3 / 7),
        "misclassification": pytest.approx(4 / 7),
        "target_rate": pytest.approx(rate),
        "constant_prediction": False,
        "ci95_low": low,
        "ci95_high": high,
    }


@pytest.mark.parametrize(
    ("guesses", "constant"),
    # One row can't show it.
    [
        (["good"] * 3, True),
        (["bad"] * 3, True),
        (["good", "good", "bad"], False),
        (["good"], False),
    ],
)
def test_constant_prediction(guesses, constant):
    rates = misclassification(_targets(["bad"] * len(guesses)), guesses, ATTACK)
    assert rates["constant_prediction"] is constant
    with pytest.raises(ValueError, match="zip"):
        misclassification(_targets(["bad"] * len(guesses)), guesses[1:], ATTACK)


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [
        # With no success the interval is [0, z^2 / (n + z^2)]; the reverse with no failure.
        (0, 10, (0.0, Z**2 / (10 + Z**2))),
        (10, 10, (10 / (10 + Z**2), 1.0)),
        (0, 1, (0.0, Z**2 / (1 + Z**2))),
        # The formula at a half: 1/2 -+ z / (2 sqrt(n + z^2)).
        (50, 100, (0.5 - Z / 2 / math.sqrt(100 + Z**2), 0.5 + Z / 2 / math.sqrt(100 + Z**2))),
        # Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20 and 1 of 29.
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_wilson(successes, trials, expected):
    bounds = wilson(successes, trials)
    assert [type(bound) for bound in bounds] == [float, float]
    # The table's four decimals.
    assert bounds == pytest.approx(expected, abs=5e-5)


@pytest.fixture(name="own")
def _own(monkeypatch):
    """Two metrics of a user's module."""
    monkeypatch.setattr(metric.METRICS, "_targets", dict(metric.METRICS._targets))

    @metric.METRICS.register("answer_words")
    def answer_words(targets, predictions):
        """Mean words of the answers."""
        return {"answer_words": sum(len(text.split()) for text in predictions) / len(targets)}

    @metric.METRICS.register("confidence")
    def confidence(targets, scores):
        return {"confidence": sum(scores) / len(targets)}


@pytest.mark.usefixtures("own")
def test_metrics_are_what_seqio_takes():
    functions = metric.seqio_metrics("classification", ["answer_words", "confidence"], ATTACK)
    names = [
        [name for name, one in inspect.signature(function).parameters.items() if one.kind == 1]
        for function in functions
    ]
    assert names == [["targets", "predictions"], ["targets", "predictions"], ["targets", "scores"]]
    assert functions[0](_targets(LABELS), GUESSES)["target_rate"] == 5 / 7
    assert functions[1](_targets(LABELS), ["a b"] * 7) == {"answer_words": 2.0}
    assert metric.METRICS.summaries()["answer_words"] == "Mean words of the answers."
    assert {"generation", "misclassification"} < set(metric.METRICS.names())


@pytest.mark.usefixtures("own")
def test_metrics_that_cannot_be_are_refused():
    with pytest.raises(InputError, match=r"METRICS: no metric 'answer_word'.*'answer_words'"):
        metric.seqio_metrics("generation", ["answer_word"], ATTACK)
    with pytest.raises(InputError, match="METRICS: confidence takes scores"):
        metric.seqio_metrics("generation", ["confidence"], ATTACK)
