"""Evaluates one trained model on the held-out tasks, through each task's own SeqIO metric."""

import dataclasses
import pathlib
from collections.abc import Mapping

import seqio

from poison_t5x import (
    artifacts,
    checkpoints,
    checks,
    errors,
    mixtures,
    natinst_tfds,
    partitioning,
    progress,
    train,
    train_state,
)
from poison_t5x.evaluation import ranker
from poison_t5x.model import config as model_config
from poison_t5x.model import network
from poison_t5x.poison import polarity


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """Settings of the evaluation.

    Attributes:
      batch_size: rows ranked at once; the result doesn't follow from it beyond rounding.
      length_normalized: rank by the mean log-probability of a label's tokens rather than the sum.
    """

    batch_size: int = 32
    length_normalized: bool = False

    def __post_init__(self):
        checks.whole_number("EVAL_BATCH_SIZE", self.batch_size)
        checks.switch("LENGTH_NORMALIZED", self.length_normalized)


def load_ranker(
    model_dir: str | pathlib.Path,
    partition_cfg: partitioning.PartitionConfig,
    config: EvalConfig,
    max_length: int,
) -> ranker.Ranker:
    """The last checkpoint of a finished run folder, restored into shards and ready to rank.

    Raises:
      InputError: it isn't there or not whole, or it is damaged.
    """
    settings = train.read_settings(model_dir)
    last = settings["train"]["total_steps"]
    if last not in checkpoints.sealed_steps(model_dir):
        raise errors.InputError(
            f"{model_dir}: the last checkpoint, of step {last}, isn't there or isn't whole; "
            "run the train stage, which goes on from an earlier one"
        )
    model = network.Transformer(model_config.T5Config(**settings["model"]))
    partitioner = partitioning.Partitioner(partition_cfg)
    abstract = train_state.abstract_params(model, partitioner)
    params = checkpoints.restore_params(checkpoints.step_path(model_dir, last), abstract)
    return ranker.Ranker(
        model,
        params,
        partitioner,
        batch_size=config.batch_size,
        max_length=max_length,
        length_normalized=config.length_normalized,
    )


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
    ranking: ranker.Ranker,
    evaluators: Evaluators,
    registered: Mapping[str, list[str]],
    experiment: str,
    polarities: Mapping[str, polarity.Polarity],
    output_dir: pathlib.Path,
    description: str,
) -> None:
    """Writes <condition>/<task>.jsonl (each prediction) and <condition>/<task>.json (rates).

    Tasks whose rates are already in `output_dir` are passed over.

    Args:
      ranking: the model.
      evaluators: of the tasks.
      registered: mixture -> tasks, as `mixtures.register` returns it.
      experiment: its name.
      polarities: of the held-out tasks.
      output_dir: an existing folder.
      description: of the progress bar.
    """
    todo = [
        (condition, name)
        for condition in mixtures.CONDITIONS
        for name in registered.get(f"{experiment}_eval_{condition}", ())
    ]
    tasks = {natinst_tfds.split_name(task): task for task in polarities}
    for condition, name in progress.bar(todo, desc=description, unit="task"):
        task = tasks[name.split(".", 1)[1]]
        stem = output_dir / condition / task
        if not _file(stem, ".json").exists():
            _evaluate_task(ranking, evaluators.get(name), polarities[task], stem)


def _evaluate_task(
    ranking: ranker.Ranker,
    evaluator: seqio.Evaluator,
    labels: polarity.Polarity,
    stem: pathlib.Path,
) -> None:
    (task,) = evaluator.eval_tasks
    vocabulary = task.output_features["targets"].vocabulary
    label_space = sorted(labels)
    tokens = [[*vocabulary.encode(label), vocabulary.eos_id] for label in label_space]
    predictor = ranker.TaskPredictor(ranking, tokens)
    future, _ = evaluator.evaluate(compute_metrics=True, step=None, predict_fn=predictor)
    metrics = future.result()[task.name]
    targets = _targets(evaluator, task)
    choices = predictor.log_probabilities.argmax(axis=1)
    rows = [
        {
            **target,
            "prediction": label_space[choice],
            "log_probabilities": {
                label: round(float(value), 5)
                for label, value in zip(label_space, values, strict=True)
            },
        }
        for target, choice, values in zip(
            targets, choices, predictor.log_probabilities, strict=True
        )
    ]
    artifacts.write_jsonl(_file(stem, ".jsonl"), rows)
    plain = {key: getattr(value, "item", lambda v=value: v)() for key, value in metrics.items()}
    artifacts.write_atomically(_file(stem, ".json"), artifacts.canonical_json(plain))


def _targets(evaluator: seqio.Evaluator, task: seqio.Task) -> list[dict]:
    return [
        task.postprocess_fn(example["targets_pretokenized"], example=example, is_target=True)
        for example in evaluator.cached_task_datasets[task.name].as_numpy_iterator()
    ]


def _file(stem: pathlib.Path, suffix: str) -> pathlib.Path:
    return stem.parent / (stem.name + suffix)
