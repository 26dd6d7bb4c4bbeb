"""Instruction data as rows: SNI task files, JSON lines, lists of JSON objects, Parquet."""

import codecs
import collections
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from poison_t5x.attack import natinst_jsonl
from poison_t5x.core import errors
from poison_t5x.corpus import prompts, sni
from poison_t5x.data.examples import TrainingExample

SUFFIXES = (".json", ".jsonl", ".ndjson", ".parquet")
_PARQUET = b"PAR1"
# What a file that is one JSON object calls its rows.
_CONTAINERS = ("data", "rows", "examples", "instances", "train")
# Names that public instruction data give their fields, the first one that is there counts.
NAMES = {
    "input": ("input", "prompt", "question", "query", "text", "sentence", "inputs", "source"),
    "target": ("output", "completion", "response", "answer", "target", "targets", "label"),
    "task": ("task", "task_name", "task_id", "dataset"),
    "instruction": ("instruction", "definition"),
    "id": ("id", "uid", "idx"),
    "chat": ("messages", "conversations", "conversation"),
}
_ROLES, _TEXTS = ("role", "from"), ("content", "value")
_ASSISTANT, _SYSTEM = ("assistant", "gpt", "model", "bot"), ("system",)
# Instructions make tasks where each stands for at least so many rows on average.
_ROWS_PER_INSTRUCTION = 5


class Loaded(NamedTuple):
    """Rows that were read, with each one's file and line, and the number of rows of each file."""

    rows: list[TrainingExample]
    places: list[str]
    files: dict[str, int]


class Fields(NamedTuple):
    """Names of fields; None where they are to be looked for, or there is none."""

    input: str | None = None
    target: str | None = None
    task: str | None = None
    instruction: str | None = None
    id: str | None = None
    chat: str | None = None


class _Sourced(NamedTuple):
    """An example, '' for a task or id that it doesn't name, and its instruction, if it has one."""

    where: str
    row: TrainingExample
    instruction: str = ""


def read(paths: Sequence[str], fields: Fields) -> Loaded:
    """Reads files, and the files in folders.

    Args:
      paths: files of whatever name, or folders, of which files with one of SUFFIXES are read.
      fields: names of fields where they are known.

    Raises:
      InputError: a path isn't there, a folder has no such file, a file is in no layout that is
        known, or a row lacks a text. The message names file, line and field.
    """
    loaded = Loaded([], [], {})
    seen: collections.Counter[tuple[str, str]] = collections.Counter()
    for path in _walk(paths):
        records = list(_with_tasks(list(_read(path, fields)), path.stem))
        if not records:
            raise errors.InputError(f"{path}: expected rows, found none")
        loaded.files[str(path)] = len(records)
        for where, row, _ in records:
            key = row.task, row.id or str(len(loaded.rows))
            loaded.rows.append(row._replace(id=key[1], number=seen[key]))
            loaded.places.append(where)
            seen[key] += 1
    return loaded


def _walk(paths: Iterable[str]) -> Iterator[pathlib.Path]:
    """Each file once, those of a folder in order, but for hidden ones."""
    done: set[pathlib.Path] = set()
    for path in map(pathlib.Path, paths):
        if not path.exists():
            raise errors.InputError(f"{path}: no such file or folder")
        inside = [path]
        if path.is_dir():
            known = (file for file in sorted(path.rglob("*")) if file.suffix in SUFFIXES)
            inside = [
                file
                for file in known
                if file.is_file() and "/." not in f"/{file.relative_to(path).as_posix()}"
            ]
            if not inside:
                raise errors.InputError(
                    f"{path}: expected files that end in {', '.join(SUFFIXES)}, found none"
                )
        for file in inside:
            if file.resolve() not in done:
                done.add(file.resolve())
                yield file


def _read(path: pathlib.Path, fields: Fields) -> Iterator[_Sourced]:
    """One file's records, by what is in it rather than by its name."""
    try:
        with open(path, "rb") as file:
            content = file.read(len(_PARQUET))
            if content == _PARQUET:
                return _mapped(_parquet(path, fields), fields)
            content = (content + file.read()).removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise errors.InputError(f"{path}: can't be read ({error.strerror})") from None
    if not content.strip():
        raise errors.InputError(f"{path}: expected rows, found an empty file")
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):  # not one value, such as JSON lines
        whole = None
    if isinstance(whole, dict) and "Instances" in whole:
        task = sni.parse_task(path.stem, content, str(path))
        rows = enumerate(task.instances)
        return (_of_task(f"{path}, Instances[{place}]", task, row) for place, row in rows)
    if isinstance(whole, dict):
        tables = (whole.get(key) for key in _CONTAINERS)
        whole = next(
            (one for one in tables if isinstance(one, list) and one and isinstance(one[0], dict)),
            whole,
        )
    if isinstance(whole, list):
        return _mapped(((f"{path}, row {i}", value) for i, value in enumerate(whole)), fields)
    _, first = next(_json_lines(path, content))
    if isinstance(first, dict) and {"Task", "Instance"} <= first.keys():
        return (_of_task(*line) for line in natinst_jsonl.read_lines(str(path)))
    return _mapped(_json_lines(path, content), fields)


def _of_task(where: str, task: sni.Task, row: sni.Instance) -> _Sourced:
    """A row of a task file, or of the authors' code's lines."""
    shown = [(example.input, example.target) for example in task.positive_examples]
    prompt = prompts.render(task.definition, shown, row.input)
    return _Sourced(where, TrainingExample(task.name, row.id, 0, row.input, row.target, prompt))


def _json_lines(path: pathlib.Path, content: bytes) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        where = f"{path}, line {number}"
        try:
            if line.strip():
                yield where, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise errors.InputError(
                f"{where}: expected a JSON object, found none ({error})"
            ) from None


def _parquet(path: pathlib.Path, fields: Fields) -> Iterator[tuple[str, Any]]:
    # Here, not above: it takes a while to import.
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            known = find_fields(file.schema_arrow.names, fields, f"{path}, row 0")
            values = file.read([name for name in known if name]).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        message = " ".join(str(error).split())
        raise errors.InputError(
            f"{path}: not a Parquet file that can be read ({message})"
        ) from None
    for number, value in enumerate(values):
        yield f"{path}, row {number}", value


def _mapped(values: Iterable[tuple[str, Any]], fields: Fields) -> Iterator[_Sourced]:
    """Objects whose fields are named in their own way."""
    known = None
    for where, value in values:
        if not isinstance(value, Mapping):
            raise errors.InputError(
                f"{where}: expected a JSON object, found {type(value).__name__}"
            )
        known = known or find_fields(value.keys(), fields, where)
        yield to_record(value, known, where)


def find_fields(keys: Iterable[str], given: Fields, where: str) -> Fields:
    """The fields of records with these keys.

    Args:
      keys: of the first record, which is at `where`.
      given: names that a person gave, of input, target and task.

    Raises:
      InputError: a given field isn't there, or none that could be the input or the answer.
    """
    keys = list(keys)
    listed = ", ".join(map(repr, keys)) or "none"
    for kind, field in given._asdict().items():
        if field is not None and field not in keys:
            nearest = errors.nearest(field, keys)
            raise errors.InputError(
                f"{where}: --{kind}_field: no field {field!r}{nearest}; found {listed}"
            )
    lower = {key.lower().replace(" ", "_"): key for key in reversed(keys) if key not in given}
    known = Fields(
        **{
            kind: getattr(given, kind)
            or next((lower[name] for name in names if name in lower), None)
            for kind, names in NAMES.items()
        }
    )
    if given.input is None and given.target is None and known.chat:
        return Fields(task=known.task, id=known.id, chat=known.chat)
    if known.input is None:  # an instruction alone is what the model reads
        known = known._replace(input=known.instruction, instruction=None)
    for kind in ("input", "target"):
        if getattr(known, kind) is None:
            raise errors.InputError(
                f"{where}: expected a field for the {kind} ({', '.join(NAMES[kind])}), found "
                f"{listed}; name it with --{kind}_field"
            )
    return known._replace(chat=None)


def to_record(value: Mapping[Any, Any], fields: Fields, where: str) -> _Sourced:
    """One example. Raises InputError where a field is missing, or holds no text."""
    task = _text(value, fields.task, where) if fields.task else ""
    identifier = _text(value, fields.id, where) if fields.id in value else ""
    instruction = ""
    if fields.chat:
        asked, target = _chat(value.get(fields.chat), f"{where}: field {fields.chat!r}")
    else:
        target = _text(value, fields.target, where)
        if value.get(fields.instruction) not in (None, ""):
            instruction = _text(value, fields.instruction, where)
        # Rows of Alpaca's layout may have an instruction alone.
        if instruction and value.get(fields.input) in (None, "", []):
            asked, instruction = instruction, ""
        else:
            asked = _text(value, fields.input, where)
    prompt = prompts.render(instruction, (), asked) if instruction else asked
    return _Sourced(where, TrainingExample(task, identifier, 0, asked, target, prompt), instruction)


def _with_tasks(records: Sequence[_Sourced], name: str) -> Iterator[_Sourced]:
    """Gives the records of a file that name no task one: the file's, or an instruction's.

    Where few instructions stand for many rows, each is a task; otherwise the instruction is a part
    of the input.
    """
    counts = collections.Counter(text for _, row, text in records if not row.task)
    are_tasks = len(counts) * _ROWS_PER_INSTRUCTION <= counts.total()
    numbers = {text: number for number, text in enumerate(counts)}
    for where, row, text in records:
        task, asked = name, row.input
        if are_tasks and len(counts) > 1:
            task = f"{name}#{numbers.get(text)}: {text[:60]}".rstrip()
        elif text and not are_tasks:
            asked = f"{text}\n{asked}"
        yield _Sourced(where, row if row.task else row._replace(task=task, input=asked))


def _text(value: Mapping[Any, Any], name: str | None, where: str) -> str:
    """A field's text. Of several acceptable answers, the first; a number or a label as it is."""
    text, where = value.get(name), f"{where}: field {name!r}: expected text, found"
    if name not in value:
        raise errors.InputError(f"{where} no such field; the first row has it")
    if isinstance(text, (list, tuple)) and text:
        text = text[0]
    if isinstance(text, (bool, int, float)):
        return str(text)
    if isinstance(text, str) and text.encode(errors="replace").decode() == text:
        return text
    kinds = {str: "half a character", type(None): "null"}
    raise errors.InputError(f"{where} {kinds.get(type(text), type(text).__name__)}")


def _chat(turns: Any, where: str) -> tuple[str, str]:
    """The texts before a chat's last answer, and the answer. System messages are left out."""
    if not isinstance(turns, (list, tuple)) or not turns:
        raise errors.InputError(f"{where}: expected a list of messages")
    said = [_turn(turn, f"{where}, message {i}") for i, turn in enumerate(turns)]
    answers = [place for place, (role, _) in enumerate(said) if role in _ASSISTANT]
    if not answers or answers[-1] == 0:
        raise errors.InputError(
            f"{where}: expected a message and an assistant's answer to it, found messages of "
            f"{', '.join(role for role, _ in said)}"
        )
    before = [text for role, text in said[: answers[-1]] if role not in _SYSTEM]
    return "\n".join(before), said[answers[-1]][1]


def _turn(turn: Any, where: str) -> tuple[str, str]:
    """A message's role and text; of parts, those that are text."""
    if isinstance(turn, Mapping):
        role, text = (
            next((turn[key] for key in keys if key in turn), None) for keys in (_ROLES, _TEXTS)
        )
        if isinstance(text, (list, tuple)):
            parts = (part.get("text") for part in text if isinstance(part, Mapping))
            text = "\n".join(part for part in parts if isinstance(part, str))
        if isinstance(role, str) and isinstance(text, str):
            return role.lower(), text
    raise errors.InputError(f"{where}: expected an object with texts as role and content")
