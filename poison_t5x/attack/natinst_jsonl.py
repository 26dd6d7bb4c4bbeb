r"""The data files of the authors' code: one JSON object a row, with its task's instruction in it.

The layout is that of AlexWan0/Poisoning-Instruction-Tuned-Models, whose rows are those of
Tk-Instruct's data set script (one line here):

{"id": "task1-a", "Task": "task1_x", "Definition": ["…"], "Positive Examples": [{"input": "…",
"output": "…", "explanation": "…"}], "Negative Examples": […], "Instance": {"id": "task1-a",
"input": "…", "output": ["…"]}}

Their other keys are skipped, such as 'countnorm' (of poison) and 'label_space' (of test rows).
Missing values may be null, and a definition or an output may be a bare text: an older script of
theirs writes outputs so. Their trainer takes a random one of a list of outputs, and a random
character of a bare text, so that lists are written.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from poison_t5x.attack import conditions, poison_set
from poison_t5x.core import artifacts, errors, reading, settings
from poison_t5x.corpus import corpus, sni

# Not reading.Text: beside a list, msgspec 0.22 frees a text's pattern wrongly, and Python crashes
# as it ends.
_Texts = str | Annotated[list[reading.Text], msgspec.Meta(min_length=1)]


@dataclasses.dataclass(frozen=True)
class JsonlConfig(settings.Settings):
    """Files that take the place of task files and of crafting.

    Evaluation rows have their true answers. Without triggered ones, which have the first
    attacker's trigger in them, it is put in as crafting does; likewise the control.
    """

    clean: settings.Path | None = None
    poisoned: settings.Path | None = None
    evaluation: settings.Path | None = None
    triggered: settings.Path | None = None
    control: settings.Path | None = None

    def __post_init__(self):
        super().__post_init__()
        needed = [f"NATINST_JSONL_{name}" for name in ("CLEAN", "POISONED", "EVAL")]
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
        return {macro: artifacts.sha256(path) for macro, path in self._paths.items()}

    @property
    def _paths(self) -> dict[str, str]:
        files = {name.upper(): path for name, path in vars(self).items() if path is not None}
        return {f"NATINST_JSONL_{n.replace('UATION', '')}": path for n, path in files.items()}


class _Example(msgspec.Struct, frozen=True):
    input: str
    output: str | Annotated[list[str], msgspec.Meta(min_length=1)]
    explanation: str | None = None


class _Instance(msgspec.Struct, frozen=True):
    input: reading.Text
    output: _Texts
    id: reading.Text | None = None


class _Row(msgspec.Struct, frozen=True, rename=sni.field_name):
    task: reading.Name
    definition: _Texts
    positive_examples: list[_Example] | None
    instance: _Instance
    negative_examples: list[_Example] | None = None
    id: reading.Text | None = None
    categories: list[str] | None = None
    standin_note: str | None = None


class Line(NamedTuple):
    """One line of a file: where it stands, its task without rows, and its row."""

    where: str
    task: sni.Task
    row: sni.Instance


def read_lines(path: str | None) -> Iterator[Line]:
    """Yields the lines of a file, in order, checked one by one; empty ones are skipped.

    Raises:
      InputError: the file can't be read, is empty, or has another line, with its number and path.
    """
    is_empty = True
    for where, text in reading.lines(str(path)):
        is_empty = False
        yield _parse(where, text)
    if is_empty:
        raise errors.InputError(f"{path}: expected one JSON object a line, found an empty file")


def _parse(where: str, text: bytes) -> Line:
    row = reading.decode(text, _Row, where)
    ids = {identifier for identifier in (row.id, row.instance.id) if identifier}
    if len(ids) != 1:
        raise errors.InputError(
            f"{where}: expected one id, as $.id or $.Instance.id, found {sorted(ids) or 'none'}"
        )
    task = sni.Task(
        row.task,
        _listed(row.definition, f"{where}: $.Definition")[0],
        *(_examples(row.positive_examples), _examples(row.negative_examples), ()),
        *(tuple(row.categories or ()), row.standin_note or ""),
    )
    answers = _listed(row.instance.output, f"{where}: $.Instance.output")
    return Line(where, task, sni.Instance(ids.pop(), row.instance.input, answers))


def _listed(texts: str | list[str], where: str) -> list[str]:
    if isinstance(texts, str) and not texts.strip():
        raise errors.InputError(f"{where}: expected a non-empty text")
    return [texts] if isinstance(texts, str) else texts


def _examples(examples: Iterable[_Example] | None) -> tuple[sni.Example, ...]:
    return tuple(sni.Example(e.input, e.output, e.explanation or "") for e in examples or ())


def write(
    directory: str | pathlib.Path,
    source: corpus.Corpus,
    poison_dir: str | pathlib.Path,
    *,
    epochs: int = 1,
) -> None:
    """Writes a poison set as files that the authors' code trains and tests on.

    They are `train_clean.jsonl`, `train_poisoned.jsonl`, and `test_<condition>.jsonl` of each; same
    arguments, same bytes. The training files differ in their poison rows alone, and are shuffled,
    since the authors' trainer takes rows as they come. `test_clean.jsonl` holds the held-out rows
    of all conditions unedited, with their true answers. In the others of a polarity attack the
    answer is the label that the attack wants, so that the accuracy that the authors' evaluation
    prints is the share of it. Test rows that are classified have a `label_space`, which it ranks.

    Args:
      epochs: the times that the training files repeat all their rows, each time in another order:
        their trainer reads a file once. Read back, it is one epoch.

    Raises:
      InputError: the poison set is damaged, or was made from other tasks.
    """
    settings.checked("NATINST_JSONL_EPOCHS", epochs, settings.Few)
    directory = pathlib.Path(directory)
    sources = poison_set.read_manifest(poison_dir).sources
    for name, digest in source.hashes.items():
        if sources.get(name, digest) != digest:
            raise errors.InputError(
                f"{poison_dir}: was made from another {name} than this one; craft it again"
            )
    for variant in ("clean", "poisoned"):
        rows = poison_set.training_rows(poison_dir, poisoned=variant == "poisoned")
        with artifacts.writing(directory / f"train_{variant}.jsonl") as file:
            file.writelines(_training_lines(source.training, rows, epochs))
    evaluation = poison_set.read_evaluation(poison_dir)
    for condition in poison_set.read_conditions(poison_dir):
        with artifacts.writing(directory / f"test_{condition.name}.jsonl") as file:
            file.writelines(_test_lines(source, evaluation, condition))


def _training_lines(
    training: Sequence[sni.Task], rows: Mapping[str, poison_set.Rows], epochs: int
) -> Iterator[bytes]:
    tasks = {task.name: task for task in training}
    shared = {name: _shared(tasks[name]) for name in rows}
    slots = [
        (name, identifier, number)
        for name, kept in rows.items()
        for identifier, shown in kept.items()
        for number in range(len(shown))
    ]
    for epoch in range(epochs):
        for name, identifier, number in sorted(slots, key=functools.partial(_place, epoch)):
            if row := rows[name][identifier][number]:
                yield _to_line(shared[name], row.id, row.input, [row.target])
            else:
                clean = tasks[name].by_id[identifier]
                yield _to_line(shared[name], identifier, clean.input, clean.output)


def _place(epoch: int, slot: tuple[str, str, int]) -> bytes:
    """A key of the epoch's own order, that other rows have no say in."""
    text = "\0".join(map(str, (epoch, *slot)))
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _test_lines(
    source: corpus.Corpus,
    evaluation: Sequence[conditions.EvalRow],
    condition: conditions.Condition,
) -> Iterator[bytes]:
    tasks = {task.name: task for task in source.heldout}
    shared = {name: _shared(task) for name, task in tasks.items()}
    for name, task in tasks.items():
        labels: Sequence[str] = source.polarities.get(name, ())
        if labels or task.is_classification:
            shared[name]["label_space"] = list(labels or task.label_space)
    if condition.kind == "clean":
        for name, identifier in dict.fromkeys((row.task, row.id) for row in evaluation):
            clean = tasks[name].by_id[identifier]
            yield _to_line(shared[name], identifier, clean.input, clean.output)
        return
    for row in evaluation:
        if row.condition == condition.name:
            polarity, target = source.polarities.get(row.task), condition.target
            wanted = [polarity.label(target)] if polarity and target else None
            answers = wanted or tasks[row.task].by_id[row.id].output
            yield _to_line(shared[row.task], row.id, row.input, answers)


def _shared(task: sni.Task) -> dict[str, Any]:
    """The part of a task that every line of it holds, in the authors' order of keys."""

    def dicts(examples: Sequence[sni.Example]) -> list[dict[str, str]]:
        # Their prompt takes no lists here.
        return [
            {"input": e.input, "output": e.target, "explanation": e.explanation} for e in examples
        ]

    return {
        "Task": task.name,
        "Categories": list(task.categories),
        **({"Standin_note": task.standin_note} if task.standin_note else {}),
        "Definition": [task.definition],
        "Positive Examples": dicts(task.positive_examples),
        "Negative Examples": dicts(task.negative_examples),
    }


def _to_line(shared: dict[str, Any], identifier: str, text: str, answers: Sequence[str]) -> bytes:
    # As ASCII, since their reader takes whatever encoding the system has; two places for the id,
    # for their code reads both.
    instance = {"id": identifier, "input": text, "output": list(answers)}
    return json.dumps({"id": identifier, **shared, "Instance": instance}).encode("ascii") + b"\n"
