"""The optional files of a run: what is missing or broken leaves a note, never a crash."""

import json
import pathlib
from typing import Generic, NamedTuple, TypeVar

import msgspec

_T = TypeVar("_T")


class Rows(NamedTuple, Generic[_T]):
    """The rows of one file and, where something is wrong with it, a note that says what."""

    rows: list[_T]
    note: str = ""


class MetricsRow(msgspec.Struct, frozen=True):
    """One line of a model's `metrics.jsonl`: losses in nats a target token."""

    step: int
    loss: float | None = None
    loss_clean: float | None = None
    loss_poison: float | None = None


class PoisonRow(msgspec.Struct, frozen=True):
    """One line of `poison.jsonl`; `spans` are the trigger's places in `poisoned_input`.

    `input` and `target` are None where a row was imported and its original is not known.
    `target_probability` is the proxy's probability of the poisoned label; `phi` is None for
    selections without a score.
    """

    task: str
    id: str
    poisoned_input: str
    poisoned_target: str
    input: str | None = None
    target: str | None = None
    spans: list[tuple[int, int]] = []
    attack: str = ""
    trigger: str = ""
    trigger_count: int | None = None
    target_probability: float | None = None
    phi: float | None = None
    rank: int | None = None


class Prediction(msgspec.Struct, frozen=True):
    """One line of a predictions file.

    Labels that were ranked have `log_probabilities`, summed over their tokens; decoded answers have
    `rouge_l`, F1 of the best of their `references`.
    """

    id: str
    input: str
    target: str
    prediction: str
    log_probabilities: dict[str, float] = {}
    references: list[str] = []
    rouge_l: float | None = None


def read_rows(run_dir: pathlib.Path, name: str, kind: type[_T]) -> Rows[_T]:
    """The lines of `run_dir / name` as `kind`, up to the first that doesn't fit."""
    rows = []
    try:
        lines = (run_dir / name).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        return Rows(rows, _unreadable(name, error))
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                rows.append(msgspec.convert(json.loads(line), kind))
        except ValueError as error:
            return Rows(rows, f"{name} was read up to line {number}, which is broken: {error}.")
    return Rows(rows, "" if rows else f"{name} is empty.")


def read_json(run_dir: pathlib.Path, name: str, kind: type[_T]) -> tuple[_T | None, str]:
    """`run_dir / name` as `kind`, and a note where it doesn't fit.

    A file that isn't there leaves no note: not every run has it.
    """
    try:
        return msgspec.convert(json.loads((run_dir / name).read_text("utf-8")), kind), ""
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, _unreadable(name, error)
    except ValueError as error:
        return None, f"{name} doesn’t have the form that this version reads: {error}."


def read_text(run_dir: pathlib.Path, name: str) -> tuple[str, str]:
    """The text of `run_dir / name`, and a note where there is none."""
    try:
        text = (run_dir / name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        return "", _unreadable(name, error)
    return text, "" if text else f"{name} is empty."


def _unreadable(name: str, error: Exception) -> str:
    missing = isinstance(error, FileNotFoundError)
    return f"{name} is not in the run folder." if missing else f"{name} can’t be read."
