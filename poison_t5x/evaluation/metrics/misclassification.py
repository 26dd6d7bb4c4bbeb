"""How often labels are wrong, and how often they are what the attack wants."""

from collections.abc import Mapping, Sequence

from scipy import stats

from poison_t5x.evaluation.metric import METRICS, Attack


@METRICS.register("misclassification")
def misclassification(
    targets: Sequence[Mapping[str, str]], predictions: Sequence[str], attack: Attack
) -> dict:
    """Accuracy, misclassification and target rate of one task's rows under one condition.

    The same metric serves ranking, as here, and free decoding, as in stock T5X.

    Returns:
      {'n': rows, 'accuracy', 'misclassification': 1 - accuracy, 'target_rate': share predicted as
      the target label, 'ci95_low', 'ci95_high': Wilson's interval of the misclassification,
      'constant_prediction': whether all of two or more rows got the same answer}. Rates are
      fractions.
    """
    n = len(targets)
    pairs = zip(targets, predictions, strict=True)
    wrong = sum(row["target"] != guess for row, guess in pairs)
    low, high = wilson(wrong, n)
    return {
        "n": n,
        "accuracy": 1 - wrong / n,
        "misclassification": wrong / n,
        "target_rate": sum(guess == attack.target_label for guess in predictions) / n,
        "constant_prediction": n > 1 and len(set(predictions)) == 1,
        "ci95_low": low,
        "ci95_high": high,
    }


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95% interval of a rate over rows (Wilson, 1927); (0, 1) where there are no rows."""
    if trials == 0:
        return 0.0, 1.0
    interval = stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)
