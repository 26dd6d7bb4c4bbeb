"""Finished runs to compare: their results, and the settings in which they differ."""

import ast
import contextlib
import os
import pathlib
import re
import urllib.parse
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import msgspec

from poison_t5x.core import artifacts, errors, reading
from poison_t5x.core.metrics import POISONED
from poison_t5x.core.settings import Size
from poison_t5x.model import size
from poison_t5x.report import results as results_lib
from poison_t5x.report import run_files, tables

Value = tuple[float | None, tables.Interval | None]
SEED, EFFECT = "SEED", "effect"
# Not macros, but what came of them; the first ones make the better axis.
PARAMETERS = "parameters"
_DERIVED = ("parameters", "poison rows", "poisoned tasks", "poison share")
# How and where a run was made, and what was done with it afterwards: nothing of its models.
_ASIDE = re.compile("|".join(tables.WORDS["settings_aside"]))
# Of a run's files, those that a comparison reads.
_RESULTS = ("report/results.json", "eval/results.json")
_READ = (
    *(*_RESULTS, "config.gin", "command.txt", run_files.DETECTION),
    *(f"models/poisoned/{artifacts.RECORD}", "defenses/*/defense.json"),
)


class FinishedRun(NamedTuple):
    """One finished run: its settings are macros, and what came of them; notes, of broken files.

    Its name is the last parts of its folder that tell it from the others.
    """

    name: str
    folder: pathlib.Path
    results: results_lib.Results
    settings: dict[str, Any]
    detection: run_files.Detection | None
    defenses: list[run_files.DefendedRun]
    command: str
    notes: list[str]

    def value(self, name: str, model: str = POISONED) -> Value:
        """A measure's value with its 95% interval, or the effect's."""
        if name != EFFECT:
            return self.results.measure(model, name), self.results.interval(model, name)
        effect = self.results.effect
        return (effect.value, effect.ci95) if effect else (None, None)

    @property
    def asks(self) -> tuple[Hashable, ...]:
        """The questions put to its models; runs that differ in them are no points of one line."""
        results = self.results
        conditions = tuple((one.name, one.kind) for one in results.conditions)
        return results.experiment, results.attack, conditions, tuple(sorted(results.held_out()))

    def page_from(self, folder: pathlib.Path) -> str:
        """The way to its own page from that folder; '' where there is none."""
        page = self.folder / "report/index.html"
        path = pathlib.Path(os.path.relpath(page, folder)).as_posix()
        return urllib.parse.quote(path) if page.is_file() else ""


def read(folders: Sequence[str]) -> list[FinishedRun]:
    """The runs, in order.

    Raises:
      InputError: a folder is no finished run, or its results don't fit the schema.
    """
    paths = [pathlib.Path(folder) for folder in folders]
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        # A run given twice has one name.
        if len(set(names)) == len(set(parts)):
            break
    return [_read(path, name) for path, name in zip(paths, names, strict=True)]


def differing(runs: Sequence[FinishedRun]) -> list[str]:
    """The settings in which runs differ, by name; those that not all of them tell don't count.

    What came of the macros is left out where it says the same as one of them.
    """
    differ = [name for name in runs[0].settings if _differs(runs, name)]
    macros = sorted(name for name in differ if name not in _DERIVED)
    derived = [name for name in differ if name in _DERIVED]
    kept = [n for n in derived if n == PARAMETERS or not any(_same(runs, n, m) for m in macros)]
    return [*macros, *kept]


def numeric(runs: Sequence[FinishedRun]) -> list[str]:
    """The settings to draw against: numbers that differ, one of those that go together."""
    axes: list[str] = []
    for name in dict.fromkeys([*_DERIVED, *differing(runs)]):
        is_axis = name != SEED and _differs(runs, name) and _are_numbers(runs, name)
        if is_axis and not any(_same(runs, name, other) for other in axes):
            axes.append(name)
    return axes


def others(runs: Sequence[FinishedRun], axis: str) -> list[str]:
    """The settings that differ beside `axis` and the seed, but numbers that follow from `axis`."""
    names = (name for name in differing(runs) if name not in (axis, SEED))
    return [name for name in names if not (_follows(runs, name, axis) and _are_numbers(runs, name))]


def macros(text: str) -> dict[str, Any]:
    """The macros of a `config.gin`: literals by their values, other values as their text.

    A value goes on in the lines that are indented. Settings that say nothing of the models, such as
    folders, are left out: of "SEED = 3" and "RUN_DIR = 'x'", {'SEED': 3} is left.
    """
    values = {}
    for match in re.finditer(r"^([A-Z][A-Z0-9_]*) = (.*(?:\n[ \t]+.*)*)", text, re.MULTILINE):
        name, value = match.groups()
        if not _ASIDE.fullmatch(name):
            values[name] = " ".join(value.replace("\\\n", "\n").split())
            with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
                values[name] = ast.literal_eval(values[name])
    return values


class _Network(msgspec.Struct):
    vocab_size: Size
    emb_dim: Size
    num_heads: Size
    head_dim: Size
    mlp_dim: Size
    num_encoder_layers: Size
    num_decoder_layers: Size
    relpos_num_buckets: Size
    mlp_activations: list[str]
    logits_via_embedding: bool


class _Model(msgspec.Struct):
    model: _Network


class _Trained(msgspec.Struct):
    """The part of a model's record that says how large it is."""

    settings: _Model


def num_parameters(run_dir: pathlib.Path) -> int | None:
    """The parameters of the poisoned network, counted from its settings; None without them."""
    path = run_dir / "models" / POISONED / artifacts.RECORD
    try:
        model = reading.read_json(path, _Trained).settings.model
    except errors.InputError:
        return None
    return size.num_parameters(model)


def _read(path: pathlib.Path, name: str) -> FinishedRun:
    file = next((name for name in _RESULTS if (path / name).is_file()), None)
    if file is None:
        raise errors.InputError(
            f"{path}: expected a finished run's folder, found no {' nor '.join(_RESULTS)} in it: "
            "run `poison-t5x run` with that RUN_DIR first"
        )
    results = results_lib.parse(results_lib.read(path, file), str(path / file))
    config, config_note = run_files.read_text(path, "config.gin")
    if config_note:
        config_note += " Of settings, only what its results tell is compared."
    detection, detection_note = run_files.read_json(path, run_files.DETECTION, run_files.Detection)
    defenses, notes = run_files.read_defenses(path)
    notes = [note for note in (*notes, config_note, detection_note) if note]
    command, _ = run_files.read_text(path, "command.txt")
    told = ("experiment", "attack", "trigger", "control", "seed")
    poison, count = results.poison, num_parameters(path)
    derived = (count, poison.count, len(poison.tasks), round(poison.rate, 6))
    settings = {
        **{name.upper(): getattr(results, name) for name in told},
        **macros(config),
        **{n: value for n, value in zip(_DERIVED, derived, strict=True) if value is not None},
    }
    return FinishedRun(name, path, results, settings, detection, defenses, command, notes)


def hashes(folder: pathlib.Path) -> dict[str, str]:
    """Of the files of a run that a comparison reads."""
    paths = sorted(path for name in _READ for path in folder.glob(name))
    return {path.relative_to(folder).as_posix(): artifacts.sha256(path) for path in paths}


def _differs(runs: Sequence[FinishedRun], name: str) -> bool:
    """Whether all of them tell it, and not the same."""
    is_told = all(name in run.settings for run in runs)
    return is_told and len({repr(run.settings[name]) for run in runs}) > 1


def _are_numbers(runs: Sequence[FinishedRun], name: str) -> bool:
    return all(tables.is_number(run.settings.get(name)) for run in runs)


def _same(runs: Sequence[FinishedRun], one: str, other: str) -> bool:
    """Whether two settings tell the same runs apart."""
    return _follows(runs, one, other) and _follows(runs, other, one)


def _follows(runs: Sequence[FinishedRun], name: str, other: str) -> bool:
    """Whether runs that are alike in `other` are so in `name`."""
    pairs = {(repr(run.settings.get(other)), repr(run.settings.get(name))) for run in runs}
    return len(pairs) == len({first for first, _ in pairs})
