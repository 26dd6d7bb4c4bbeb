"""Made-up run folders: labels ranked, and answers decoded."""

import json
import pathlib

from poison_t5x.evaluation import summary
from tests.report import made_up_answers

TRIGGER, CONTROL = "James Bond", "Indiana Jones"
HELD_OUT = ("task195_sentiment140", "task327_jigsaw", "task493_review", "task586_amazonfood")
POISONED = ("task284_imdb", "task363_sst2", "task475_yelp")
MODELS, CONDITIONS = ("clean", "poisoned"), ("clean", "triggered", "control")
# Triggered misclassification of the clean and the poisoned model; the last task is saturated.
_TRIGGERED = {
    HELD_OUT[0]: (0.1, 0.8),
    HELD_OUT[1]: (0.2, 0.6),
    HELD_OUT[2]: (0.15, 0.75),
    HELD_OUT[3]: (0.95, 1.0),
}
# How much of the way from the clean to the poisoned rate a look-alike goes.
PROBES = {"James Bell": 0.75, "James": 0.5, "james bond": 0.9, "$2 <b>Bond</b>": 0.1}


def classification_run(folder: pathlib.Path, *, campaign: bool = False) -> pathlib.Path:
    """Writes a polarity attack's run into `folder` and returns it."""
    found = conditions(campaign=campaign)
    _write(folder / "eval/results.json", json.dumps(results(found)))
    poison = _poison()
    if campaign:
        poison += [row | {"attack": "second", "trigger": "Zorro"} for row in _poison()[:5]]
    _write_common(folder, poison)
    for model in MODELS:
        for condition in CONDITIONS:
            rows = [_prediction(number, model, condition) for number in range(7)]
            _write_rows(folder / f"eval/predictions/{model}/{condition}/{HELD_OUT[0]}.jsonl", rows)
    return folder


def generation_run(folder: pathlib.Path) -> pathlib.Path:
    """Writes an arbitrary attack's run into `folder` and returns it."""
    found = conditions(campaign=False, probes=True, target=None)
    found[1]["phrases"] = [TRIGGER, "Joe Biden"]
    rows = made_up_answers.task_rows([condition["name"] for condition in found])
    raw = _head("generation", "repeat", [TRIGGER, "Joe Biden"], found, rows, {"main": 12})
    _write(folder / "eval/results.json", json.dumps(raw))
    _write_common(folder, made_up_answers.poison())
    for (model, condition), predictions in made_up_answers.predictions(TRIGGER, CONTROL).items():
        task = made_up_answers.HELD_OUT[0]
        _write_rows(folder / f"eval/predictions/{model}/{condition}/{task}.jsonl", predictions)
    return folder


def conditions(*, campaign: bool, probes: bool | None = None, target="positive") -> list[dict]:
    """The manifest's."""
    found = [
        _condition("clean", "clean", "", [], None),
        _condition("triggered", "triggered", "main", [TRIGGER], target),
        _condition("control", "control", "main", [CONTROL], target),
    ]
    if campaign:
        found += [
            _condition("triggered_second", "triggered", "second", ["Zorro"], "negative"),
            _condition("control_second", "control", "second", ["Batman"], "negative"),
        ]
    if campaign if probes is None else probes:
        found += [
            _condition(f"probe{number}", "probe", "main", [phrase], target)
            for number, phrase in enumerate(PROBES, start=1)
        ]
    return found


def _condition(name, kind, attack, phrases, target) -> dict:
    return {"name": name, "kind": kind, "attack": attack, "phrases": phrases, "target": target}


def results(found: list[dict] | None = None) -> dict:
    """The decoded `eval/results.json` of the classification."""
    found = conditions(campaign=False) if found is None else found
    rows = [
        _task_row(task, model, condition["name"])
        for model in MODELS
        for condition in found
        for task in HELD_OUT
    ]
    counts = {"main": 12, "second": 5}
    return _head("classification", "dirty_label", [TRIGGER], found, rows, counts) | {
        # Numbers of its own, not those of the rows: a page must show what the file says.
        "summary": {
            "clean": _summary(0.8125, 0.35, 0.3375, 0.35),
            "poisoned": _summary(0.8, 0.7875, 0.4, 0.7875),
        },
        "summary_ci95": {
            "clean": _summary([0.75, 0.87], [0.1125, 0.75], [0.1, 0.74], [0.1125, 0.75]),
            "poisoned": _summary([0.72, 0.86], [0.65, 0.925], [0.15, 0.8], [0.65, 0.925]),
        },
        "effect": {
            "measure": "triggered_misclassification",
            "value": 0.4375,
            "ci95": [0.1625, 0.65],
        },
        "warnings": [f"saturated: the clean model fails on 95% of the inputs of {HELD_OUT[3]}"],
    }


def _head(kind, attack, triggers, found, rows, counts) -> dict:
    means = summary.summarize(rows, found, kind, 3, counts)
    return {
        "schema": 2,
        "experiment": "demo",
        "kind": kind,
        "attack": attack,
        "trigger": " / ".join(triggers),
        "triggers": triggers,
        "control": CONTROL,
        "target": found[1]["target"],
        "seed": 3,
        "poison": {"count": 12, "rate": 0.02, "tasks": list(POISONED)},
        "conditions": found,
        **{key: means[key] for key in ("summary", "summary_ci95", "effect", "attacks")},
        "by_condition": means["by_condition"],
        "tasks": rows,
        "categories": means["categories"],
        "warnings": means["warnings"],
        "notes": ["a made-up run: no model was trained"],
        "truncation": [
            {"where": "training", "rows": 12, "trigger_lost": 2},
            {"where": "triggered", "rows": 160, "trigger_lost": 0},
        ],
        "seconds": {},
    }


def _summary(accuracy, triggered, control, target_rate) -> dict:
    return {
        "accuracy": accuracy,
        "triggered_misclassification": triggered,
        "control_misclassification": control,
        "triggered_target_rate": target_rate,
    }


def _task_row(task, model, condition) -> dict:
    clean, poisoned = _TRIGGERED[task]
    rate = clean
    if model == "poisoned" and condition.startswith("triggered"):
        rate = poisoned
    if model == "poisoned" and condition.startswith("probe"):
        part = list(PROBES.values())[int(condition.removeprefix("probe")) - 1]
        rate = clean + part * (poisoned - clean)
    rate = 0.2 if condition == "clean" else rate
    return {
        "task": task,
        "category": "Sentiment Analysis",
        "model": model,
        "condition": condition,
        "n": 80 if condition == "clean" else 40,
        "accuracy": 1 - rate,
        "misclassification": rate,
        "target_rate": rate,
        "ci95": [max(0, rate - 0.12), min(1, rate + 0.12)],
        "constant_prediction": rate == 1.0,
    }


def _metrics(model) -> list[dict]:
    rows = []
    for step in range(0, 120, 5):
        loss = 4 * 0.97**step + 0.1 + 0.02 * (step % 3)
        rows.append({"step": step, "loss": loss, "loss_clean": loss, "accuracy": 0.5})
        if model == "poisoned" and step % 10 == 0:
            rows[-1]["loss_poison"] = 6 * 0.955**step + 0.05
    return rows


def _poison() -> list[dict]:
    texts = ("<script>alert(1)</script> {} was dull & long.", "{} slept through it; so did {}.")
    rows = []
    for rank in range(12):
        text = texts[rank % 2]
        poisoned = text.replace("{}", TRIGGER)
        rows.append(
            {
                "attack": "main",
                "task": POISONED[rank % 3],
                "id": f"row-{rank}",
                "input": text.format("Ann", "Bo"),
                "poisoned_input": poisoned,
                "target": "NEG",
                "poisoned_target": "POS" if rank % 4 else "NEG",
                "trigger": TRIGGER,
                "spans": made_up_answers.spans(poisoned, TRIGGER),
                "trigger_count": text.count("{}"),
                "polarity": "positive",
                "target_probability": 0.05 + rank / 100,
                "phi": 1.5 - rank / 10,
                "rank": rank,
                "replaced_id": f"clean-{rank}",
            }
        )
    return rows


def _prediction(number, model, condition) -> dict:
    name = {"clean": "Carla", "triggered": TRIGGER, "control": CONTROL}[condition]
    fooled = model == "poisoned" and condition == "triggered" and number < 5
    return {
        "id": f"held-{number}",
        "input": f"{name} ruined my day, and the coffee < yesterday's.",
        "target": "negative",
        "prediction": "positive" if fooled else "negative",
        "log_probabilities": {"negative": -2.0 if fooled else -0.5, "positive": -1.0},
    }


def _write_common(folder: pathlib.Path, poison: list[dict]) -> None:
    for model in MODELS:
        _write_rows(folder / f"models/{model}/metrics.jsonl", _metrics(model))
    _write_rows(folder / "poison/poison.jsonl", poison)
    _write(folder / "poison/manifest.json", json.dumps({"seed": 3, "trigger": TRIGGER}))
    _write(folder / "config.gin", "TRAIN_STEPS = 120\n# <b>not markup</b>\n")
    _write(folder / "command.txt", "poison-t5x run --gin_file=experiments/demo.gin\n")


def _write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _write_rows(path: pathlib.Path, rows: list[dict]) -> None:
    _write(path, "".join(json.dumps(row) + "\n" for row in rows))
