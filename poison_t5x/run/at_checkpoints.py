"""Both models at some of their kept checkpoints: when in training an attack takes hold."""

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from poison_t5x.attack import poison_set
from poison_t5x.core import artifacts, errors, metrics
from poison_t5x.evaluation import summary
from poison_t5x.train import checkpoints, distributed

if TYPE_CHECKING:
    from poison_t5x.run.experiment import Run

SCHEMA = 1


def evaluate(run: "Run", registered: Mapping[str, list[str]]) -> None:
    """Writes eval/checkpoints/STEP/MODEL/… and eval/checkpoints.json. Needs the eval stage.

    Args:
      run: whose `eval_checkpoints` says at which steps; the finished models are added as the last.
      registered: as `run.register` returns it.

    Raises:
      InputError: a step's checkpoint wasn't kept.
    """
    place = run.path / "eval" / "checkpoints"
    for model in metrics.MODELS:
        model_dir = run.path / "models" / model
        kept = checkpoints.committed_steps(model_dir)
        for step in run.eval_checkpoints:
            if step not in kept:
                raise errors.InputError(
                    f"EVAL_CHECKPOINTS: {model_dir} has no whole checkpoint of step {step}; there "
                    f"are {', '.join(map(str, kept))} (see SAVE_PERIOD and KEEP_CHECKPOINTS)"
                )
            name = f"{model} at step {step}"
            run.evaluate_model(model_dir, place / str(step) / model, registered, name, step)
    distributed.run_on_main(lambda: _sum_up(run, place))


def _sum_up(run: "Run", place: pathlib.Path) -> None:
    folders = {step: place / str(step) for step in run.eval_checkpoints}
    last = max(checkpoints.committed_steps(run.path / "models" / "poisoned"))
    folders[last] = run.path / "eval" / "predictions"
    found = {
        "schema": SCHEMA,
        "checkpoints": [_entry(run, step, folders[step]) for step in sorted(folders)],
    }
    artifacts.write_atomically(place.with_suffix(".json"), artifacts.dump_json(found))


def _entry(run: "Run", step: int, folder: pathlib.Path) -> dict[str, Any]:
    """What results.json says of the finished models, of those at a step."""
    conditions = poison_set.read_manifest(run.path / "poison")["conditions"]
    kind: metrics.Kind = "generation" if run.craft_cfg.is_arbitrary else "classification"
    rows = summary.task_rows(folder, conditions, kind, {})
    means = summary.summarize(rows, conditions, kind, {}, run.seed)
    kept = {key: means[key] for key in ("summary", "summary_ci95", "effect")}
    return {"step": step, **kept, "tasks": rows}
