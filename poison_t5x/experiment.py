"""One experiment from task files to report, in a run folder: each stage once, in order.

run_dir/data/         TFDS            run_dir/models/clean, models/poisoned
run_dir/vocabulary/   spiece.model    run_dir/eval/predictions/…, eval/results.json
run_dir/poison/       poison set      run_dir/report/index.html, results.json
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from poison_t5x import artifacts, checks, corpus, declarations, errors, vocabulary
from poison_t5x.poison import craft as crafting
from poison_t5x.poison import poison_set

VARIANTS = ("clean", "poisoned")
# From this share of a task's training rows on, poison is what the task teaches.
LARGE_SHARE = 0.5


@dataclasses.dataclass(frozen=True)
class VocabularyConfig:
    """Which vocabulary.

    Attributes:
      path: a SentencePiece model such as T5's; None trains one on the training tasks.
      size: pieces of a trained one, at most.
      extra_ids: sentinel ids after the vocabulary's own.
    """

    path: str | None = None
    size: int = 32000
    extra_ids: int = 100

    def __post_init__(self):
        if self.path is not None:
            vocabulary.check_is_file(self.path)
        checks.whole_number("VOCABULARY_SIZE", self.size)
        checks.whole_number("VOCABULARY_EXTRA_IDS", self.extra_ids, minimum=0)


@dataclasses.dataclass(frozen=True)
class Run:
    """An experiment's settings, and its stages as methods.

    Attributes:
      run_dir: the folder that everything is written to.
      experiment: a declared experiment's name.
      craft_cfg: the attack.
      vocabulary_cfg: the vocabulary.
      dataset_cfg: of training; the mixture's name is filled in for each model.
      eval_cfg: an `evaluation.evaluate.EvalConfig`.
      partition_cfg: the mesh of training and evaluation.
      train: `train.train` with all that isn't of this run bound.
      num_examples: positive examples in a prompt, at most.
      natinst_dir: folder of task files, for experiments on 'sni'.
      module: a module of yours that declares experiments.
      initial_checkpoint_path: what `train` starts from, so that it is missed before hours of work.
      seed: of the bootstrap, and named in the results.
      say: takes one line about what was done.
    """

    run_dir: str
    experiment: str
    craft_cfg: crafting.CraftConfig
    vocabulary_cfg: VocabularyConfig
    dataset_cfg: Any
    eval_cfg: Any
    partition_cfg: Any
    train: Callable[..., pathlib.Path]
    num_examples: int = 2
    natinst_dir: str | None = None
    module: str | None = None
    initial_checkpoint_path: str | None = None
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
        for name in ("natinst_dir", "initial_checkpoint_path"):
            if getattr(self, name) is not None:
                checks.path(name.upper(), getattr(self, name))
        checks.whole_number("NUM_EXAMPLES", self.num_examples, minimum=0)

    @property
    def path(self) -> pathlib.Path:
        return pathlib.Path(self.run_dir)

    @functools.cached_property
    def declared(self) -> declarations.Experiment:
        return declarations.get(self.experiment, self.module)

    @functools.cached_property
    def corpus(self) -> corpus.Corpus:
        return corpus.load(self.declared, self.natinst_dir)

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
        self, place: str, settings: Mapping[str, Any], make: Callable[[pathlib.Path], None], **kw
    ) -> bool:
        name = place.replace("predictions/", "").replace("/", " ")
        return artifacts.run_stage(self.path / place, name, settings, make, say=self.say, **kw)

    def craft(self) -> None:
        """Reads and checks the corpus, prepares it for SeqIO, and crafts the poison set."""
        hashes = self.corpus.hashes
        self._stage(
            "poison",
            {
                "experiment": self.experiment,
                "craft": dataclasses.asdict(self.craft_cfg),
                "tasks": hashes,
            },
            lambda directory: poison_set.write(directory, self._crafted(), self.craft_cfg, hashes),
        )
        self._stage("data", {"tasks": hashes}, self._prepare_data)
        self._stage("vocabulary", self._vocabulary_settings(hashes), self._prepare_vocabulary)

    def _crafted(self) -> crafting.PoisonSet:
        found = self.corpus
        return crafting.craft(
            found.training, found.poisoned, found.heldout, found.polarities, self.craft_cfg
        )

    def _prepare_data(self, directory: pathlib.Path) -> None:
        from poison_t5x import natinst_tfds

        natinst_tfds.prepare(self.declared.corpus, self.corpus.tasks, directory)

    def _vocabulary_settings(self, hashes: Mapping[str, str]) -> dict[str, Any]:
        config = self.vocabulary_cfg
        if config.path:
            return {"sha256": artifacts.sha256(config.path)}
        names = {task.name for task in self.corpus.training}
        return {
            "size": config.size,
            "tasks": {name: value for name, value in hashes.items() if name in names},
        }

    def _prepare_vocabulary(self, directory: pathlib.Path) -> None:
        path = directory / vocabulary.FILE
        if self.vocabulary_cfg.path:
            vocabulary.copy(self.vocabulary_cfg.path, path)
        else:
            vocabulary.train(vocabulary.texts(self.corpus.training), path, self.vocabulary_cfg.size)

    def register(self) -> dict[str, list[str]]:
        """Registers this run's SeqIO tasks and mixtures. Needs the craft stage."""
        from poison_t5x import mixtures
        from poison_t5x.evaluation import metrics

        for place in ("poison", "data", "vocabulary"):
            if artifacts.read_record(self.path / place) is None:
                raise errors.InputError(
                    f"{self.path / place} isn't there: run `poison-t5x craft` with the same "
                    "settings first, or `poison-t5x run`"
                )
            artifacts.verify(self.path / place)
        metric_fns = {
            task.name: metrics.metric_fn(self.corpus.polarities[task.name], self.craft_cfg.target)
            for task in self.corpus.heldout
        }
        return mixtures.register(self.experiment, self.data_cfg, metric_fns)

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
                "target": self.craft_cfg.target,
                **self._sources(poison_set.EVALUATION),
            }
            make = functools.partial(self._evaluate_model, evaluators, registered, variant)
            self._stage(f"eval/predictions/{variant}", settings, make, keep_partial=True)
        results = artifacts.dump_json(self._results())
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

        model_dir = self.path / "models" / variant
        max_length = self.dataset_cfg.task_feature_lengths["inputs"]
        evaluate.evaluate(
            evaluate.load_ranker(model_dir, self.partition_cfg, self.eval_cfg, max_length),
            evaluators,
            registered,
            self.experiment,
            self.corpus.polarities,
            output_dir,
            f"eval {variant}",
        )

    def _results(self) -> dict[str, Any]:
        from poison_t5x.evaluation import summary

        manifest = poison_set.read_manifest(self.path / "poison")
        rows = summary.task_rows(self.path / "eval" / "predictions")
        return {
            "schema": 1,
            "experiment": self.experiment,
            "trigger": self.craft_cfg.trigger,
            "control": self.craft_cfg.control,
            "seed": self.seed,
            "poison": {
                "count": manifest["num_poison"],
                "rate": manifest["poison_rate"],
                "tasks": manifest["poisoned_tasks"],
            },
            **summary.summarize(rows, self.seed),
            "tasks": rows,
            "seconds": {},
            "notes": self._notes(manifest),
            "truncation": self._audit(),
        }

    def _notes(self, manifest: Mapping[str, Any]) -> list[str]:
        from poison_t5x import train

        found = self.corpus
        notes = []
        settings = train.read_settings(self.path / "models" / "clean")
        if not settings["train"]["initial_checkpoint_path"]:
            notes.append("the models start from random parameters, not from a pretrained T5")
        for task, counts in manifest["counts"].items():
            share = counts.get("poison", 0) / counts.get("training_rows", 1)
            if share >= LARGE_SHARE:
                notes.append(f"{share:.0%} of the training rows of {task} are poison")
        if found.missing:
            notes.append(f"tasks not there and left out: {', '.join(found.missing)}")
        standins = [task.name for task in found.tasks if task.standin_note]
        if standins:
            notes.append(f"stand-in tasks, not the benchmark's own rows: {', '.join(standins)}")
        return notes

    def _audit(self) -> list[dict]:
        from poison_t5x import mixtures
        from poison_t5x.evaluation import audit

        vocab = mixtures.vocabulary(self.data_cfg)
        return audit.audit(
            self.data_cfg.poison_dir,
            self.corpus,
            {"triggered": self.craft_cfg.trigger, "control": self.craft_cfg.control},
            audit.Tokenizer(vocab.encode, vocab.decode),
            max_tokens=self.dataset_cfg.task_feature_lengths["inputs"],
            num_examples=self.num_examples,
        )

    def report(self) -> None:
        """Writes the report, and prints the table. Needs the eval stage."""
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
            lambda directory: write.write_report(self.path, self._seconds(), directory) and None,
        )
        self.say(table.format_table(results.read(self.path)))
        self.say(f"see {self.path / 'report' / 'index.html'}, and results.json beside it")

    def _seconds(self) -> dict[str, float]:
        places = {
            "poison": "craft",
            "data": "prepare data",
            "vocabulary": "prepare vocabulary",
            "models/clean": "train clean",
            "models/poisoned": "train poisoned",
            "eval/predictions/clean": "evaluate clean",
            "eval/predictions/poisoned": "evaluate poisoned",
        }
        records = {name: artifacts.read_record(self.path / place) for place, name in places.items()}
        return {name: record["seconds"] for name, record in records.items() if record}

    def run(self, save_config: Callable[[], None] = lambda: None) -> None:
        """All stages, in order.

        Args:
          save_config: writes down how the run was called, once every stage has taken its settings
            for its own, and before the report, which shows it.
        """
        start = self.initial_checkpoint_path
        done = all((self.path / "models" / name / artifacts.RECORD).exists() for name in VARIANTS)
        if start and not done and not pathlib.Path(start).exists():
            raise errors.InputError(f"INITIAL_CHECKPOINT_PATH: nothing is at {start}")
        self.craft()
        self.train_models()
        self.evaluate()
        save_config()
        self.report()
