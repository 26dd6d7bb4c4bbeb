"""The evaluation stage: a model's predictions on the held-out tasks under all conditions."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from poison_t5x.attack import craft
from poison_t5x.core import errors
from poison_t5x.corpus.corpus import Corpus
from poison_t5x.evaluation import evaluate
from poison_t5x.run.folder import RunFolder
from poison_t5x.train import checkpoints, shared_stages, trained_model
from poison_t5x.train.partitioning import PartitionConfig


@dataclasses.dataclass(frozen=True)
class EvalStage:
    """A run's evaluation; the rows of its tasks are read once for all models.

    Attributes:
      folder: of the run.
      experiment: its name.
      lengths: {'inputs': …, 'targets': …}, tokens.
      sources: hashes of the held-out rows and the vocabulary.
    """

    folder: RunFolder
    experiment: str
    corpus: Corpus
    craft_cfg: craft.CraftConfig
    eval_cfg: evaluate.EvalConfig
    partition_cfg: PartitionConfig
    lengths: Mapping[str, int]
    sources: Mapping[str, str]

    @property
    def settings(self) -> dict[str, Any]:
        """All that predictions follow from, beside the model."""
        return {
            "eval": dataclasses.asdict(self.eval_cfg),
            "lengths": dict(self.lengths),
            "conditions": [condition._asdict() for condition in self.craft_cfg.conditions],
            **self.sources,
        }

    def make(
        self,
        model_dir: epath.Path,
        directory: epath.Path,
        registered: Mapping[str, Sequence[str]],
        name: str,
        step: int | None = None,
    ) -> None:
        """Writes a model's predictions to a folder.

        Args:
          registered: mixture -> tasks, as `mixtures.register` returns it.
          name: of the model, for messages.
          step: of a kept checkpoint; None for the finished model.

        Raises:
          InputError: it isn't a finished model, or the step's checkpoint wasn't kept.
        """
        parameters = trained_model.parameters_digest(model_dir)
        if parameters is None:
            raise errors.InputError(
                f"{model_dir} isn't a trained model: run `poison-t5x train` with the same "
                "settings first, or `poison-t5x run`"
            )
        settings = {"parameters": parameters, **self.settings}
        name = f"eval {name}"
        if step is not None:
            _check_kept(model_dir, step)
            settings["step"] = step
            name = f"{name} at step {step}"
        tasks = {
            condition.name: registered.get(f"{self.experiment}_eval_{condition.name}", ())
            for condition in self.craft_cfg.conditions
        }
        heldout = [task.name for task in self.corpus.heldout]

        def write(partial: epath.Path) -> None:
            model = self._answering(model_dir, step)
            evaluate.evaluate(model, self._read, tasks, heldout, partial, name)

        with self.folder.making(directory, "eval", settings):
            shared_stages.together(directory, name, settings, write, self.folder.say)

    @functools.cached_property
    def _read(self):
        return functools.cache(lambda name: evaluate.read_examples(name, self.lengths))

    def _answering(
        self, model_dir: epath.Path, step: int | None
    ) -> evaluate.Classifier | evaluate.Writer:
        """A model, ready to answer held-out tasks."""
        trained = trained_model.restore(model_dir, self.partition_cfg, step)
        if self.craft_cfg.is_arbitrary:
            return evaluate.Writer(trained, self.eval_cfg, self.lengths)
        ranker = evaluate.load_ranker(trained, self.eval_cfg, self.lengths["inputs"])
        return evaluate.Classifier(ranker, self.corpus.polarities)

    def check(self) -> None:
        """Raises InputError where predictions were made with other settings."""
        for place in ("eval/predictions/*", "eval/checkpoints/*/*", "defenses/*/predictions"):
            for path in sorted(self.folder.path.glob(place)):
                self.folder.check(path, self.settings)


def _check_kept(model_dir: epath.Path, step: int) -> None:
    kept = checkpoints.committed_steps(model_dir)
    if step not in kept:
        raise errors.InputError(
            f"EVAL_CHECKPOINTS: {model_dir} has no whole checkpoint of step {step}; there "
            f"are {', '.join(map(str, kept))} (see SAVE_PERIOD and KEEP_CHECKPOINTS)"
        )
