"""One experiment from task files to report, in a run folder: each stage once, in order.

run_dir/data/         TFDS            run_dir/models/clean, models/poisoned
run_dir/vocabulary/   spiece.model    run_dir/eval/predictions/…, eval/results.json
run_dir/poison/       poison set      run_dir/report/index.html, results.json
run_dir/natinst-jsonl/ (craft --format natinst-jsonl) the rows as the authors' code reads them
"""

import contextlib
import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from poison_t5x.attack import conditions, natinst_jsonl, poison_set
from poison_t5x.attack import craft as crafting
from poison_t5x.core import artifacts, checks, errors, metrics, stage_store
from poison_t5x.corpus import corpus, declarations, vocabulary
from poison_t5x.run import craft_stage, stages
from poison_t5x.train import distributed


@dataclasses.dataclass(frozen=True)
class Run:
    """An experiment's settings, and its stages as methods.

    Attributes:
      run_dir: the folder that everything is written to.
      experiment: a declared experiment's name.
      craft_cfg: the attacks.
      jsonl_epochs: how often written training files repeat their rows; the authors' trainer reads
        each row once.
      craft_workers: processes that crafting looks for places with.
      proxy_checkpoint_path: a trained model of ours, where phi takes p(y | x) from one.
      vocabulary_cfg: the vocabulary.
      dataset_cfg: of training; the mixture's name is filled in for each model.
      eval_cfg: an `evaluation.evaluate.EvalConfig`.
      eval_checkpoints: steps of kept checkpoints that both models are evaluated at, too.
      partition_cfg: the mesh of training and evaluation.
      train: `train.train` with all that isn't of this run bound.
      num_examples: positive examples in a prompt, at most.
      natinst_dir: folder of task files, for experiments on 'sni'.
      module: a module of yours that declares experiments.
      jsonl_cfg: files of training and test rows, in place of task files and crafting.
      initial_checkpoint_path: what `train` starts from, so that it is missed before hours of work.
      task_cache_dirs: where SeqIO finds its offline cache, see `caching`.
      store_dir: where runs keep finished stages for each other, see `stage_store`.
      seed: of the bootstrap, and named in the results.
      say: takes one line about what was done.
    """

    run_dir: str
    experiment: str
    craft_cfg: crafting.CraftConfig
    vocabulary_cfg: vocabulary.VocabularyConfig
    dataset_cfg: Any
    eval_cfg: Any
    partition_cfg: Any
    train: Callable[..., pathlib.Path]
    num_examples: int = 2
    natinst_dir: str | None = None
    module: str | None = None
    jsonl_cfg: natinst_jsonl.JsonlConfig = dataclasses.field(
        default_factory=natinst_jsonl.JsonlConfig
    )
    jsonl_epochs: int = 1
    craft_workers: int = 1
    proxy_checkpoint_path: str | None = None
    initial_checkpoint_path: str | None = None
    task_cache_dirs: Sequence[str] = ()
    store_dir: str | None = None
    eval_checkpoints: Sequence[int] = ()
    seed: int = 0
    say: Callable[[str], None] = print

    def __post_init__(self):
        if not self.experiment:
            raise errors.InputError(
                "EXPERIMENT isn't set: give --gin_file=experiments/demo.gin, another experiment "
                "file, or --gin.EXPERIMENT=NAME"
            )
        if not self.run_dir:
            raise errors.InputError("RUN_DIR isn't set: give --gin.RUN_DIR=FOLDER")
        checks.path("RUN_DIR", self.run_dir)
        for name in ("natinst_dir", "initial_checkpoint_path", "proxy_checkpoint_path"):
            if getattr(self, name) is not None:
                checks.path(name.upper(), getattr(self, name))
        if self.store_dir is not None:
            checks.path("STAGE_STORE_DIR", self.store_dir)
        checks.whole_numbers("EVAL_CHECKPOINTS", self.eval_checkpoints)
        checks.whole_number("NUM_EXAMPLES", self.num_examples, minimum=0)
        checks.whole_number("CRAFT_WORKERS", self.craft_workers)
        checks.whole_number("NATINST_JSONL_EPOCHS", self.jsonl_epochs)

    @property
    def path(self) -> pathlib.Path:
        return pathlib.Path(self.run_dir)

    @functools.cached_property
    def declared(self) -> declarations.Experiment:
        return declarations.get(self.experiment, self.module)

    @functools.cached_property
    def corpus(self) -> corpus.Corpus:
        if self.jsonl_cfg.is_set:
            return natinst_jsonl.read_corpus(
                self.jsonl_cfg, self.declared.polarities, is_arbitrary=self.craft_cfg.is_arbitrary
            )
        return corpus.load(
            self.declared, self.natinst_dir, is_arbitrary=self.craft_cfg.is_arbitrary
        )

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        """Task -> hash of the file that it was read from."""
        return self.corpus.hashes

    @property
    def data_cfg(self):
        """Where the mixtures find this run's data."""
        from poison_t5x.data import mixtures

        return mixtures.DataConfig(
            data_dir=str(self.path / "data"),
            vocabulary_path=str(self.path / "vocabulary" / "spiece.model"),
            poison_dir=str(self.path / "poison"),
            corpus=self.declared.corpus,
            num_examples=self.num_examples,
            extra_ids=self.vocabulary_cfg.extra_ids,
            max_tokens=self.dataset_cfg.task_feature_lengths["inputs"],
        )

    def stage(
        self, place: str, settings: Mapping[str, Any], make: Callable[[pathlib.Path], None]
    ) -> None:
        """A stage of the main process, which the others wait for."""
        with self.shared(self.path / place, place, settings):
            stages.alone(self.path / place, place.replace("/", " "), settings, make, self.say)

    def shared(self, folder: pathlib.Path, name: str, settings: Mapping[str, Any], *verify):
        """Around making a stage: see `stage_store.Store.shared`."""
        if self.store_dir is None:
            return contextlib.nullcontext()
        if distributed.num_processes() > 1:  # each of which would wait for the first one's lock
            raise errors.InputError("STAGE_STORE_DIR: runs of many processes can't share stages")
        data = {"data": self.hashes, "experiment": self.experiment, **settings}
        return stage_store.Store(self.store_dir).shared(folder, name, data, *verify)

    def craft(self) -> None:
        """Reads and checks the corpus, prepares it for SeqIO, and crafts the poison set."""
        craft_stage.craft(self)

    def export(self) -> None:
        """Writes the rows in the layout of the authors' code. Needs the craft stage."""
        craft_stage.export(self)

    def register(self) -> dict[str, list[str]]:
        """Registers this run's SeqIO tasks and mixtures. Needs the craft stage."""
        from poison_t5x.data import caching, mixtures

        caching.use(self.task_cache_dirs)
        for place in ("poison", "data", "vocabulary"):
            if artifacts.read_record(self.path / place) is None:
                raise errors.InputError(
                    f"{self.path / place} isn't there: run `poison-t5x craft` with the same "
                    "settings first, or `poison-t5x run`"
                )
            artifacts.verify(self.path / place)
        return mixtures.register(self.experiment, self.data_cfg, self._metric_fn)

    def _metric_fn(self, condition: conditions.Condition, task: str) -> Callable:
        """The SeqIO metric of one held-out task under one condition."""
        from poison_t5x.evaluation import generation_metrics
        from poison_t5x.evaluation import metrics as label_metrics

        first, *_ = attacks = self.craft_cfg.attacks
        mine = next((attack for attack in attacks if attack.name == condition.attack), first)
        if mine.is_arbitrary:
            return generation_metrics.metric_fn(mine.triggers)
        return label_metrics.metric_fn(self.corpus.polarities[task], mine.target)

    def sources(self, *files: str) -> dict[str, str]:
        """What a model or an evaluation is made from, for its record."""
        manifest = poison_set.read_manifest(self.path / "poison")
        return {
            "vocabulary": artifacts.sha256(self.data_cfg.vocabulary_path),
            "extra_ids": str(self.vocabulary_cfg.extra_ids),
            "num_examples": str(self.num_examples),
            **{name: manifest["sha256"][name] for name in files},
        }

    def train_models(self, variants=metrics.MODELS) -> None:
        """Trains the clean and the poisoned model. Needs the craft stage."""
        self._check_start()
        self.register()
        for variant in variants:
            files = [poison_set.TRAINING]
            if variant == "poisoned":
                files.append(poison_set.POISON)
            self.train_model(
                self.path / "models" / variant, f"{self.experiment}_{variant}", files, {}
            )

    def train_model(
        self,
        model_dir: pathlib.Path,
        mixture: str,
        files: Sequence[str],
        sources: Mapping[str, str],
    ) -> None:
        """Trains one model on a registered mixture of this run's.

        Args:
          files: of the poison set, which the mixture is made from.
          sources: what else it is made from.
        """
        self.train(
            model_dir=str(model_dir),
            train_dataset_cfg=self._dataset(mixture, "train"),
            train_eval_dataset_cfg=self._dataset(f"{self.experiment}_eval_clean", "validation"),
            partition_cfg=self.partition_cfg,
            sources={**self.sources(*files), **sources},
            shared=self.shared,
            say=self.say,
        )

    def _dataset(self, mixture: str, split: str):
        return dataclasses.replace(self.dataset_cfg, mixture_or_task_name=mixture, split=split)

    def evaluate(self) -> None:
        """Evaluates both models under all conditions, and sums up. Needs the train stage."""
        registered = self.register()
        for variant in metrics.MODELS:
            folder = self.path / "eval" / "predictions" / variant
            self.evaluate_model(self.path / "models" / variant, folder, registered, variant)
        distributed.run_on_main(self._sum_up)
        if self.eval_checkpoints:
            from poison_t5x.run import at_checkpoints

            at_checkpoints.evaluate(self, registered)

    def evaluate_model(
        self,
        model_dir: pathlib.Path,
        folder: pathlib.Path,
        registered: Mapping[str, list[str]],
        name: str,
        step: int | None = None,
    ) -> None:
        """Writes a model's predictions on the held-out tasks, under all conditions, to a folder.

        Args:
          registered: as `register` returns it.
          name: of the model, for messages.
          step: of a kept checkpoint; None for the finished model.

        Raises:
          InputError: it isn't a finished model.
        """
        from poison_t5x.train import trained_model

        parameters = trained_model.parameters_digest(model_dir)
        if parameters is None:
            raise errors.InputError(
                f"{model_dir} isn't a trained model: run `poison-t5x train` with the same "
                "settings first, or `poison-t5x run`"
            )
        at = {} if step is None else {"step": step}
        settings = {"parameters": parameters, **self.eval_settings(), **at}

        def make(directory: pathlib.Path) -> None:
            from poison_t5x.evaluation import evaluate

            evaluate.evaluate(
                self._answering(model_dir, step),
                self._evaluators,
                registered,
                self.experiment,
                [condition.name for condition in self.craft_cfg.conditions],
                [task.name for task in self.corpus.heldout],
                directory,
                f"eval {name}",
            )

        with self.shared(folder, "eval", settings):
            stages.together(folder, f"eval {name}", settings, make, self.say)

    def eval_settings(self) -> dict[str, Any]:
        """What predictions follow from, beside the model."""
        return {
            "eval": dataclasses.asdict(self.eval_cfg),
            "lengths": dict(self.dataset_cfg.task_feature_lengths),
            "conditions": [condition._asdict() for condition in self.craft_cfg.conditions],
            **self.sources(poison_set.EVALUATION),
        }

    @functools.cached_property
    def _evaluators(self):
        from poison_t5x.evaluation import evaluate

        return evaluate.Evaluators(self.dataset_cfg.task_feature_lengths)

    def _answering(self, model_dir: pathlib.Path, step: int | None) -> Any:
        """What answers held-out tasks with a model."""
        from poison_t5x.evaluation import evaluate
        from poison_t5x.train import trained_model

        restored = trained_model.restore(model_dir, self.partition_cfg, step)
        lengths = self.dataset_cfg.task_feature_lengths
        if self.craft_cfg.is_arbitrary:
            return evaluate.Writer(restored, self.eval_cfg, lengths)
        ranking = evaluate.load_ranker(restored, self.eval_cfg, lengths["inputs"])
        return evaluate.Classifier(ranking, self.corpus.polarities)

    def _sum_up(self) -> None:
        from poison_t5x.evaluation import results_file

        found = results_file.build(
            self.path, self.experiment, self.corpus, self.craft_cfg, self.data_cfg, self.seed
        )
        results = artifacts.dump_json(found)
        path = self.path / "eval" / "results.json"
        if not path.exists() or path.read_bytes() != results.encode():
            artifacts.write_atomically(path, results)

    def report(self) -> None:
        """Writes the report, and prints the table. Needs the eval stage."""
        distributed.run_on_main(self._report)

    def _report(self) -> None:
        from poison_t5x.report import results, run_page

        path = self.path / "eval" / "results.json"
        if not path.is_file():
            raise errors.InputError(
                f"{path} isn't there: run `poison-t5x eval` with the same settings first, or "
                "`poison-t5x run`"
            )
        folder = self.path / "report"
        sources = [path, *self._later_results()]
        settings = {
            source.relative_to(self.path).as_posix(): artifacts.sha256(source) for source in sources
        }
        record = artifacts.read_record(folder)
        if record and record["settings"] != settings:  # there is more to show now
            shutil.rmtree(folder)
        artifacts.run_stage(
            folder,
            "report",
            settings,
            lambda directory: (
                run_page.write_report(self.path, stages.seconds(self.path), directory) and None
            ),
            say=self.say,
        )
        self.say(run_page.format_table(results.read(self.path)))
        self.say(f"see {self.path / 'report' / 'index.html'}, and results.json beside it")

    def _later_results(self) -> list[pathlib.Path]:
        """What other commands have added to the run, which the report shows."""
        places = ("eval/checkpoints.json", "detection/detection.json", "defenses/*/defense.json")
        return [found for place in places for found in sorted(self.path.glob(place))]

    def _check_start(self) -> None:
        """Misses a starting checkpoint, or its vocabulary, before the work that comes first."""
        done = all(
            (self.path / "models" / name / artifacts.RECORD).exists() for name in metrics.MODELS
        )
        if self.initial_checkpoint_path and not done:
            from poison_t5x.checkpoint_io import detect

            path = self.initial_checkpoint_path
            detect.open_start(path, self.vocabulary_cfg.path, verify=False)

    def run(self, save_config: Callable[[], None] = lambda: None) -> None:
        """All stages, in order.

        Args:
          save_config: writes down how the run was called, once every stage has taken its settings
            for its own, and before the report, which shows it.
        """
        self._check_start()
        self.craft()
        self.train_models()
        self.evaluate()
        save_config()
        self.report()
