"""One experiment from task files to report, in a run folder: each stage once, in order.

run_dir/data/         TFDS            run_dir/models/clean, models/poisoned
run_dir/vocabulary/   spiece.model    run_dir/eval/predictions/…, eval/results.json
run_dir/poison/       poison set      run_dir/report/index.html, results.json
run_dir/natinst-jsonl/ (craft --format natinst-jsonl) the rows as the authors' code reads them
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from etils import epath

from poison_t5x.attack import conditions, natinst_jsonl, natinst_reading, poison_set
from poison_t5x.attack import craft as crafting
from poison_t5x.checkpoint_io import detect
from poison_t5x.core import artifacts, errors, metrics, settings
from poison_t5x.corpus import corpus, declarations, vocabulary
from poison_t5x.data import caching, input_pipeline, mixtures, natinst_tfds
from poison_t5x.evaluation import evaluate, language_model_proxy, metric, results_file
from poison_t5x.run.stages import RunFolder
from poison_t5x.train import distributed, partitioning, trained_model

# All that a folder follows from, and a function that fills it.
_Part = tuple[Mapping[str, Any], Callable[[epath.Path], None]]
_NO_FILES = natinst_jsonl.JsonlConfig()


@dataclasses.dataclass(frozen=True)
class Run(settings.Settings):
    """An experiment's settings, and its stages as methods.

    runs/run.gin says what its macros are. `train` is `train.train` with all bound that isn't of
    this run, and a mixture's name in `dataset_cfg` is filled in for each model.
    `initial_checkpoint_path` is `train`'s, here too so that it is missed before hours of work.
    """

    run_dir: settings.Folder
    experiment: str
    craft_cfg: crafting.CraftConfig
    vocabulary_cfg: vocabulary.VocabularyConfig
    dataset_cfg: input_pipeline.DatasetConfig
    eval_cfg: evaluate.EvalConfig
    partition_cfg: partitioning.PartitionConfig
    train: Callable[..., Any]
    num_examples: settings.Whole = 2
    natinst_dir: settings.Path | None = None
    module: settings.Module | None = None
    jsonl_cfg: natinst_jsonl.JsonlConfig = _NO_FILES
    jsonl_epochs: settings.Few = 1
    craft_workers: settings.Few = 1
    proxy_checkpoint_path: settings.Path | None = None
    initial_checkpoint_path: settings.Source | None = None
    task_cache_dirs: Sequence[settings.Source] = ()
    store_dir: settings.Folder | None = None
    eval_checkpoints: Sequence[settings.Count] = ()
    seed: settings.Whole = 0
    log: Callable[[str], None] = print

    @functools.cached_property
    def folder(self) -> RunFolder:
        return RunFolder(
            epath.Path(self.run_dir),
            epath.Path(self.store_dir) if self.store_dir else None,
            lambda: {"data": self._hashes, "experiment": self.experiment},
            self.log,
        )

    @property
    def path(self) -> epath.Path:
        return self.folder.path

    @functools.cached_property
    def declared(self) -> declarations.Experiment:
        return declarations.get(self.experiment, self.module)

    @functools.cached_property
    def corpus(self) -> corpus.Corpus:
        options = {"is_arbitrary": self.craft_cfg.is_arbitrary}
        if self.jsonl_cfg.is_set:
            polarities = self.declared.polarities
            return natinst_reading.read_corpus(self.jsonl_cfg, polarities, **options)
        return corpus.load(self.declared, self.natinst_dir, **options)

    @functools.cached_property
    def _hashes(self) -> dict[str, str]:
        """Task -> SHA-256; kept, since all rows go into them."""
        return self.corpus.hashes

    @property
    def kind(self) -> metrics.Kind:
        return "generation" if self.craft_cfg.is_arbitrary else "classification"

    @property
    def data_cfg(self) -> mixtures.DataConfig:
        """The places of this run's data, for its mixtures."""
        return mixtures.DataConfig(
            data_dir=str(self.path / "data"),
            vocabulary_path=str(self.path / "vocabulary" / "spiece.model"),
            poison_dir=str(self.path / "poison"),
            corpus=self.declared.corpus,
            num_examples=self.num_examples,
            extra_ids=self.vocabulary_cfg.extra_ids,
            max_tokens=self._lengths["inputs"],
        )

    def check(self, *, defending: bool = False) -> None:
        """Raises InputError where a stage that is there was made with other settings than these.

        Those of the models alone don't count in defending, since a defended one may differ.
        """
        for place, (made_from, _) in self._parts.items():
            self.folder.check(place, made_from)
        if any(artifacts.read_record(self.path / place) is None for place in self._parts):
            return
        self.folder.check("natinst-jsonl", self._export_settings())
        for place in ("eval/predictions/*", "eval/checkpoints/*/*", "defenses/*/predictions"):
            for path in sorted(self.path.glob(place)):
                self.folder.check(path, self._eval_settings)
        models = [name for name in metrics.MODELS if (self.path / "models" / name).exists()]
        if models and not defending:
            self.register()
            for name in models:
                self._train(name, check_only=True)

    @functools.cached_property
    def _parts(self) -> dict[str, _Part]:
        """Place -> part of the craft stage, in the order in which they are made."""
        hashes, digest = self._hashes, None
        scores = [attack.score for attack in self.craft_cfg.attacks]
        needs_model = any(one.needs_probabilities and one.proxy == "lm" for one in scores)
        if needs_model and not self.jsonl_cfg.is_set:
            digest = trained_model.finished_digest(
                self.proxy_checkpoint_path, "PROXY='lm': PROXY_CHECKPOINT_PATH: "
            )
        settings = {
            "experiment": self.experiment,
            "craft": self.craft_cfg.settings(),
            "tasks": hashes,
            **({"jsonl": self.jsonl_cfg.hashes} if self.jsonl_cfg.is_set else {}),
            **({"proxy": digest} if digest else {}),
        }
        poison = {"poison": (settings, self._write_poison)}
        name, tasks, words = self.declared.corpus, self.corpus.tasks, self.corpus.training
        prepare = functools.partial(natinst_tfds.prepare, name, tasks)
        train = functools.partial(vocabulary.prepare, self.vocabulary_cfg, words)
        prepared: dict[str, _Part] = {
            "data": ({"tasks": hashes}, prepare),
            "vocabulary": (vocabulary.settings(self.vocabulary_cfg, words, hashes), train),
        }
        # A language model reads prompts, and so needs the vocabulary.
        return prepared | poison if digest else poison | prepared

    def _write_poison(self, directory: epath.Path) -> None:
        tasks = self.corpus
        if self.jsonl_cfg.is_set:
            made = natinst_reading.read_poison_set(self.jsonl_cfg, tasks, self.craft_cfg)
        else:
            made = crafting.craft(
                *(tasks.training, tasks.poisoned, tasks.heldout, tasks.polarities, self.craft_cfg),
                workers=self.craft_workers,
                language_model=self._language_model,
            )
        poison_set.write(directory, made, self.craft_cfg, self._hashes)

    def _language_model(self) -> language_model_proxy.LanguageModelProxy:
        if distributed.num_processes() > 1:  # all of which its mesh would wait for
            raise errors.InputError("PROXY='lm': run `poison-t5x craft` in a single process first")
        return language_model_proxy.LanguageModelProxy(
            *(self.proxy_checkpoint_path, self.data_cfg, self.corpus.polarities),
            *(self.partition_cfg, self.eval_cfg),
        )

    def craft(self) -> None:
        """Reads and checks the corpus, prepares it for SeqIO, and crafts the poison set."""
        for place, part in self._parts.items():
            self.folder.stage(self.path / place, place, *part)

    def export(self) -> None:
        """Writes the rows in the layout of the authors' code. Needs the craft stage."""
        name, rows, epochs = "natinst-jsonl", (self.corpus, self.path / "poison"), self.jsonl_epochs
        self.folder.stage(
            *(self.path / name, name, self._export_settings()),
            lambda directory: natinst_jsonl.write(directory, *rows, epochs=epochs),
        )

    def _export_settings(self) -> dict[str, Any]:
        poison = artifacts.fingerprint(self.path / "poison")
        return {"poison": poison, "epochs": self.jsonl_epochs}

    def register(self) -> dict[str, list[str]]:
        """Registers this run's SeqIO tasks and mixtures. Needs the craft stage."""
        caching.use(self.task_cache_dirs)
        _ = self._verified  # once, though each stage registers: it hashes all data
        return mixtures.register(self.experiment, self.data_cfg, self._metric_fns)

    @functools.cached_property
    def _verified(self) -> None:
        for place in ("poison", "data", "vocabulary"):
            if artifacts.read_record(self.path / place) is None:
                raise errors.InputError(
                    f"{self.path / place} isn't there: run `poison-t5x craft` with the same "
                    "settings first, or `poison-t5x run`"
                )
            artifacts.verify(self.path / place)

    def _metric_fns(self, condition: conditions.Condition, task: str) -> list[Callable]:
        """The SeqIO metrics of one held-out task under one condition."""
        attacks = self.craft_cfg.attacks
        mine = next((one for one in attacks if one.name == condition.attack), attacks[0])
        label = None if mine.is_arbitrary else self.corpus.polarities[task].label(mine.target)
        wanted = metric.Attack(mine.triggers, label)
        return metric.seqio_metrics(self.kind, self.eval_cfg.metrics, wanted)

    def sources(self, *files: str) -> dict[str, str]:
        """Hashes of a model's or an evaluation's sources, for its record."""
        manifest = poison_set.read_manifest(self.path / "poison")
        return {
            "vocabulary": artifacts.sha256(self.data_cfg.vocabulary_path),
            "extra_ids": str(self.vocabulary_cfg.extra_ids),
            "num_examples": str(self.num_examples),
            **{name: manifest.sha256[name] for name in files},
        }

    def train_models(self) -> None:
        """Trains the clean and the poisoned model. Needs the craft stage."""
        self._check_start()
        self.register()
        for name in metrics.MODELS:
            self._train(name)

    def _check_start(self) -> None:
        """Raises where a starting checkpoint, or its vocabulary, is missing, before any work."""
        models = (self.path / "models" / name for name in metrics.MODELS)
        if self.initial_checkpoint_path and not all(map(artifacts.read_record, models)):
            detect.open_start(self.initial_checkpoint_path, self.vocabulary_cfg.path, verify=False)

    def _train(self, name: str, **options: Any) -> None:
        files = [poison_set.TRAINING, *[poison_set.POISON] * (name == metrics.POISONED)]
        model_dir = self.path / "models" / name
        self.train_model(model_dir, f"{self.experiment}_{name}", files, **options)

    def train_model(
        self,
        model_dir: epath.Path,
        mixture: str,
        files: Sequence[str],
        sources: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        """Trains one model on a registered mixture of this run's.

        Args:
          files: of the poison set, which the mixture is made from.
          sources: hashes of all else that it is made from.
          options: further arguments of `train.train`.
        """
        clean = f"{self.experiment}_eval_clean"
        dataset = functools.partial(dataclasses.replace, self.dataset_cfg)
        self.train(
            model_dir=str(model_dir),
            train_dataset_cfg=dataset(mixture_or_task_name=mixture, split="train"),
            train_eval_dataset_cfg=dataset(mixture_or_task_name=clean, split="validation"),
            partition_cfg=self.partition_cfg,
            sources={**self.sources(*files), **(sources or {})},
            shared=self.folder.making,
            log=self.log,
            **options,
        )

    @functools.cached_property
    def _eval_settings(self) -> dict[str, Any]:
        """All that predictions follow from, beside the model."""
        return {
            "eval": dataclasses.asdict(self.eval_cfg),
            "lengths": dict(self._lengths),
            "conditions": list(map(msgspec.structs.asdict, self.craft_cfg.conditions)),
            **self.sources(poison_set.EVALUATION),
        }

    @functools.cached_property
    def _read(self) -> Callable[[str], evaluate.Examples]:
        """Reads the rows of a held-out task, once for all models."""
        return functools.cache(functools.partial(evaluate.read_examples, lengths=self._lengths))

    @property
    def _lengths(self) -> Mapping[str, int]:
        return self.dataset_cfg.task_feature_lengths

    def evaluate_model(
        self,
        model_dir: epath.Path,
        directory: epath.Path,
        registered: Mapping[str, Sequence[str]],
        name: str,
        step: int | None = None,
    ) -> None:
        """Writes a model's predictions to a folder. Needs the craft stage.

        Raises InputError where it isn't a finished model, or the step's checkpoint wasn't kept.

        Args:
          registered: mixture -> tasks, as `register` returns it.
          name: of the model, for messages.
          step: of a kept checkpoint; None for the finished model.
        """
        parameters = trained_model.finished_digest(model_dir)
        settings, name = {"parameters": parameters, **self._eval_settings}, f"eval {name}"
        if step is not None:
            trained_model.kept_steps(model_dir, [step], "EVAL_CHECKPOINTS")
            settings["step"], name = step, f"{name} at step {step}"
        heldout = {natinst_tfds.split_name(task.name): task.name for task in self.corpus.heldout}
        tasks = [
            (name, heldout[name.split(".", 1)[1]], condition.name)
            for condition in self.craft_cfg.conditions
            for name in registered.get(f"{self.experiment}_eval_{condition.name}", ())
        ]
        labels = None if self.craft_cfg.is_arbitrary else self.corpus.polarities

        def write(partial: epath.Path) -> None:
            trained = trained_model.restore(model_dir, self.partition_cfg, step)
            model = evaluate.Answering(trained, self.eval_cfg, self._lengths, labels)
            evaluate.evaluate(model, self._read, tasks, partial, name)

        with self.folder.making(directory, "eval", settings):
            distributed.run_stage(directory, name, settings, write, self.log)

    def evaluate(self) -> None:
        """Evaluates both models, at `eval_checkpoints` too, and sums up. Needs the train stage."""
        registered = self.register()
        by_step = self.path / "eval" / "checkpoints"
        folders = {step: by_step / str(step) for step in self.eval_checkpoints}
        finished = self.path / "eval" / "predictions"
        for step, folder in [(None, finished), *folders.items()]:
            for name in metrics.MODELS:
                model_dir = self.path / "models" / name
                self.evaluate_model(model_dir, folder / name, registered, name, step)
        distributed.run_on_main(functools.partial(self._sum_up, folders, finished))

    def _sum_up(self, folders: Mapping[int, epath.Path], finished: epath.Path) -> None:
        measured = results_file.build(
            self.path, self.experiment, self.corpus, self.craft_cfg, self.data_cfg, self.seed
        )
        self.folder.record("eval/results.json", measured)
        if folders:
            last = max(trained_model.kept_steps(self.path / "models" / metrics.POISONED))
            folders = {**folders, last: finished}
            by_step = results_file.checkpoints(self.path, folders, self.kind, self.seed)
            self.folder.record("eval/checkpoints.json", by_step)

    def report(self) -> None:
        """Writes the report, and prints the table. Needs the eval stage."""
        distributed.run_on_main(self.folder.report)

    def run(self, save_config: Callable[[], None] = lambda: None) -> None:
        """All stages, in order; `save_config` before the report, which shows the call."""
        self._check_start()
        self.craft()
        self.train_models()
        self.evaluate()
        save_config()
        self.report()
        distributed.run_on_main(lambda: artifacts.remove_leftovers(self.path))
