"""A cell without a model: notes that it ran, takes some time and memory, and writes its results.

python fake_cell.py NOTES COMMAND FLAG…; macros of its own: NUM_POISON (the effect), SEED, and the
environment's FAKE_SECONDS, FAKE_MEGABYTES, FAKE_FAILS (a text in the name of cells that fail).
"""

import ast
import json
import os
import pathlib
import sys
import time


def results(value: float, seed: int = 0) -> dict:
    """results.json of three tasks, around an effect of `value`."""
    spread = (-0.1, 0.0, 0.1)
    tasks = [
        {
            "task": f"task{number}",
            "model": model,
            "condition": condition,
            "accuracy": 0.9,
            "misclassification": 0.1 + (value + away if model == "poisoned" and hit else 0.0),
        }
        for model in ("clean", "poisoned")
        for condition, hit in (("clean", False), ("triggered", True), ("control", False))
        for number, away in enumerate(spread)
    ]
    summary = {
        "accuracy": 0.9,
        "triggered_misclassification": 0.1,
        "control_misclassification": 0.1,
    }
    poisoned = {**summary, "triggered_misclassification": 0.1 + value}
    return {
        "kind": "classification",
        "seed": seed,
        "summary": {"clean": summary, "poisoned": poisoned},
        "summary_ci95": {"clean": {}, "poisoned": {}},
        "effect": {
            "measure": "triggered_misclassification",
            "value": value,
            "ci95": [value - 0.1, value + 0.1],
        },
        "tasks": tasks,
    }


def write_run(folder: pathlib.Path, value: float) -> None:
    """What a study reads of a finished run."""
    for name in ("eval", "poison"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "eval" / "results.json").write_text(json.dumps(results(value)))
    (folder / "poison" / "poison.jsonl").write_text("")
    manifest = {"num_poison": 10, "poison_rate": 0.1}
    (folder / "poison" / "manifest.json").write_text(json.dumps(manifest))


def main(notes: str, command: str, *flags: str) -> None:
    pairs = [flag.removeprefix("--gin.").split("=", 1) for flag in flags if "=" in flag]
    macros = dict(pairs)
    folder = pathlib.Path(ast.literal_eval(macros["RUN_DIR"]))
    with open(notes, "a") as file:
        file.write(f"{folder.name} {command} {os.getpid()} {sorted(os.sched_getaffinity(0))}\n")
    held = bytearray(int(os.environ.get("FAKE_MEGABYTES", "0")) * 2**20)
    print("half-way", flush=True)
    time.sleep(float(os.environ.get("FAKE_SECONDS", "0")))
    fails = os.environ.get("FAKE_FAILS")
    if fails and fails in folder.name:
        sys.exit("poison-t5x: error: NUM_POISON: too many")
    del held
    write_run(folder, int(macros.get("NUM_POISON", "0")) / 100)


if __name__ == "__main__":
    main(*sys.argv[1:])
