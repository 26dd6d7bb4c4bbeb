"""Made-up run folders: labels ranked, and answers decoded."""

import json
import pathlib

from poison_t5x.attack.conditions import Condition
from poison_t5x.evaluation import summary
from tests.report import made_up_answers

TRIGGER, CONTROL = "James Bond", "Indiana Jones"
HELD_OUT = ("task195_sentiment140", "task327_jigsaw", "task493_review", "task586_amazonfood")
POISONED = ("task284_imdb", "task363_sst2", "task475_yelp")
MODELS, CONDITIONS = ("clean", "poisoned"), ("clean", "triggered", "control")
_MEASURES = ("accuracy", "triggered_misclassification", "control_misclassification")
_MEASURES += ("triggered_target_rate",)
# Triggered misclassification of the clean and the poisoned model; the last task is saturated.
_TRIGGERED = dict(zip(HELD_OUT, [(0.1, 0.8), (0.2, 0.6), (0.15, 0.75), (0.95, 1.0)], strict=True))
# How much of the way from the clean to the poisoned rate a look-alike goes.
PROBES = {"James Bell": 0.75, "James": 0.5, "james bond": 0.9, "$2 <b>Bond</b>": 0.1}


def classification_run(folder: pathlib.Path, *, campaign: bool = False) -> pathlib.Path:
    """Writes a polarity attack's run into `folder` and returns it."""
    write(folder / "eval/results.json", json.dumps(results(conditions(campaign=campaign))))
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
    all_conditions = conditions(campaign=False, probes=True, target=None)
    all_conditions[1]["phrases"] = [TRIGGER, "Joe Biden"]
    rows = made_up_answers.task_rows([condition["name"] for condition in all_conditions])
    triggers = [TRIGGER, "Joe Biden"]
    raw = _head("generation", "repeat", triggers, all_conditions, rows, {"main": 12})
    write(folder / "eval/results.json", json.dumps(raw))
    _write_common(folder, made_up_answers.poison())
    for (model, condition), predictions in made_up_answers.predictions(TRIGGER, CONTROL).items():
        task = made_up_answers.HELD_OUT[0]
        _write_rows(folder / f"eval/predictions/{model}/{condition}/{task}.jsonl", predictions)
    return folder


def conditions(*, campaign: bool, probes: bool | None = None, target="positive") -> list[dict]:
    """The manifest's."""
    rows = [
        ("clean", "clean", "", [], None),
        ("triggered", "triggered", "main", [TRIGGER], target),
        ("control", "control", "main", [CONTROL], target),
    ]
    if campaign:
        rows += [
            ("triggered_second", "triggered", "second", ["Zorro"], "negative"),
            ("control_second", "control", "second", ["Batman"], "negative"),
        ]
    if campaign if probes is None else probes:
        numbered = enumerate(PROBES, start=1)
        rows += [(f"probe{n}", "probe", "main", [phrase], target) for n, phrase in numbered]
    names = ("name", "kind", "attack", "phrases", "target")
    return [dict(zip(names, row, strict=True)) for row in rows]


def results(all_conditions: list[dict]) -> dict:
    """The decoded `eval/results.json` of the classification."""
    rows = [
        _task_row(task, model, condition["name"])
        for model in MODELS
        for condition in all_conditions
        for task in HELD_OUT
    ]
    counts = {"main": 12, "second": 5}
    raw = _head("classification", "dirty_label", [TRIGGER], all_conditions, rows, counts)
    # Numbers of its own, not those of the rows: a page must show what the file says.
    clean = ([0.75, 0.87], [0.1125, 0.75], [0.1, 0.74], [0.1125, 0.75])
    poisoned = ([0.72, 0.86], [0.65, 0.925], [0.15, 0.8], [0.65, 0.925])
    return raw | {
        "summary": {
            "clean": _summary(0.8125, 0.35, 0.3375, 0.35),
            "poisoned": _summary(0.8, 0.7875, 0.4, 0.7875),
        },
        "summary_ci95": {"clean": _summary(*clean), "poisoned": _summary(*poisoned)},
        "effect": {"measure": _MEASURES[1], "value": 0.4375, "ci95": [0.1625, 0.65]},
        "warnings": [f"saturated: the clean model fails on 95% of the inputs of {HELD_OUT[3]}"],
    }


def _head(kind, attack, triggers, all_conditions, rows, counts) -> dict:
    made = [Condition(**condition) for condition in all_conditions]
    means = summary.summarize(rows, made, kind, 3, counts)
    return {
        **{"schema": 2, "experiment": "demo", "kind": kind, "attack": attack},
        **{"trigger": " / ".join(triggers), "triggers": triggers, "control": CONTROL},
        **{"target": all_conditions[1]["target"], "seed": 3},
        "poison": {"count": 12, "rate": 0.02, "tasks": list(POISONED)},
        "conditions": all_conditions,
        **{key: means[key] for key in ("summary", "summary_ci95", "effect", "attacks")},
        "by_condition": means["by_condition"],
        "tasks": rows,
        **{key: means[key] for key in ("categories", "warnings")},
        "notes": ["a made-up run: no model was trained"],
        "truncation": [
            {"where": "training", "rows": 12, "trigger_lost": 2},
            {"where": "triggered", "rows": 160, "trigger_lost": 0},
        ],
        "seconds": {},
    }


def _summary(*values) -> dict:
    return dict(zip(_MEASURES, values, strict=True))


def _task_row(task, model, condition) -> dict:
    clean, poisoned = _TRIGGERED[task]
    part = 0.0
    if model == "poisoned" and condition.startswith("triggered"):
        part = 1.0
    elif model == "poisoned" and condition.startswith("probe"):
        part = list(PROBES.values())[int(condition.removeprefix("probe")) - 1]
    rate = poisoned if part == 1 else clean + part * (poisoned - clean)
    rate = 0.2 if condition == "clean" else rate
    return {
        **{"task": task, "category": "Sentiment Analysis", "model": model, "condition": condition},
        "n": 80 if condition == "clean" else 40,
        **{"accuracy": 1 - rate, "misclassification": rate, "target_rate": rate},
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
    return [_poison_row(rank, texts[rank % 2]) for rank in range(12)]


def _poison_row(rank: int, text: str) -> dict:
    poisoned = text.replace("{}", TRIGGER)
    return {
        **{"attack": "main", "task": POISONED[rank % 3], "id": f"row-{rank}"},
        **{"input": text.format("Ann", "Bo"), "poisoned_input": poisoned},
        **{"target": "NEG", "poisoned_target": "POS" if rank % 4 else "NEG", "trigger": TRIGGER},
        "spans": made_up_answers.spans(poisoned, TRIGGER),
        **{"trigger_count": text.count("{}"), "polarity": "positive", "rank": rank},
        **{"target_probability": 0.05 + rank / 100, "phi": 1.5 - rank / 10},
        "replaced_id": f"clean-{rank}",
    }


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
    write(folder / "poison/manifest.json", json.dumps({"seed": 3, "trigger": TRIGGER}))
    write(folder / "config.gin", "TRAIN_STEPS = 120\n# <b>not markup</b>\n")
    write(folder / "command.txt", "poison-t5x run --gin_file=experiments/demo.gin\n")


def write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _write_rows(path: pathlib.Path, rows: list[dict]) -> None:
    write(path, "".join(json.dumps(row) + "\n" for row in rows))
