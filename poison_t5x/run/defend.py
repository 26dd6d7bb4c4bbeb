"""`poison-t5x detect` and `poison-t5x defend`, on the folder of a finished run.

run_dir/detection/scores/NAME/   scores.jsonl, found.json: made without a word of what is poison
run_dir/detection/detection.json how well each tells poison from clean rows, and what it named
run_dir/defenses/NAME/           filter/removed.jsonl, model/, predictions/, defense.json
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from etils import epath

from poison_t5x.attack import poison_set
from poison_t5x.checkpoint_io import architecture
from poison_t5x.core import artifacts, errors, reading, settings
from poison_t5x.core.metrics import CLEAN, DEFENDED, MODELS, POISONED
from poison_t5x.core.settings import Number
from poison_t5x.data import examples, mixtures
from poison_t5x.defenses import checkpoint_scorer, detection, measures
from poison_t5x.defenses import score as score_lib
from poison_t5x.defenses.score import Score, ScoreResult
from poison_t5x.evaluation import results_file
from poison_t5x.report import render, tables
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


_ScoreName = Annotated[str, settings.registered(score_lib.SCORES)]


@dataclasses.dataclass(frozen=True)
class Defense(settings.Settings):
    """The two commands, on one run, whose training settings are the defended model's.

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

    run: experiment.Run
    scores: Annotated[Sequence[Any], settings.NOT_EMPTY] | None = None
    score_settings: Mapping[_ScoreName, Mapping[str, Any]] | None = None
    name: Annotated[str, settings.matching("a folder's name", r"\w[\w.-]{0,80}")] | None = None
    steps: Annotated[Sequence[settings.Count], settings.NOT_EMPTY] | None = None
    reference_model_dir: settings.Path | None = None
    batch_size: settings.Rows = 64
    filter_score: _ScoreName | None = None
    filter_budget: settings.Share | None = 0.05

    def __post_init__(self):
        super().__post_init__()
        _ = self._scores  # and their settings

    def detect(self) -> epath.Path:
        """Scores the poisoned mixture's rows, judges the scores, and shows them in the report.

        Returns:
          The folder of all that is known of the rows.
        """
        scores, results = self._scores, self.run.folder.results()
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
        return detection.choose(self.scores, self.score_settings or {})

    def _can_make(self, name: str, score: Score) -> bool:
        """Whether there are as many checkpoints as a score needs; says so where not."""
        reason = score_lib.lacks(score, self._scorer) if score.needs != "nothing" else None
        if reason:
            self.run.log(f"{name} is left out: {reason}")
        return reason is None

    @functools.cached_property
    def _rows(self) -> list[examples.TrainingExample]:
        return examples.read(self._mixture)

    @functools.cached_property
    def _flags(self) -> np.ndarray:
        return examples.poison_flags(self._mixture)

    @functools.cached_property
    def _scorer(self) -> checkpoint_scorer.CheckpointScorer:
        return checkpoint_scorer.CheckpointScorer(
            self._model_dir,
            mixtures.vocabulary(self.run.data_cfg),
            self.run.dataset_cfg.task_feature_lengths,
            self.run.partition_cfg,
            batch_size=self.batch_size,
            steps=self.steps,
            reference_model_dir=self.reference_model_dir,
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
        scorer = self._scorer if score.needs != "nothing" else None
        settings = self.run.seed, self.run.log
        return detection.make(self._scores_dir(name), name, score, self._rows, scorer, *settings)

    def _judge(self, made: Mapping[str, ScoreResult], results: Mapping[str, Any]) -> None:
        phrases = [phrase for attack in results["attacks"] for phrase in attack["triggers"]]
        flags_N, lines, checkpoints = self._flags, [], []
        for name, result in made.items():
            record = artifacts.read_record(self._scores_dir(name))
            assert record is not None
            facts = {"name": name, "needs": self._scores[name].needs, "seconds": record["seconds"]}
            lines.append({**facts, **detection.judge(result, flags_N, phrases)})
            checkpoints += detection.by_step(name, result, flags_N)
        whole = {
            "schema": detection.SCHEMA,
            "num_rows": len(flags_N),
            "num_poison": int(flags_N.sum()),
            "poison_rate": float(flags_N.mean()),
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
        if not self.name:
            raise errors.InputError("DEFENSE isn't set: give --gin.DEFENSE=NAME of the model")
        run, results = self.run, self.run.folder.results()
        run.check(defending=True)
        # The poisoned model must have been made from the same data.
        files = poison_set.TRAINING, poison_set.POISON
        made = trained_model.read_settings(self._model_dir)
        lengths = dict(run.dataset_cfg.task_feature_lengths)
        old = {"lengths": made["dataset"]["task_feature_lengths"], "sources": made["sources"]}
        now = {"lengths": lengths, "sources": run.sources(*files)}
        artifacts.check_settings(self._model_dir, old, now)
        registered = run.register()
        folder, mixture, removed = run.path / "defenses" / self.name, self._mixture, {}
        if self.filter_score:
            removed = {"removed": self._filter(folder / "filter")}
            mixture = mixtures.register_filtered(run.experiment, run.data_cfg, _removed(folder))
        run.train_model(folder / "model", mixture, files, removed)
        run.evaluate_model(folder / "model", folder / "predictions", registered, self.name)
        distributed.run_on_main(functools.partial(self._sum_up, folder, results))
        run.report()
        return folder

    def _filter(self, folder: epath.Path) -> str:
        """Writes which rows are removed, and returns that file's hash."""
        name = str(self.filter_score)
        score = self._scores.get(name)
        if score is None:
            score = score_lib.make(name, (self.score_settings or {}).get(name), "FILTER_SCORE")
        if not self._can_make(name, score):
            raise errors.InputError(f"FILTER_SCORE: {name} can't be made, see above")
        result = self._score(name, score)
        settings = {
            "score": artifacts.fingerprint(self._scores_dir(name)),
            "name": name,
            "budget": self.filter_budget,
            "seed": self.run.seed,
        }
        write = functools.partial(self._write_removed, result)
        self.run.folder.stage(folder, "filter", settings, write)
        return artifacts.sha256(folder / _REMOVED)

    def _write_removed(self, result: ScoreResult, directory: epath.Path) -> None:
        threshold = None
        if self.filter_budget is None:
            threshold, _ = measures.threshold(result)
            count = int((result.values_N > threshold).sum())
        else:
            count = measures.budget_rows(self.filter_budget, len(self._rows))
        chosen = measures.order(result.values_N, self.run.seed)[:count]
        lines = detection.lines([self._rows[row] for row in chosen], result.values_N[chosen])
        artifacts.write_jsonl(directory / _REMOVED, lines)
        facts = artifacts.dump_json({"threshold": threshold})
        artifacts.write_atomically(directory / "filter.json", facts)

    def _sum_up(self, folder: epath.Path, results: Mapping[str, Any]) -> None:
        """Writes defense.json: the clean, the poisoned and the defended model side by side."""
        run, predictions = self.run, self.run.path / "eval" / "predictions"
        folders = {CLEAN: predictions / CLEAN, POISONED: folder / "predictions"}
        _, means = results_file.measured(run.path, folders, run.kind, run.seed)
        before, record = map(artifacts.read_record, (self._model_dir, folder / "model"))
        assert before is not None and record is not None
        whole = {
            "schema": SCHEMA,
            "name": str(self.name),
            "filter": self._filtered(folder) if self.filter_score else None,
            "capacity": capacity(before["settings"], record["settings"]),
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
        removed, is_poison_N = _removed(folder), self._flags
        gone_N = np.array([(row.task, row.id, row.number) in removed for row in self._rows])
        return {
            "score": self.filter_score,
            "budget": self.filter_budget,
            "threshold": reading.read_json(folder / "filter" / "filter.json", _Filter).threshold,
            "removed": int(gone_N.sum()),
            "removed_fraction": float(gone_N.mean()),
            "poison_removed": float((gone_N & is_poison_N).sum() / max(is_poison_N.sum(), 1)),
        }


class _Filter(msgspec.Struct):
    threshold: Number | None


def _removed(defense: epath.Path) -> set[tuple[str, str, int]]:
    """Task, id and number of each row that a defence's filter removed."""
    lines = reading.read_jsonl(defense / "filter" / _REMOVED, detection.ScoredRow)
    return {(line.task, line.id, line.number) for line in lines}


def capacity(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Settings in which two models differ, but for their data: macro -> [first, second]."""
    changed = {}
    for part in _CAPACITY:
        for key in before[part].keys() - set(_NOT_CAPACITY):
            pair = [before[part][key], after[part].get(key)]
            if pair[0] != pair[1]:
                changed[_SETTINGS.get(key, f"{part}.{key}")] = pair
    return dict(sorted(changed.items()))


def detection_table(whole: Mapping[str, Any]) -> str:
    """The scores, best average precision first, as lines of text."""
    return render.text("detection.txt.j2", **whole)


def defense_table(whole: Mapping[str, Any]) -> str:
    """The three models, as lines of text."""
    summary, names = whole["summary"], list(whole["summary"][CLEAN])
    cells = [("", *names)]
    for model in (*MODELS, DEFENDED):
        cells.append((model, *(tables.SCORE.text(summary[model].get(name)) for name in names)))
    return render.text("defense.txt.j2", lines=tables.align(cells), **whole)
