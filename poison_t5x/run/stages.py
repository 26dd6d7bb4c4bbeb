"""A run's folder, whose stages are made once or taken from a store, and its evaluation stage."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from poison_t5x.attack.craft import CraftConfig
from poison_t5x.core import artifacts, errors, stage_store
from poison_t5x.corpus.corpus import Corpus
from poison_t5x.evaluation import evaluate
from poison_t5x.train import checkpoints, distributed, trained_model
from poison_t5x.train.partitioning import PartitionConfig


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run's folder: each stage is made by one set of settings.

    Attributes:
      store_dir: a folder of finished stages that runs share, see `stage_store`; None for none.
      key: gives what else two runs must have alike to share a stage.
      made: names of the stages that came here by this object, made or from the store.
    """

    path: epath.Path
    store_dir: epath.Path | None
    key: Callable[[], Mapping[str, Any]]
    log: Callable[[str], None]
    made: list[str] = dataclasses.field(default_factory=list)

    @contextlib.contextmanager
    def making(
        self, folder: epath.Path, name: str, settings: Mapping[str, Any], *verify: Callable
    ) -> Iterator[None]:
        """Around making a stage, which may come from the store; see `stage_store.Store.shared`."""
        before = artifacts.read_record(folder)
        shared: contextlib.AbstractContextManager = contextlib.nullcontext()
        if self.store_dir is not None:
            if distributed.num_processes() > 1:  # each of which would wait for the first one's lock
                raise errors.InputError(
                    "STAGE_STORE_DIR: runs of many processes can't share stages"
                )
            store = stage_store.Store(self.store_dir)
            shared = store.shared(folder, name, {**self.key(), **settings}, *verify, log=self.log)
        with shared:
            yield
        if artifacts.read_record(folder) != before:
            self.made.append(name)

    def stage(
        self,
        folder: epath.Path,
        name: str,
        settings: Mapping[str, Any],
        make: Callable[[epath.Path], None],
    ) -> None:
        """A stage of the main process, which the others wait for."""
        with self.making(folder, name, settings):
            distributed.run_on_main(
                lambda: artifacts.run_stage(folder, name, settings, make, log=self.log)
            )

    def record(self, place: str | epath.Path, value: Any) -> None:
        """Writes what follows from stages, as JSON, where it isn't there already."""
        path, text = self.path / place, artifacts.dump_json(value)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            artifacts.write_atomically(path, text)
            self.made.append(str(place))

    def check(self, place: str | epath.Path, settings: Mapping[str, Any]) -> None:
        """Raises InputError where a stage that is there was made with other settings."""
        record = artifacts.read_record(self.path / place)
        if record is not None:
            old = {key: record["settings"].get(key) for key in settings}
            artifacts.check_settings(self.path / place, old, settings)


@dataclasses.dataclass(frozen=True)
class EvalStage:
    """Predictions of a run's models; the rows of the held-out tasks are read once for all.

    Attributes:
      experiment: its name.
      lengths: {'inputs': …, 'targets': …}, tokens.
      sources: hashes of the held-out rows and the vocabulary.
    """

    folder: RunFolder
    experiment: str
    corpus: Corpus
    craft_cfg: CraftConfig
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
            kept = checkpoints.committed_steps(model_dir)
            if step not in kept:
                raise errors.InputError(
                    f"EVAL_CHECKPOINTS: {model_dir} has no whole checkpoint of step {step}; there "
                    f"are {', '.join(map(str, kept))} (see SAVE_PERIOD and KEEP_CHECKPOINTS)"
                )
            settings["step"] = step
            name = f"{name} at step {step}"
        tasks = {
            condition.name: registered.get(f"{self.experiment}_eval_{condition.name}", ())
            for condition in self.craft_cfg.conditions
        }
        heldout = [task.name for task in self.corpus.heldout]

        def write(partial: epath.Path) -> None:
            trained = trained_model.restore(model_dir, self.partition_cfg, step)
            labels = None if self.craft_cfg.is_arbitrary else self.corpus.polarities
            model = evaluate.Answering(trained, self.eval_cfg, self.lengths, labels)
            evaluate.evaluate(model, self._read, tasks, heldout, partial, name)

        with self.folder.making(directory, "eval", settings):
            distributed.run_stage(directory, name, settings, write, self.folder.log)

    @functools.cached_property
    def _read(self) -> Callable[[str], evaluate.Examples]:
        return functools.cache(lambda name: evaluate.read_examples(name, self.lengths))

    def check(self) -> None:
        """Raises InputError where predictions were made with other settings."""
        for place in ("eval/predictions/*", "eval/checkpoints/*/*", "defenses/*/predictions"):
            for path in sorted(self.folder.path.glob(place)):
                self.folder.check(path, self.settings)
