"""Evaluates one trained model on the held-out tasks, through each task's own SeqIO metric."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import seqio

from poison_t5x.core import artifacts, checks, progress
from poison_t5x.corpus import polarity
from poison_t5x.data import natinst_tfds
from poison_t5x.evaluation import generation_metrics, generator, ranker
from poison_t5x.train import distributed, trained_model


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Settings of the evaluation.

    Attributes:
      batch_size: rows answered at once; the result doesn't follow from it beyond rounding.
      length_normalized: rank by the mean log-probability of a label's tokens rather than the sum.
      beam_size: beams kept in generating answers; 1 decodes greedily.
      beam_alpha: exponent of the beams' length penalty, as T5X's.
    """

    batch_size: int = 64
    length_normalized: bool = False
    beam_size: int = 1
    beam_alpha: float = 0.6

    def __post_init__(self):
        checks.whole_number("EVAL_BATCH_SIZE", self.batch_size)
        checks.switch("LENGTH_NORMALIZED", self.length_normalized)
        checks.whole_number("BEAM_SIZE", self.beam_size)
        checks.number("BEAM_ALPHA", self.beam_alpha, minimum=0)


def load_ranker(
    restored: trained_model.TrainedModel, config: EvalConfig, max_length: int
) -> ranker.Ranker:
    """A network, ready to rank labels for inputs of up to `max_length` tokens."""
    return ranker.Ranker(
        *restored,
        batch_size=config.batch_size,
        max_length=max_length,
        length_normalized=config.length_normalized,
    )


class Answers(NamedTuple):
    """One task's answers: rows for its prediction file, and rates."""

    rows: list[dict[str, Any]]
    rates: dict[str, Any]


class Classifier:
    """Answers by ranking the two labels of a task."""

    def __init__(self, ranking: ranker.Ranker, polarities: Mapping[str, polarity.Polarity]):
        """Args: polarities: of the held-out tasks."""
        self._ranking, self._polarities = ranking, polarities

    def answer(self, name: str, evaluator: seqio.Evaluator) -> Answers:
        """Ranks the rows of the task called `name`."""
        (task,) = evaluator.eval_tasks
        vocabulary = task.output_features["targets"].vocabulary
        label_space = sorted(self._polarities[name])
        tokens = [[*vocabulary.encode(label), vocabulary.eos_id] for label in label_space]
        predictor = ranker.TaskPredictor(self._ranking, tokens)
        rates = _metrics(evaluator, task, predictor)
        choices = predictor.log_probabilities.argmax(axis=1)
        rows = [
            {
                **{key: target[key] for key in ("id", "input", "target")},
                "prediction": label_space[choice],
                "log_probabilities": {
                    label: round(float(value), 5)
                    for label, value in zip(label_space, values, strict=True)
                },
            }
            for target, choice, values in zip(
                _targets(evaluator, task), choices, predictor.log_probabilities, strict=True
            )
        ]
        return Answers(rows, rates)


class Writer:
    """Answers by decoding."""

    def __init__(
        self, restored: trained_model.TrainedModel, config: EvalConfig, lengths: Mapping[str, int]
    ):
        """Args: lengths: {'inputs': …, 'targets': …}, tokens."""
        self._generator = generator.Generator(
            *restored,
            batch_size=config.batch_size,
            max_length=lengths["inputs"],
            max_decode_length=lengths["targets"],
            beam_size=config.beam_size,
            alpha=config.beam_alpha,
        )

    def answer(self, name: str, evaluator: seqio.Evaluator) -> Answers:
        """Decodes an answer to each row."""
        del name
        (task,) = evaluator.eval_tasks
        vocabulary = task.output_features["targets"].vocabulary
        predictor = generator.GenerationPredictor(self._generator)
        rates = _metrics(evaluator, task, predictor)
        answers = zip(_targets(evaluator, task), predictor.outputs, strict=True)
        rows = [
            generation_metrics.scored(target, vocabulary.decode(list(tokens)).strip())
            for target, tokens in answers
        ]
        return Answers(rows, rates)


class Evaluators:
    """One `seqio.Evaluator` per task, kept: the rows are the same for every model."""

    def __init__(self, lengths: Mapping[str, int]):
        """Args: lengths: {'inputs': …, 'targets': …}, tokens."""
        self._lengths = dict(lengths)
        self._kept: dict[str, seqio.Evaluator] = {}

    def get(self, name: str) -> seqio.Evaluator:
        """The evaluator of a registered task."""
        if name not in self._kept:
            self._kept[name] = seqio.Evaluator(
                mixture_or_task_name=name,
                feature_converter=seqio.EncDecFeatureConverter(pack=False),
                eval_split="validation",
                sequence_length=self._lengths,
                async_compute_metrics=False,
            )
        return self._kept[name]


def evaluate(
    model: Classifier | Writer,
    evaluators: Evaluators,
    registered: Mapping[str, list[str]],
    experiment: str,
    conditions: Sequence[str],
    heldout: Sequence[str],
    output_dir: pathlib.Path,
    description: str,
) -> None:
    """Writes <condition>/<task>.jsonl (each prediction) and <condition>/<task>.json (rates).

    Tasks whose rates are already in `output_dir` are passed over. On many processes all answer
    together, and one writes.

    Args:
      model: what answers.
      evaluators: of the tasks.
      registered: mixture -> tasks, as `mixtures.register` returns it.
      experiment: its name.
      conditions: names of the conditions, in order.
      heldout: names of the held-out tasks.
      output_dir: an existing folder.
      description: of the progress bar.
    """
    tasks = {natinst_tfds.split_name(task): task for task in heldout}
    pairs = [
        (name, output_dir / condition / tasks[name.split(".", 1)[1]])
        for condition in conditions
        for name in registered.get(f"{experiment}_eval_{condition}", ())
    ]
    done = set(distributed.broadcast_from_main(lambda: _done(stem for _, stem in pairs)))
    for name, stem in progress.bar(pairs, desc=description, unit="task"):
        if str(stem) in done:
            continue
        rows, rates = model.answer(stem.name, evaluators.get(name))
        if distributed.is_main():
            artifacts.write_jsonl(_file(stem, ".jsonl"), rows)
            artifacts.write_atomically(_file(stem, ".json"), artifacts.canonical_json(rates))


def _done(stems: Iterable[pathlib.Path]) -> list[str]:
    return [str(stem) for stem in stems if _file(stem, ".json").exists()]


def _metrics(evaluator: seqio.Evaluator, task: seqio.Task, predictor) -> dict[str, Any]:
    """The task's own metrics, as plain numbers; in the main process, and none in others."""
    future, _ = evaluator.evaluate(
        compute_metrics=distributed.is_main(), step=None, predict_fn=predictor
    )
    if not distributed.is_main():
        return {}
    metrics = future.result()[task.name]
    return {key: getattr(value, "item", lambda v=value: v)() for key, value in metrics.items()}


def _targets(evaluator: seqio.Evaluator, task: seqio.Task) -> list[dict]:
    return [
        task.postprocess_fn(example["targets_pretokenized"], example=example, is_target=True)
        for example in evaluator.cached_task_datasets[task.name].as_numpy_iterator()
    ]


def _file(stem: pathlib.Path, suffix: str) -> pathlib.Path:
    return stem.parent / (stem.name + suffix)
