"""The misclassification metric that belongs to each held-out SeqIO task."""

from collections.abc import Callable, Mapping, Sequence

from poison_t5x.corpus import polarity
from poison_t5x.evaluation import statistics


def rates(labels: Sequence[str], predictions: Sequence[str], target_label: str) -> dict:
    """What became of one task's rows under one condition.

    Args:
      labels: the true label of each row.
      predictions: the predicted one.
      target_label: the label that the attack wants.

    Returns:
      {'n': rows, 'accuracy', 'misclassification': 1 - accuracy, 'target_rate': share predicted as
      the target label, 'ci95': Wilson's interval of the misclassification, 'constant_prediction':
      whether all of two or more rows got the same answer}. Rates are fractions.
    """
    n = len(labels)
    wrong = sum(label != guess for label, guess in zip(labels, predictions, strict=True))
    wanted = sum(guess == target_label for guess in predictions)
    return {
        "n": n,
        "accuracy": 1 - wrong / n,
        "misclassification": wrong / n,
        "target_rate": wanted / n,
        "ci95": list(statistics.wilson(wrong, n)),
        "constant_prediction": n > 1 and len(set(predictions)) == 1,
    }


def metric_fn(labels: polarity.Polarity, target: polarity.Side) -> Callable:
    """A SeqIO metric for a task: it takes targets and predictions as `mixtures` postprocesses them.

    The same metric serves ranking, as here, and free decoding, as in stock T5X.
    """
    target_label = labels.label(target)

    def misclassification(targets: Sequence[Mapping[str, str]], predictions: Sequence[str]) -> dict:
        result = rates([row["target"] for row in targets], predictions, target_label)
        low, high = result.pop("ci95")
        return {**result, "ci95_low": low, "ci95_high": high}

    return misclassification
