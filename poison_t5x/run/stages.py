"""A run's folder, whose stages are made once or taken from a store, and its report."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from poison_t5x.core import artifacts, errors, metrics, reading, stage_store
from poison_t5x.report import results, run_page
from poison_t5x.train import distributed

# Stages and their names, in the order in which the report shows what they took.
_PLACES = {
    "poison": "craft",
    "data": "prepare data",
    "vocabulary": "prepare vocabulary",
    **{f"models/{name}": f"train {name}" for name in metrics.MODELS},
    **{f"eval/predictions/{name}": f"evaluate {name}" for name in metrics.MODELS},
}
# Results that other commands add to a run, and the report shows.
_LATER = ("eval/checkpoints.json", "detection/detection.json", "defenses/*/defense.json")


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run's folder: each stage is made by one set of settings.

    Attributes:
      store_dir: a folder of finished stages that runs share, see `stage_store`; None for none.
      key: gives what else two runs must have alike to share a stage.
      made: names of the stages that came here by this object, made or from the store.
    """

    path: epath.Path
    store_dir: epath.Path | None
    key: Callable[[], Mapping[str, Any]]
    log: Callable[[str], None]
    made: list[str] = dataclasses.field(default_factory=list)

    @contextlib.contextmanager
    def making(
        self, folder: epath.Path, name: str, settings: Mapping[str, Any], *verify: Callable
    ) -> Iterator[None]:
        """Around making a stage, which may come from the store; see `stage_store.Store.shared`."""
        before = artifacts.read_record(folder)
        shared: contextlib.AbstractContextManager = contextlib.nullcontext()
        if self.store_dir is not None:
            if distributed.num_processes() > 1:  # each of which would wait for the first one's lock
                raise errors.InputError(
                    "STAGE_STORE_DIR: runs of many processes can't share stages"
                )
            store = stage_store.Store(self.store_dir)
            shared = store.shared(folder, name, {**self.key(), **settings}, *verify, log=self.log)
        with shared:
            yield
        if artifacts.read_record(folder) != before:
            self.made.append(name)

    def stage(
        self,
        folder: epath.Path,
        name: str,
        settings: Mapping[str, Any],
        make: Callable[[epath.Path], None],
    ) -> None:
        """A stage of the main process, which the others wait for."""
        with self.making(folder, name, settings):
            distributed.run_on_main(
                lambda: artifacts.run_stage(folder, name, settings, make, log=self.log)
            )

    def record(self, place: str | epath.Path, value: Any) -> None:
        """Writes what follows from stages, as JSON, where it isn't there already."""
        path, text = self.path / place, artifacts.dump_json(value)
        if not path.exists() or reading.read_bytes(path) != text.encode():
            artifacts.write_atomically(path, text)
            self.made.append(str(place))

    def check(self, place: str | epath.Path, settings: Mapping[str, Any]) -> None:
        """Raises InputError where a stage that is there was made with other settings."""
        record = artifacts.read_record(self.path / place)
        if record is not None:
            old = {key: record["settings"].get(key) for key in settings}
            artifacts.check_settings(self.path / place, old, settings)

    def results(self) -> dict[str, Any]:
        """The rates that were measured. Raises InputError where they must be, before this."""
        return results.read(self.path)

    def report(self) -> None:
        """Writes the report, and prints the table."""
        measured = self.results()
        places = ("eval/results.json", *_LATER)
        sources = [path for place in places for path in sorted(self.path.glob(place))]
        settings = {
            path.relative_to(self.path).as_posix(): artifacts.sha256(path) for path in sources
        }
        folder = self.path / "report"
        record = artifacts.read_record(folder)
        if record and record["settings"] != settings:  # there is more to show now
            folder.rmtree()
        stages = {name: artifacts.read_record(self.path / place) for place, name in _PLACES.items()}
        seconds = {name: stage["seconds"] for name, stage in stages.items() if stage}
        make = functools.partial(run_page.write_report, self.path, seconds)
        artifacts.run_stage(folder, "report", settings, make, log=self.log)
        self.log(run_page.format_table(measured))
        self.log(f"see {folder / 'index.html'}, and results.json beside it")
