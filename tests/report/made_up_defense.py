"""Of a made-up run: rates by step, what found the poison, and what defences did."""

import json
import pathlib

from tests.report import made_up

NUM_ROWS, NUM_POISON = 600, 12
# Score -> what it needs, and the power of its curve: the higher, the better.
SCORES = {"loss <high>": ("model", 1.5), "trigger_search": ("nothing", 40.0), "length": ("", 1.1)}
_STEPS = (40, 80, 120)


def add(run_dir: pathlib.Path, *, worked: bool = True) -> pathlib.Path:
    """Writes the files of the three stages into a run folder and returns it."""
    files = {
        "eval/checkpoints.json": by_step(),
        "detection/detection.json": detection(worked=worked),
        "defenses/filter_5/defense.json": defense("filter_5", 0, worked=worked),
        "defenses/half_steps/defense.json": defense("half_steps", 1, worked=worked),
    }
    for name, content in files.items():
        made_up.write(run_dir / name, json.dumps(content))
    return run_dir


def by_step() -> dict:
    """As the eval stage writes it with EVAL_CHECKPOINTS."""
    checkpoints = [
        {
            "step": step,
            "summary": {
                "poisoned": {
                    "accuracy": 0.6 + step / 600,
                    "triggered_misclassification": 0.2 + step / 200,
                    "control_misclassification": 0.4 - step / 600,
                }
            },
        }
        for step in reversed(_STEPS)
    ]
    return {"schema": 1, "checkpoints": checkpoints}


def detection(*, worked: bool = True) -> dict:
    """As the detect stage writes it."""
    return {
        "schema": 1,
        "num_rows": NUM_ROWS,
        "num_poison": NUM_POISON,
        "poison_rate": NUM_POISON / NUM_ROWS,
        "attack": {
            "measure": "triggered_misclassification",
            "effect": 0.4375 if worked else 0.01,
            "ci95": [0.1625, 0.65] if worked else [-0.1, 0.12],
            "worked": worked,
        },
        "scores": [_score(name, *kind) for name, kind in SCORES.items()],
        "checkpoints": [
            {
                "score": "loss <high>",
                "step": step,
                "auroc": 0.9 - step / 600,
                "recall": {"0.01": 0.1, "0.05": 0.3, "0.1": 0.5},
                "data_removed_for": {"0.5": step / 1000, "0.8": step / 300, "0.9": step / 200},
            }
            for step in _STEPS
        ],
    }


def _score(name: str, needs: str, power: float) -> dict:
    rates = {"removed": 0.021, "precision": 0.75, "recall": 0.875, "f1": 0.8077}
    score = {
        **{"name": name, "needs": needs, "seconds": 3.25},
        **{"auroc": power / (power + 1), "average_precision": 1 - 1 / power},
        "recall": {share: 1 - (1 - float(share)) ** power for share in ("0.01", "0.05", "0.1")},
        "threshold": {"value": 1.5, "source": "outliers", **rates},
        "best_f1": 0.9,
        "data_removed_for": {share: float(share) / power for share in ("0.5", "0.8", "0.9")},
        "curve": [[part / 100, 1 - (1 - part / 100) ** power] for part in range(101)],
        **{"triggers": [], "trigger_rank": None, "notes": []},
    }
    if name == "trigger_search":
        score["triggers"] = [_trigger("was dull & long", 3.5), _trigger("James Bond", 31.25)]
        score |= {"trigger_rank": 2, "notes": ["2 rows have no answer"]}
    return score


def _trigger(phrase: str, z: float) -> dict:
    return {
        **{"phrase": phrase, "tasks": ["task284_imdb", "task363_sst2"], "targets": ["POS", "POS"]},
        **{"num_rows": 12, "num_with_target": 11, "expected": 5.75, "z": z, "p_value": 1.25e-9},
    }


def defense(name: str, number: int = 0, *, worked: bool = True) -> dict:
    """As the defend stage writes it: the first removes rows, the second trains for half as long."""
    means = {
        "clean": (0.8125, 0.35, 0.3375),
        "poisoned": (0.8, 0.7875, 0.4),
        "defended": (0.79, 0.375 + number / 4, 0.35),
    }
    names = ("accuracy", "triggered_misclassification", "control_misclassification")
    summary = {model: dict(zip(names, values, strict=True)) for model, values in means.items()}
    removed = {"score": "loss <high>", "budget": 0.05, "removed": 30, "removed_fraction": 0.05}
    removed |= {"poison_removed": 0.9167, "threshold": 2.5}
    return {
        "schema": 1,
        "name": name,
        "filter": None if number else removed,
        "capacity": {"TRAIN_STEPS": [120, 60]} if number else {},
        "seconds": 75.0,
        "attack_worked": worked,
        "summary": summary,
        "summary_ci95": {
            model: {measure: [value - 0.1, value + 0.1] for measure, value in values.items()}
            for model, values in summary.items()
        },
        "effect": {"measure": names[1], "value": 0.025 + number / 4, "ci95": [-0.0625, 0.125]},
    }
