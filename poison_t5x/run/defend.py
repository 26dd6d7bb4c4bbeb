"""`poison-t5x detect` and `poison-t5x defend`, on the folder of a finished run.

run_dir/detection/scores/NAME/   scores.jsonl, found.json: made without a word of what is poison
run_dir/detection/detection.json how well each tells poison from clean rows, and what it named
run_dir/defenses/NAME/           filter/removed.jsonl, model/, predictions/, defense.json
"""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from poison_t5x.attack import poison_set
from poison_t5x.checkpoint_io import architecture
from poison_t5x.core import artifacts, checks, errors
from poison_t5x.core.metrics import CLEAN, DEFENDED, MODELS, POISONED
from poison_t5x.data import examples, mixtures
from poison_t5x.defenses import checkpoint_scorer, detection, measures
from poison_t5x.defenses import score as score_lib
from poison_t5x.defenses.score import Score, ScoreResult
from poison_t5x.evaluation import results_file
from poison_t5x.report import tables
from poison_t5x.run import experiment
from poison_t5x.train import distributed, trained_model

SCHEMA = 1
_REMOVED = "removed.jsonl"
# Parts of a model's settings, beside its data, in which a defended one may differ.
_CAPACITY = ("model", "train", "optimizer", "schedule", "loss", "dataset")
# Of the data, whose mixture is the filter's to say.
_NOT_CAPACITY = ("mixture_or_task_name", "module", "split", "use_cached")
_SETTINGS = {
    **architecture.MACROS,
    "total_steps": "TRAIN_STEPS",
    "base_learning_rate": "LEARNING_RATE",
    "dropout_rate": "DROPOUT_RATE",
    "batch_size": "BATCH_SIZE",
}


@dataclasses.dataclass(frozen=True)
class DefenseConfig:
    """Which scores, and what is done with one.

    Attributes:
      scores: names of registered scores, or scores made in gin; None for all.
      score_settings: name -> settings of a score that aren't its defaults.
      name: of the defended model.
      steps: checkpoints that scores look at; None for all that are kept.
      reference_model_dir: a finished model to compare answers with.
      batch_size: rows scored at once.
      filter_score: the name of the score by which rows are removed; None removes none.
      filter_budget: fraction of the rows that is removed; None removes those past the threshold.
    """

    scores: Sequence[Any] | None = None
    score_settings: Mapping[str, Mapping[str, Any]] | None = None
    name: str | None = None
    steps: Sequence[int] | None = None
    reference_model_dir: str | None = None
    batch_size: int = 64
    filter_score: str | None = None
    filter_budget: float | None = 0.05

    def __post_init__(self):
        checks.whole_number("SCORE_BATCH_SIZE", self.batch_size)
        if self.reference_model_dir is not None:
            checks.path("REFERENCE_MODEL_DIR", self.reference_model_dir)
        if self.steps is not None:
            checks.whole_numbers("SCORE_STEPS", self.steps)
        if self.filter_budget is not None:
            checks.number("FILTER_BUDGET", self.filter_budget, minimum=0)
            if self.filter_budget >= 1:
                raise errors.InputError(
                    f"FILTER_BUDGET: expected a fraction below 1, found {self.filter_budget!r}"
                )
        if self.name is not None and not re.fullmatch(r"\w[\w.-]{0,80}", str(self.name)):
            raise errors.InputError(f"DEFENSE: expected a folder's name, found {self.name!r}")


@dataclasses.dataclass(frozen=True)
class Defense:
    """The two commands, on one run, whose training settings are the defended model's."""

    run: experiment.Run
    config: DefenseConfig

    def detect(self) -> epath.Path:
        """Scores the poisoned mixture's rows, judges the scores, and shows them in the report.

        Returns:
          The folder of all that is known of the rows.
        """
        scores, results = self._scores, self._results()
        self.run.check()
        self.run.register()
        made = {
            name: self._score(name, one)
            for name, one in scores.items()
            if self._can_make(name, one)
        }
        distributed.run_on_main(functools.partial(self._judge, made, results))
        self.run.report()
        return self.run.path / "detection"

    @functools.cached_property
    def _scores(self) -> dict[str, Score]:
        """Those of SCORES, by name."""
        return detection.choose(self.config.scores, self.config.score_settings or {})

    def _can_make(self, name: str, score: Score) -> bool:
        """Whether there are as many checkpoints as a score needs; says so where not."""
        reason = score_lib.lacks(score, self._scorer) if score.needs != "nothing" else None
        if reason:
            self.run.log(f"{name} is left out: {reason}")
        return reason is None

    def _results(self) -> dict[str, Any]:
        path = self.run.path / "eval" / "results.json"
        if not path.is_file():
            raise errors.InputError(
                f"{path} isn't there: run `poison-t5x run` with the same settings first"
            )
        return artifacts.read_json(path)

    def _check_model(self) -> None:
        """Raises InputError where the poisoned model was made from other data."""
        made = trained_model.read_settings(self._model_dir)
        old = {"lengths": made["dataset"]["task_feature_lengths"], "sources": made["sources"]}
        now = {
            "lengths": dict(self.run.dataset_cfg.task_feature_lengths),
            "sources": self.run.sources(poison_set.TRAINING, poison_set.POISON),
        }
        artifacts.check_settings(self._model_dir, old, now)

    @functools.cached_property
    def _rows(self) -> list[examples.TrainingExample]:
        return examples.read(self._mixture)

    @functools.cached_property
    def _scorer(self) -> checkpoint_scorer.CheckpointScorer:
        return checkpoint_scorer.CheckpointScorer(
            self._model_dir,
            mixtures.vocabulary(self.run.data_cfg),
            self.run.dataset_cfg.task_feature_lengths,
            self.run.partition_cfg,
            batch_size=self.config.batch_size,
            steps=self.config.steps,
            reference_model_dir=self.config.reference_model_dir,
        )

    @property
    def _model_dir(self) -> epath.Path:
        return self.run.path / "models" / POISONED

    @property
    def _mixture(self) -> str:
        return f"{self.run.experiment}_poisoned"

    def _scores_dir(self, name: str) -> epath.Path:
        return self.run.path / "detection" / "scores" / name

    def _score(self, name: str, score: Score) -> ScoreResult:
        return detection.make(
            *(self._scores_dir(name), name, score, self._rows),
            self._scorer if score.needs != "nothing" else None,
            self.run.seed,
            self.run.log,
        )

    def _judge(self, made: Mapping[str, ScoreResult], results: Mapping[str, Any]) -> None:
        is_poison_N = examples.poison_flags(self._mixture)
        phrases = [phrase for attack in results["attacks"] for phrase in attack["triggers"]]
        lines, checkpoints = [], []
        for name, result in made.items():
            record = artifacts.read_record(self._scores_dir(name))
            assert record is not None
            needs, seconds = self._scores[name].needs, record["seconds"]
            lines.append(detection.judge(name, needs, result, is_poison_N, phrases, seconds))
            checkpoints += detection.by_step(name, result, is_poison_N)
        whole = {
            "schema": detection.SCHEMA,
            "num_rows": len(is_poison_N),
            "num_poison": int(is_poison_N.sum()),
            "poison_rate": float(is_poison_N.mean()),
            "attack": detection.attack(results),
            "scores": lines,
            "checkpoints": checkpoints,
        }
        self.run.folder.record("detection/detection.json", whole)
        self.run.log(detection_table(whole))

    def defend(self) -> epath.Path:
        """Trains the defended model, evaluates it as the others, and shows it in the report.

        Returns:
          The folder of the defence.
        """
        if not self.config.name:
            raise errors.InputError("DEFENSE isn't set: give --gin.DEFENSE=NAME of the model")
        results = self._results()
        self.run.check(defending=True)
        self._check_model()
        registered = self.run.register()
        folder = self.run.path / "defenses" / self.config.name
        mixture, removed = self._mixture, {}
        if self.config.filter_score:
            removed = {"removed": self._filter(folder / "filter")}
            rows = _removed(folder)
            mixture = mixtures.register_filtered(self.run.experiment, self.run.data_cfg, rows)
        files = [poison_set.TRAINING, poison_set.POISON]
        self.run.train_model(folder / "model", mixture, files, removed)
        predictions = folder / "predictions"
        self.run.eval_stage.make(folder / "model", predictions, registered, self.config.name)
        distributed.run_on_main(functools.partial(self._sum_up, folder, results))
        self.run.report()
        return folder

    def _filter(self, folder: epath.Path) -> str:
        """Writes which rows are removed, and returns that file's hash."""
        name = str(self.config.filter_score)
        score = self._scores.get(name)
        if score is None:
            settings = (self.config.score_settings or {}).get(name)
            score = score_lib.make(name, settings, "FILTER_SCORE")
        if not self._can_make(name, score):
            raise errors.InputError(f"FILTER_SCORE: {name} can't be made, see above")
        result = self._score(name, score)
        settings = {
            "score": artifacts.fingerprint(self._scores_dir(name)),
            "name": name,
            "budget": self.config.filter_budget,
            "seed": self.run.seed,
        }
        write = functools.partial(self._write_removed, result)
        self.run.folder.stage(folder, "filter", settings, write)
        return artifacts.sha256(folder / _REMOVED)

    def _write_removed(self, result: ScoreResult, directory: epath.Path) -> None:
        order_N = measures.order(result.values_N, self.run.seed)
        threshold = None
        if self.config.filter_budget is None:
            threshold, _ = measures.threshold(result)
            count = int((result.values_N > threshold).sum())
        else:
            count = measures.budget_rows(self.config.filter_budget, len(order_N))
        chosen = ((self._rows[index], result.values_N[index]) for index in order_N[:count])
        artifacts.write_jsonl(
            directory / _REMOVED,
            (
                {"task": row.task, "id": row.id, "number": row.number, "score": float(value)}
                for row, value in chosen
            ),
        )
        facts = artifacts.dump_json({"threshold": threshold})
        artifacts.write_atomically(directory / "filter.json", facts)

    def _sum_up(self, folder: epath.Path, results: Mapping[str, Any]) -> None:
        """Writes defense.json: the clean, the poisoned and the defended model side by side."""
        run, models = self.run, self.run.path / "models"
        _, means = results_file.measured(
            *(run.path, run.path / "eval" / "predictions", run.kind, run.seed),
            poisoned=folder / "predictions",
        )
        before, after = map(trained_model.read_settings, (models / POISONED, folder / "model"))
        record = artifacts.read_record(folder / "model")
        assert record is not None
        whole = {
            "schema": SCHEMA,
            "name": str(self.config.name),
            "filter": self._filtered(folder) if self.config.filter_score else None,
            "capacity": capacity(before, after),
            "seconds": record["seconds"],
            "attack_worked": detection.attack(results)["worked"],
            **{
                key: {**results[key], DEFENDED: means[key][POISONED]}
                for key in ("summary", "summary_ci95")
            },
            "effect": means["effect"],
        }
        run.folder.record(folder / "defense.json", whole)
        run.log(defense_table(whole))

    def _filtered(self, folder: epath.Path) -> dict[str, Any]:
        """Facts of the rows that a filter removed."""
        removed, is_poison_N = _removed(folder), examples.poison_flags(self._mixture)
        gone_N = np.array([(row.task, row.id, row.number) in removed for row in self._rows])
        return {
            "score": self.config.filter_score,
            "budget": self.config.filter_budget,
            "threshold": artifacts.read_json(folder / "filter" / "filter.json")["threshold"],
            "removed": int(gone_N.sum()),
            "removed_fraction": float(gone_N.mean()),
            "poison_removed": float((gone_N & is_poison_N).sum() / max(is_poison_N.sum(), 1)),
        }


def _removed(defense: epath.Path) -> set[tuple[str, str, int]]:
    """Task, id and number of each row that a defence's filter removed."""
    lines = artifacts.read_jsonl(defense / "filter" / _REMOVED)
    return {(line["task"], line["id"], line["number"]) for line in lines}


def capacity(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Settings in which two models differ, but for their data: macro -> [first, second]."""
    changed = {}
    for part in _CAPACITY:
        for key in before[part].keys() - set(_NOT_CAPACITY):
            old, new = before[part][key], after[part].get(key)
            if json.dumps(old) != json.dumps(new):
                changed[_SETTINGS.get(key, f"{part}.{key}")] = [old, new]
    return dict(sorted(changed.items()))


def detection_table(whole: Mapping[str, Any]) -> str:
    """The scores, best average precision first, as lines of text."""
    attack = whole["attack"]
    lines = [
        f"{whole['num_poison']} poison rows of {whole['num_rows']} "
        f"({whole['poison_rate']:.2%}); the attack's effect on {attack['measure']}: "
        f"{tables.POINTS.text(attack['effect'])}"
    ]
    if not attack["worked"]:
        lines.append(
            "the attack failed, or can't be judged: finding its rows says nothing about a defence"
        )
    cells = [
        ("score", "AUROC", "AP", "found in 1%", "5%", "10%", "F1", "seconds", "first phrase named")
    ]
    for line in sorted(whole["scores"], key=lambda line: -line["average_precision"]):
        cells.append(
            (
                line["name"],
                *(tables.DECIMAL.text(line[name]) for name in ("auroc", "average_precision")),
                *(f"{line['recall'][budget]:.0%}" for budget in ("0.01", "0.05", "0.1")),
                f"{line['threshold']['f1']:.2f}",
                f"{line['seconds']:.1f}",
                line["triggers"][0]["phrase"] if line["triggers"] else "",
            )
        )
    return "\n".join([*lines, *tables.align(cells)])


def defense_table(whole: Mapping[str, Any]) -> str:
    """The three models, as lines of text."""
    lines = []
    if whole["filter"]:
        lines.append(
            "removed {removed} rows ({removed_fraction:.1%}) by {score}, with {poison_removed:.0%} "
            "of the poison".format(**whole["filter"])
        )
    if not whole["attack_worked"]:
        lines.append("the attack failed, or can't be judged: this shows nothing about the defence")
    summary = whole["summary"]
    cells = [("", *summary[CLEAN])]
    for model in (*MODELS, DEFENDED):
        values = (summary[model].get(name) for name in summary[CLEAN])
        cells.append((model, *map(tables.SCORE.text, values)))
    return "\n".join([*lines, *tables.align(cells)])
