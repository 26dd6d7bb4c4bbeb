"""Finished runs side by side: what differs in their settings, and which differ by seed alone."""

import pathlib
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from poison_t5x.core import errors
from poison_t5x.report import defenses, detection, run_files, settings, words
from poison_t5x.report import results as results_lib

SEED = "SEED"
# Not macros, but what came of them; the first ones make the better axis.
PARAMETERS, ROWS, TASKS, SHARE = "parameters", "poison rows", "poisoned tasks", "poison share"
_DERIVED = (PARAMETERS, ROWS, TASKS, SHARE)
# The measures of each kind: that without the trigger, with it, and with an unseen name.
MEASURES = {kind: list(names.items()) for kind, names in defenses.MEASURES.items()}


class Run(NamedTuple):
    """One finished run.

    Attributes:
      name: the last parts of its folder that tell it from the others.
      settings: its macros, and what came of them.
      notes: what couldn't be read.
    """

    name: str
    folder: pathlib.Path
    results: results_lib.Results
    settings: dict[str, Any]
    detection: detection.Detection | None
    defenses: list[defenses.Defense]
    command: str
    notes: list[str]

    def setting(self, name: str) -> Any:
        """Its value, None where it has none."""
        return self.settings.get(name)


class Group(NamedTuple):
    """Runs that differ in nothing but their seed."""

    runs: list[Run]

    def mean(self, model: str, measure: str) -> float | None:
        """Over seeds, of a measure."""
        values = self.values(model, measure)
        return sum(values) / len(values) if values else None

    def values(self, model: str, measure: str) -> list[float]:
        """Of the runs that have any."""
        found = (run.results.measure(model, measure) for run in self.runs)
        return [value for value in found if not words.missing(value)]

    def effects(self) -> list[float]:
        """Of the runs that have one."""
        found = (run.results.effect and run.results.effect.value for run in self.runs)
        return [value for value in found if not words.missing(value)]


def read(folders: Sequence[str]) -> list[Run]:
    """The runs, in order.

    Raises:
      InputError: a folder is no finished run, or its results don't fit the schema.
    """
    paths = [pathlib.Path(folder) for folder in folders]
    return [_read(path, name) for path, name in zip(paths, _names(paths), strict=True)]


def differing(runs: Sequence[Run]) -> list[str]:
    """The settings in which runs differ, by name; those that not all of them tell don't count.

    What came of the macros is left out where it says the same as one of them.
    """
    shared = [name for name in runs[0].settings if all(name in run.settings for run in runs)]
    found = [name for name in shared if len({_key(run.setting(name)) for run in runs}) > 1]
    macros = sorted(name for name in found if name not in _DERIVED)
    derived = [name for name in found if name in _DERIVED]
    kept = [
        name
        for name in derived
        if name == PARAMETERS or not any(_same(runs, name, other) for other in macros)
    ]
    return [*macros, *kept]


def groups(runs: Sequence[Run], names: Sequence[str]) -> list[Group]:
    """Runs by all of `names` but the seed, in the order of their first ones."""
    found: dict[Hashable, list[Run]] = {}
    for run in runs:
        # A run that doesn't tell a setting may differ in it.
        told = frozenset(run.settings)
        key = (told, *(_key(run.setting(name)) for name in names if name != SEED))
        found.setdefault(key, []).append(run)
    return [Group(members) for members in found.values()]


def numeric(runs: Sequence[Run]) -> list[str]:
    """The settings to draw against: numbers that differ, one of those that go together."""
    names = differing(runs)
    shared = (name for name in _DERIVED if all(name in run.settings for run in runs))
    candidates = [*shared, *(name for name in names if name not in _DERIVED)]
    found: list[str] = []
    for name in candidates:
        values = [run.setting(name) for run in runs]
        if name == SEED or not all(map(_is_number, values)) or len(set(values)) < 2:
            continue
        if not any(_same(runs, name, other) for other in found):
            found.append(name)
    return found


def others(runs: Sequence[Run], axis: str) -> list[str]:
    """The settings that differ beside `axis` and the seed, and don't follow from `axis`."""
    names = (name for name in differing(runs) if name not in (axis, SEED))
    return [name for name in names if not _follows(runs, name, axis)]


def shown(value: Any, most: int = 40) -> str:
    """A setting's value for people: texts without quotes, numbers with thousands apart."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = "–" if value is None else value if isinstance(value, str) else str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def _read(path: pathlib.Path, name: str) -> Run:
    places = [path / place / "results.json" for place in ("report", "eval")]
    place = next((place for place in places if place.is_file()), None)
    if place is None:
        raise errors.InputError(
            f"{path}: expected a finished run's folder, found no report/results.json nor "
            "eval/results.json in it: run `poison-t5x run` with that RUN_DIR first"
        )
    results = results_lib.parse(results_lib.read_file(place), str(place))
    config, config_note = run_files.read_text(path, "config.gin")
    found, detection_note = detection.read(path)
    defended, notes = defenses.read(path)
    if config_note:
        notes.append(f"{config_note} Of settings, only what its results tell is compared.")
    notes += [detection_note] if detection_note else []
    command, _ = run_files.read_text(path, "command.txt")
    known = _settings(path, results, config)
    return Run(name, path, results, known, found, defended, command, notes)


def _settings(path: pathlib.Path, results: results_lib.Results, config: str) -> dict[str, Any]:
    found = {
        "EXPERIMENT": results.experiment,
        "ATTACK": results.attack,
        "TRIGGER": results.trigger,
        "CONTROL": results.control,
        SEED: results.seed,
        **settings.macros(config),
        ROWS: results.poison.count,
        TASKS: len(results.poison.tasks),
        SHARE: round(results.poison.rate, 6),
    }
    parameters = settings.num_parameters(path)
    return found if parameters is None else {**found, PARAMETERS: parameters}


def _names(paths: Sequence[pathlib.Path]) -> list[str]:
    """As few of each path's last parts as tell the paths apart; a path given twice has one name."""
    parts = [path.resolve().parts for path in paths]
    for length in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [str(path) for path in paths]


def _key(value: Any) -> Hashable:
    return repr(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _same(runs: Sequence[Run], one: str, other: str) -> bool:
    """Whether two settings tell the same runs apart."""
    return _follows(runs, one, other) and _follows(runs, other, one)


def _follows(runs: Sequence[Run], name: str, other: str) -> bool:
    """Whether runs that are alike in `other` are so in `name`."""
    pairs = {(_key(run.setting(other)), _key(run.setting(name))) for run in runs}
    return len(pairs) == len({first for first, _ in pairs})
