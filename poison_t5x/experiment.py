"""One experiment from task files to report, in a run folder: each stage once, in order.

run_dir/data/         TFDS            run_dir/models/clean, models/poisoned
run_dir/vocabulary/   spiece.model    run_dir/eval/predictions/…, eval/results.json
run_dir/poison/       poison set      run_dir/report/index.html, results.json
run_dir/natinst-jsonl/ (craft --format natinst-jsonl) the rows as the authors' code reads them
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from poison_t5x import (
    artifacts,
    checks,
    corpus,
    declarations,
    distributed,
    errors,
    exchange,
    stages,
    vocabulary,
)
from poison_t5x.poison import conditions, poison_set
from poison_t5x.poison import craft as crafting

VARIANTS = ("clean", "poisoned")


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
      partition_cfg: the mesh of training and evaluation.
      train: `train.train` with all that isn't of this run bound.
      num_examples: positive examples in a prompt, at most.
      natinst_dir: folder of task files, for experiments on 'sni'.
      module: a module of yours that declares experiments.
      jsonl_cfg: files of training and test rows, in place of task files and crafting.
      initial_checkpoint_path: what `train` starts from, so that it is missed before hours of work.
      task_cache_dirs: where SeqIO finds its offline cache, see `caching`.
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
    jsonl_cfg: exchange.JsonlConfig = dataclasses.field(default_factory=exchange.JsonlConfig)
    jsonl_epochs: int = 1
    craft_workers: int = 1
    proxy_checkpoint_path: str | None = None
    initial_checkpoint_path: str | None = None
    task_cache_dirs: Sequence[str] = ()
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
            return exchange.read_corpus(
                self.jsonl_cfg, self.declared.polarities, is_arbitrary=self.craft_cfg.is_arbitrary
            )
        return corpus.load(
            self.declared, self.natinst_dir, is_arbitrary=self.craft_cfg.is_arbitrary
        )

    @functools.cached_property
    def _hashes(self) -> dict[str, str]:
        return self.corpus.hashes

    @property
    def data_cfg(self):
        """Where the mixtures find this run's data."""
        from poison_t5x import mixtures

        return mixtures.DataConfig(
            data_dir=str(self.path / "data"),
            vocabulary_path=str(self.path / "vocabulary" / "spiece.model"),
            poison_dir=str(self.path / "poison"),
            corpus=self.declared.corpus,
            num_examples=self.num_examples,
            extra_ids=self.vocabulary_cfg.extra_ids,
            max_tokens=self.dataset_cfg.task_feature_lengths["inputs"],
        )

    def _stage(
        self, place: str, settings: Mapping[str, Any], make: Callable[[pathlib.Path], None]
    ) -> None:
        """A stage of the main process, which the others wait for."""
        stages.alone(self.path / place, place.replace("/", " "), settings, make, self.say)

    def craft(self) -> None:
        """Reads and checks the corpus, prepares it for SeqIO, and crafts the poison set."""
        hashes = self._hashes
        settings = {
            "experiment": self.experiment,
            "craft": self.craft_cfg.settings(),
            "tasks": hashes,
            **self._craft_sources(),
        }
        parts = {
            "poison": (settings, self._write_poison),
            "data": ({"tasks": hashes}, self._prepare_data),
            "vocabulary": (
                vocabulary.settings(self.vocabulary_cfg, self.corpus.training, hashes),
                lambda directory: vocabulary.prepare(
                    self.vocabulary_cfg, self.corpus.training, directory
                ),
            ),
        }
        places = list(parts)
        if self._needs_language_model:  # which reads prompts
            places.insert(0, places.pop())
        for place in places:
            self._stage(place, *parts[place])

    def _craft_sources(self) -> dict[str, Any]:
        """What else the poison set is made from: files of rows, or a language model."""
        if self.jsonl_cfg.is_set:
            return {"jsonl": self.jsonl_cfg.hashes}
        if self._needs_language_model:
            from poison_t5x.evaluation import language_model_proxy

            return {"proxy": language_model_proxy.check(self.proxy_checkpoint_path)}
        return {}

    def _write_poison(self, directory: pathlib.Path) -> None:
        poison_set.write(directory, self._crafted(), self.craft_cfg, self._hashes)

    @property
    def _needs_language_model(self) -> bool:
        scores = (attack.score for attack in self.craft_cfg.attacks)
        return any(score.needs_probabilities and score.proxy == "lm" for score in scores)

    def _crafted(self) -> crafting.PoisonSet:
        found = self.corpus
        if self.jsonl_cfg.is_set:
            return exchange.read_poison_set(self.jsonl_cfg, found, self.craft_cfg)
        return crafting.craft(
            found.training,
            found.poisoned,
            found.heldout,
            found.polarities,
            self.craft_cfg,
            workers=self.craft_workers,
            language_model=self._language_model if self._needs_language_model else None,
        )

    def _language_model(self):
        if distributed.num_processes() > 1:  # all of which its mesh would wait for
            raise errors.InputError("PROXY='lm': run `poison-t5x craft` in a single process first")
        from poison_t5x import mixtures
        from poison_t5x.evaluation import language_model_proxy

        return language_model_proxy.LanguageModelProxy(
            self.proxy_checkpoint_path,
            mixtures.vocabulary(self.data_cfg),
            artifacts.sha256(self.data_cfg.vocabulary_path),
            self.corpus.polarities,
            self.partition_cfg,
            self.eval_cfg,
            max_tokens=self.data_cfg.max_tokens,
            num_examples=self.num_examples,
        )

    def export(self) -> None:
        """Writes the rows in the layout of the authors' code. Needs the craft stage."""
        poison_dir = self.path / "poison"
        settings = {"poison": artifacts.fingerprint(poison_dir), "epochs": self.jsonl_epochs}
        self._stage(
            "natinst-jsonl",
            settings,
            lambda directory: exchange.write(
                directory, self.corpus, poison_dir, epochs=self.jsonl_epochs
            ),
        )

    def _prepare_data(self, directory: pathlib.Path) -> None:
        from poison_t5x import natinst_tfds

        natinst_tfds.prepare(self.declared.corpus, self.corpus.tasks, directory)

    def register(self) -> dict[str, list[str]]:
        """Registers this run's SeqIO tasks and mixtures. Needs the craft stage."""
        from poison_t5x import caching, mixtures

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
        from poison_t5x.evaluation import generation_metrics, metrics

        first, *_ = attacks = self.craft_cfg.attacks
        mine = next((attack for attack in attacks if attack.name == condition.attack), first)
        if mine.is_arbitrary:
            return generation_metrics.metric_fn(mine.triggers)
        return metrics.metric_fn(self.corpus.polarities[task], mine.target)

    def _sources(self, *files: str) -> dict[str, str]:
        """What a model or an evaluation is made from, for its record."""
        manifest = poison_set.read_manifest(self.path / "poison")
        return {
            "vocabulary": artifacts.sha256(self.data_cfg.vocabulary_path),
            "extra_ids": str(self.vocabulary_cfg.extra_ids),
            "num_examples": str(self.num_examples),
            **{name: manifest["sha256"][name] for name in files},
        }

    def train_models(self, variants=VARIANTS) -> None:
        """Trains the clean and the poisoned model. Needs the craft stage."""
        self._check_start()
        self.register()
        for variant in variants:
            files = [poison_set.TRAINING]
            if variant == "poisoned":
                files.append(poison_set.POISON)
            mixture = f"{self.experiment}_{variant}"
            heldout = f"{self.experiment}_eval_clean"
            self.train(
                model_dir=str(self.path / "models" / variant),
                train_dataset_cfg=self._dataset(mixture, "train"),
                train_eval_dataset_cfg=self._dataset(heldout, "validation"),
                partition_cfg=self.partition_cfg,
                sources=self._sources(*files),
                say=self.say,
            )

    def _dataset(self, mixture: str, split: str):
        return dataclasses.replace(self.dataset_cfg, mixture_or_task_name=mixture, split=split)

    def evaluate(self) -> None:
        """Evaluates both models under all conditions, and sums up. Needs the train stage."""
        from poison_t5x import train
        from poison_t5x.evaluation import evaluate

        registered = self.register()
        evaluators = evaluate.Evaluators(self.dataset_cfg.task_feature_lengths)
        for variant in VARIANTS:
            model_dir = self.path / "models" / variant
            parameters = train.parameters_digest(model_dir)
            if parameters is None:
                raise errors.InputError(
                    f"{model_dir} isn't a trained model: run `poison-t5x train` with the same "
                    "settings first, or `poison-t5x run`"
                )
            settings = {
                "parameters": parameters,
                "eval": dataclasses.asdict(self.eval_cfg),
                "lengths": dict(self.dataset_cfg.task_feature_lengths),
                "conditions": [condition._asdict() for condition in self.craft_cfg.conditions],
                **self._sources(poison_set.EVALUATION),
            }
            make = functools.partial(self._evaluate_model, evaluators, registered, variant)
            folder = self.path / "eval" / "predictions" / variant
            stages.together(folder, f"eval {variant}", settings, make, self.say)
        distributed.main_first(self._sum_up)

    def _sum_up(self) -> None:
        from poison_t5x import results_file

        found = results_file.build(
            self.path, self.experiment, self.corpus, self.craft_cfg, self.data_cfg, self.seed
        )
        results = artifacts.dump_json(found)
        path = self.path / "eval" / "results.json"
        if not path.exists() or path.read_bytes() != results.encode():
            artifacts.write_atomically(path, results)

    def _evaluate_model(
        self,
        evaluators: Any,
        registered: Mapping[str, list[str]],
        variant: str,
        output_dir: pathlib.Path,
    ) -> None:
        from poison_t5x.evaluation import evaluate

        restored = evaluate.restore(self.path / "models" / variant, self.partition_cfg)
        lengths = self.dataset_cfg.task_feature_lengths
        model: Any
        if self.craft_cfg.is_arbitrary:
            model = evaluate.Writer(restored, self.eval_cfg, lengths)
        else:
            ranking = evaluate.load_ranker(restored, self.eval_cfg, lengths["inputs"])
            model = evaluate.Classifier(ranking, self.corpus.polarities)
        evaluate.evaluate(
            model,
            evaluators,
            registered,
            self.experiment,
            [condition.name for condition in self.craft_cfg.conditions],
            [task.name for task in self.corpus.heldout],
            output_dir,
            f"eval {variant}",
        )

    def report(self) -> None:
        """Writes the report, and prints the table. Needs the eval stage."""
        distributed.main_first(self._report)

    def _report(self) -> None:
        from poison_t5x.report import results, table, write

        path = self.path / "eval" / "results.json"
        if not path.is_file():
            raise errors.InputError(
                f"{path} isn't there: run `poison-t5x eval` with the same settings first, or "
                "`poison-t5x run`"
            )
        settings = {"results": artifacts.sha256(path)}
        self._stage(
            "report",
            settings,
            lambda directory: (
                write.write_report(self.path, stages.seconds(self.path), directory) and None
            ),
        )
        self.say(table.format_table(results.read(self.path)))
        self.say(f"see {self.path / 'report' / 'index.html'}, and results.json beside it")

    def _check_start(self) -> None:
        """Misses a starting checkpoint, or its vocabulary, before the work that comes first."""
        done = all((self.path / "models" / name / artifacts.RECORD).exists() for name in VARIANTS)
        if self.initial_checkpoint_path and not done:
            from poison_t5x.convert import detect

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
