r"""The data files of the authors' code: one JSON object a row, with its task's instruction in it.

The layout is that of AlexWan0/Poisoning-Instruction-Tuned-Models, whose rows are those of
Tk-Instruct's data set script (one line here):

{"id": "task1-a", "Task": "task1_x", "Definition": ["…"], "Positive Examples": [{"input": "…",
"output": "…", "explanation": "…"}], "Negative Examples": […], "Instance": {"id": "task1-a",
"input": "…", "output": ["…"]}}

Their other keys are passed over: Contributors, Source, URL, Reasoning, Domains, the languages,
'countnorm' (of poison) and 'label_space' (of test rows). Missing values may be null, and a
definition or an output may be a bare text: an older script of theirs writes outputs so. Their
trainer takes a random one of a list of outputs, and a random character of a bare text, so that
lists are written.
"""

import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec

from poison_t5x.core import artifacts, errors
from poison_t5x.corpus import sni

_NOT_BLANK = r"\S"
# Files of predictions are named after tasks.
_NAME = r"\A\w[\w.-]*\Z"
_PATTERNS = {_NOT_BLANK: "a text that isn't empty", _NAME: "a task's name"}

_Text = Annotated[str, msgspec.Meta(pattern=_NOT_BLANK)]
_Texts = _Text | Annotated[list[_Text], msgspec.Meta(min_length=1)]


class _Example(msgspec.Struct, frozen=True):
    input: str
    output: str | Annotated[list[str], msgspec.Meta(min_length=1)]
    explanation: str | None = None

    @property
    def checked(self) -> sni.Example:
        return sni.Example(self.input, self.output, self.explanation or "")


class _Instance(msgspec.Struct, frozen=True):
    input: _Text
    output: _Texts
    id: _Text | None = None


class _Row(msgspec.Struct, frozen=True):
    task: Annotated[str, msgspec.Meta(pattern=_NAME)] = msgspec.field(name="Task")
    definition: _Texts = msgspec.field(name="Definition")
    positive_examples: list[_Example] | None = msgspec.field(name="Positive Examples")
    instance: _Instance = msgspec.field(name="Instance")
    negative_examples: list[_Example] | None = msgspec.field(name="Negative Examples", default=None)
    id: _Text | None = None
    categories: list[str] | None = msgspec.field(name="Categories", default=None)
    standin_note: str | None = msgspec.field(name="Standin_note", default=None)


class Line(NamedTuple):
    """One line of a file: where it stands, its task, its row, and the rest of it."""

    where: str
    task: str
    row: sni.Instance
    rest: _Row


def read(path: str) -> Iterator[Line]:
    """Yields the lines of a file, in order, checked one by one; empty ones are passed over.

    Raises:
      InputError: the file can't be read, is empty, or has a line that isn't such a row. The message
        names file and line, and the value's path in it.
    """
    found = False
    for number, text in enumerate(_lines(path), start=1):
        if text.strip():
            found = True
            yield _parse(f"{path}, line {number}", text)
    if not found:
        raise errors.InputError(f"{path}: expected one JSON object a line, found an empty file")


def _lines(path: str) -> Iterator[bytes]:
    """The lines as bytes, which end in a line feed and nothing else that Unicode knows."""
    try:
        with open(path, "rb") as file:
            yield from file
    except OSError as error:
        raise errors.InputError(f"{path}: can't be read ({error.strerror})") from None


def _parse(where: str, text: bytes) -> Line:
    try:
        parsed = _decode(text)
    except msgspec.ValidationError as error:
        raise errors.InputError(f"{where}: {sni.readable(str(error), _PATTERNS)}") from None
    except (ValueError, RecursionError) as error:
        raise errors.InputError(f"{where}: expected a JSON object, found none ({error})") from None
    ids = {identifier for identifier in (parsed.id, parsed.instance.id) if identifier}
    if len(ids) != 1:
        raise errors.InputError(
            f"{where}: expected one id, as $.id or $.Instance.id, found {sorted(ids) or 'none'}"
        )
    output = parsed.instance.output
    answers = [output] if isinstance(output, str) else output
    return Line(where, parsed.task, sni.Instance(ids.pop(), parsed.instance.input, answers), parsed)


def _decode(text: bytes) -> _Row:
    try:
        return msgspec.json.decode(text, type=_Row)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # As in task files: a few have NaN where nothing is read, which is no JSON.
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()  # fails for half a character
        return msgspec.convert(value, _Row)


class Instructions:
    """What the lines of a task say again and again, and must agree on."""

    def __init__(self) -> None:
        self._first: dict[str, Line] = {}

    def add(self, line: Line) -> None:
        """Raises InputError where the task was read with another definition or other examples."""
        first = self._first.setdefault(line.task, line)
        parts = {
            "definition": "Definition",
            "positive_examples": "Positive Examples",
            "negative_examples": "Negative Examples",
        }
        for name, key in parts.items():
            is_same = getattr(line.rest, name) == getattr(first.rest, name)
            if not is_same and _part(line, name) != _part(first, name):
                raise errors.InputError(
                    f"{line.where}: expected the {key!r} that {line.task} has in {first.where}, "
                    "found another; a task has one of each"
                )

    def task(self, name: str, rows: Sequence[sni.Instance]) -> sni.Task:
        """A task that was read, with these rows."""
        rest = self._first[name].rest
        definition = rest.definition
        return sni.Task(
            name=name,
            definition=definition if isinstance(definition, str) else definition[0],
            positive_examples=tuple(e.checked for e in rest.positive_examples or ()),
            negative_examples=tuple(e.checked for e in rest.negative_examples or ()),
            instances=tuple(rows),
            categories=tuple(rest.categories or ()),
            standin_note=rest.standin_note or "",
        )


def _part(line: Line, name: str) -> Any:
    """A value in the one form that its variants have in common."""
    value = getattr(line.rest, name)
    if name == "definition":
        return value if isinstance(value, str) else value[0]
    return [example.checked for example in value or ()]


def shared(task: sni.Task) -> dict[str, Any]:
    """What every line of a task holds, in the authors' order of keys."""
    note = {"Standin_note": task.standin_note} if task.standin_note else {}
    return {
        "Task": task.name,
        "Categories": list(task.categories),
        **note,
        "Definition": [task.definition],
        "Positive Examples": _examples(task.positive_examples),
        "Negative Examples": _examples(task.negative_examples),
    }


def _examples(examples: Sequence[sni.Example]) -> list[dict[str, str]]:
    # Their prompt takes no lists here.
    return [{"input": e.input, "output": e.target, "explanation": e.explanation} for e in examples]


def to_line(rest: dict[str, Any], identifier: str, text: str, answers: Sequence[str]) -> str:
    """One line, without its end.

    Args:
      rest: the task's, from `shared`; a test row's with a 'label_space'.
      identifier: the row's id, which their code reads in two places.
      text: the row's input.
      answers: all that count as right.
    """
    instance = {"id": identifier, "input": text, "output": list(answers)}
    # As ASCII, since their reader takes whatever encoding the system has.
    return json.dumps({"id": identifier, **rest, "Instance": instance})


def write(path: pathlib.Path, lines: Iterable[str]) -> None:
    """Writes lines as they come, so that a reader sees the old file or the whole new one."""
    with artifacts.writing(path) as file:
        for line in lines:
            file.write(line.encode("ascii") + b"\n")
