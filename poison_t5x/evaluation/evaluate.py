"""Evaluates one trained model on the held-out tasks, through each task's own SeqIO metrics."""

import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import seqio

from poison_t5x.core import artifacts, errors, progress, settings
from poison_t5x.corpus import polarity, prompts, sni
from poison_t5x.data import mixtures
from poison_t5x.evaluation import metric, predictors
from poison_t5x.evaluation.metrics import generation
from poison_t5x.model import beam_search
from poison_t5x.train import distributed
from poison_t5x.train.trained_model import TrainedModel


@dataclasses.dataclass(frozen=True)
class EvalConfig(settings.Settings):
    """Settings of the evaluation.

    Attributes:
      batch_size: rows answered at once; the result doesn't follow from it beyond rounding.
      length_normalized: rank by the mean log-probability of a label's tokens, not the sum.
      beam_size: beams kept in generating answers; 1 decodes greedily.
      beam_alpha: exponent of the beams' length penalty, as T5X's.
      metrics: names of metrics beside each kind's own, see `evaluation.metric`.
    """

    batch_size: settings.Rows = 64
    length_normalized: bool = False
    beam_size: settings.Few = 1
    beam_alpha: beam_search.Alpha = 0.6
    metrics: Sequence[Annotated[str, settings.registered(metric.METRICS)]] = ()

    def rank(self, trained: TrainedModel, inputs, labels, max_length: int) -> np.ndarray:
        """`predictors.rank` with these settings, of inputs of up to `max_length` tokens."""
        sizes = {"batch_size": self.batch_size, "max_length": max_length}
        normalized = self.length_normalized
        return predictors.rank(trained, inputs, labels, length_normalized=normalized, **sizes)


def prompt(
    task: sni.Task, text: str, vocabulary: seqio.Vocabulary, config: mixtures.DataConfig
) -> str:
    """A task's prompt that asks about a text, as `mixtures` renders it."""
    return prompts.render(
        task.definition,
        [(example.input, example.target) for example in task.positive_examples],
        text,
        num_examples=config.num_examples,
        max_tokens=config.max_tokens,
        count_tokens=lambda text: len(vocabulary.encode(text)) + 1,
    )


class Examples(NamedTuple):
    """A held-out task's rows, as its SeqIO pipeline gives them.

    `inputs` are token arrays with EOS, int32, unpadded; `targets` are postprocessed, as the task's
    metrics take them.
    """

    task: seqio.Task
    inputs: list[np.ndarray]
    targets: list[dict[str, Any]]

    @property
    def vocabulary(self) -> seqio.Vocabulary:
        return self.task.output_features["targets"].vocabulary

    def text(self, tokens: Sequence[int]) -> str:
        """An answer's tokens as the task's metrics take it."""
        return self.task.postprocess_fn(self.vocabulary.decode(list(tokens)), is_target=False)

    def rates(self, predictions: Sequence[str], scores: Sequence[float]) -> dict[str, Any]:
        """The task's own metrics, as plain numbers.

        Raises:
          InputError: two metrics give a rate of one name.
        """
        measured = [
            *(function(self.targets, predictions) for function in self.task.predict_metric_fns),
            *(function(self.targets, scores) for function in self.task.score_metric_fns),
        ]
        rates: dict[str, Any] = {}
        for each in measured:
            for name, value in each.items():
                if name in rates:
                    raise errors.InputError(f"METRICS: two metrics give a rate {name!r}")
                rates[name] = value.item() if hasattr(value, "item") else value
        return rates


def read_examples(name: str, lengths: Mapping[str, int]) -> Examples:
    """The validation rows of a registered task.

    SeqIO's Evaluator would trace a second pipeline to pad them, and read them anew for each model.
    Lengths are {'inputs': …, 'targets': …}, tokens.
    """
    task = seqio.get_mixture_or_task(name)
    rows = list(task.get_dataset(lengths, "validation", shuffle=False).as_numpy_iterator())
    targets = [
        task.postprocess_fn(row["targets_pretokenized"], example=row, is_target=True)
        for row in rows
    ]
    return Examples(task, [row["inputs"] for row in rows], targets)


class Answers(NamedTuple):
    """One task's answers: rows for its prediction file, and all that its metrics take."""

    rows: list[dict[str, Any]]
    predictions: list[str]
    scores: list[float]


class Answering(NamedTuple):
    """A model that answers a task's rows, of lengths {'inputs': …, 'targets': …} in tokens.

    It ranks the two labels of a task, whose polarities are given by name, or without any decodes.
    """

    trained: TrainedModel
    config: EvalConfig
    lengths: Mapping[str, int]
    polarities: Mapping[str, polarity.Polarity] | None = None

    def answer(self, name: str, examples: Examples) -> Answers:
        """A task's answers."""
        if self.polarities is None:
            return self._decode(examples)
        return self._rank(sorted(self.polarities[name]), examples)

    def _rank(self, labels: Sequence[str], examples: Examples) -> Answers:
        vocabulary = examples.vocabulary
        tokens = [[*vocabulary.encode(label), vocabulary.eos_id] for label in labels]
        texts = list(map(examples.text, tokens))
        answers = Answers([], [], [])
        max_length = self.lengths["inputs"]
        values_NxL = self.config.rank(self.trained, examples.inputs, tokens, max_length)
        for target, values_L in zip(examples.targets, values_NxL.astype(float), strict=True):
            by_label = dict(zip(labels, values_L.tolist(), strict=True))
            choice = int(values_L.argmax())
            row = {key: target[key] for key in ("id", "input", "target")}
            row["prediction"] = labels[choice]
            row["log_probabilities"] = {label: round(by_label[label], 5) for label in labels}
            answers.rows.append(row)
            answers.predictions.append(texts[choice])
            answers.scores.append(by_label.get(target["target"], math.nan))
        return answers

    def _decode(self, examples: Examples) -> Answers:
        decoded = predictors.generate(
            self.trained,
            examples.inputs,
            batch_size=self.config.batch_size,
            max_length=self.lengths["inputs"],
            max_decode_length=self.lengths["targets"],
            beam_size=self.config.beam_size,
            alpha=self.config.beam_alpha,
        )
        texts = list(map(examples.text, decoded))
        rows = [generation.scored(*pair) for pair in zip(examples.targets, texts, strict=True)]
        return Answers(rows, texts, [])


def evaluate(
    model: Answering,
    read: Callable[[str], Examples],
    tasks: Sequence[tuple[str, str, str]],
    output_dir: pathlib.Path,
    description: str,
) -> None:
    """Writes <condition>/<task>.jsonl (each prediction) and <condition>/<task>.json (rates).

    Tasks whose rates are already in `output_dir` are skipped. On many processes all answer
    together, and one writes.

    Args:
      read: gives the rows of a registered task.
      tasks: (registered name, task, condition) of each.
      description: of the progress bar.
    """
    places = [output_dir / condition / f"{task}.json" for _, task, condition in tasks]
    done = distributed.broadcast_from_main(lambda: [path.exists() for path in places])
    left = [triple for triple in zip(tasks, places, done, strict=True) if not triple[-1]]
    for (name, task, _), path, _ in progress.bar(left, desc=description, unit="task"):
        examples = read(name)
        rows, predictions, scores = model.answer(task, examples)
        if distributed.is_main():
            rates = examples.rates(predictions, scores)
            artifacts.write_jsonl(path.with_suffix(".jsonl"), rows)
            artifacts.write_atomically(path, artifacts.canonical_json(rates))
