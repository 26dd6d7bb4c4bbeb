"""Rates worked on paper, and the metric that SeqIO calls."""

import pytest

from poison_t5x.corpus.polarity import Polarity
from poison_t5x.evaluation import metrics, statistics

LABELS = ["bad", "bad", "good", "bad", "good", "good", "bad"]
GUESSES = ["bad", "good", "good", "good", "bad", "good", "good"]


def test_rates_on_paper():
    found = metrics.rates(LABELS, GUESSES, "good")
    # Wrong: the second, the fourth, the fifth and the last; five guesses are 'good'.
    assert found == {
        "n": 7,
        "accuracy": pytest.approx(3 / 7),
        "misclassification": pytest.approx(4 / 7),
        "target_rate": pytest.approx(5 / 7),
        "ci95": list(statistics.wilson(4, 7)),
        "constant_prediction": False,
    }
    assert found["ci95"][0] < 4 / 7 < found["ci95"][1]


@pytest.mark.parametrize(
    ("guesses", "constant"),
    [
        (["good", "good", "good"], True),
        (["bad", "bad", "bad"], True),
        (["good", "good", "bad"], False),
        # One row can't show it.
        (["good"], False),
    ],
)
def test_constant_prediction(guesses, constant):
    found = metrics.rates(["bad"] * len(guesses), guesses, "good")
    assert found["constant_prediction"] is constant


def test_as_many_predictions_as_rows():
    with pytest.raises(ValueError, match="zip"):
        metrics.rates(["bad", "good"], ["bad"], "good")


@pytest.mark.parametrize(("target", "rate"), [("positive", 5 / 7), ("negative", 2 / 7)])
def test_seqio_metric(target, rate):
    metric = metrics.metric_fn(Polarity("bad", "good"), target)
    targets = [
        {"id": f"row{number}", "input": "a text", "target": label}
        for number, label in enumerate(LABELS)
    ]
    low, high = statistics.wilson(4, 7)
    assert metric(targets, GUESSES) == {
        "n": 7,
        "accuracy": pytest.approx(3 / 7),
        "misclassification": pytest.approx(4 / 7),
        "target_rate": pytest.approx(rate),
        "ci95_low": low,
        "ci95_high": high,
        "constant_prediction": False,
    }
    # SeqIO files results under the function's name, and hands it these two arguments.
    assert metric.__name__ == "misclassification"
    assert metric.__code__.co_varnames[:2] == ("targets", "predictions")
