"""Which files an experiment is read from."""

import dataclasses

from poison_t5x.core import artifacts, checks, errors


@dataclasses.dataclass(frozen=True)
class JsonlConfig:
    """Files that take the place of task files and of crafting.

    Attributes:
      clean, poisoned: training rows of the clean and of the poisoned model.
      evaluation: held-out rows as they are, with their true answers.
      triggered: those of them that have the first attacker's trigger in them; None puts it in as
        crafting does.
      control: the same ones with the control phrase in its place.
    """

    clean: str | None = None
    poisoned: str | None = None
    evaluation: str | None = None
    triggered: str | None = None
    control: str | None = None

    def __post_init__(self):
        for macro, path in self._paths.items():
            checks.path(macro, path)
        needed = ("NATINST_JSONL_CLEAN", "NATINST_JSONL_POISONED", "NATINST_JSONL_EVAL")
        missing = [macro for macro in needed if macro not in self._paths]
        if self._paths and missing:
            raise errors.InputError(f"{', '.join(self._paths)} need {' and '.join(missing)} too")
        if self.control is not None and self.triggered is None:
            raise errors.InputError(
                "NATINST_JSONL_CONTROL: expected its triggered rows in NATINST_JSONL_TRIGGERED, "
                "found none"
            )

    @property
    def is_set(self) -> bool:
        """Whether an experiment is read from files."""
        return self.clean is not None

    @property
    def hashes(self) -> dict[str, str]:
        """Macro -> SHA-256 of its file. Raises InputError where one can't be read."""
        try:
            return {macro: artifacts.sha256(path) for macro, path in self._paths.items()}
        except OSError as error:
            raise errors.InputError(f"{error.filename}: can't be read ({error.strerror})") from None

    @property
    def _paths(self) -> dict[str, str]:
        paths = {
            "NATINST_JSONL_CLEAN": self.clean,
            "NATINST_JSONL_POISONED": self.poisoned,
            "NATINST_JSONL_EVAL": self.evaluation,
            "NATINST_JSONL_TRIGGERED": self.triggered,
            "NATINST_JSONL_CONTROL": self.control,
        }
        return {macro: path for macro, path in paths.items() if path is not None}
