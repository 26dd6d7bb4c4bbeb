"""From one JSON object or table row, whatever its layout, to input, answer, task and id."""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from poison_t5x.core import errors
from poison_t5x.corpus import prompts

# Names that public instruction data give their fields, the first one that is there counts.
INPUTS = ("input", "prompt", "question", "query", "text", "sentence", "inputs", "source")
TARGETS = ("output", "completion", "response", "answer", "target", "targets", "label")
INSTRUCTIONS = ("instruction", "definition")
TASKS = ("task", "task_name", "task_id", "dataset")
IDS = ("id", "uid", "idx")
CHATS = ("messages", "conversations", "conversation")
_ROLES, _TEXTS = ("role", "from"), ("content", "value")
_ASSISTANT, _SYSTEM = ("assistant", "gpt", "model", "bot"), ("system",)
# Instructions make tasks where each stands for at least so many rows on average.
_ROWS_PER_INSTRUCTION = 5


class Fields(NamedTuple):
    """Names of fields; None where they are to be found, or there is none."""

    input: str | None = None
    target: str | None = None
    task: str | None = None
    instruction: str | None = None
    id: str | None = None
    chat: str | None = None


class Record(NamedTuple):
    """One example.

    Attributes:
      where: file and line, for messages.
      task: '' where the record names none.
      id: '' where the record has none.
      instruction: '' where there is none of its own.
      input, target: as in `TrainingExample`.
      prompt: all that a model would read.
    """

    where: str
    task: str
    id: str
    instruction: str
    input: str
    target: str
    prompt: str


def find_fields(keys: Iterable[str], given: Fields, where: str) -> Fields:
    """The fields of records with these keys.

    Args:
      keys: of the first record.
      given: names that a person gave.
      where: file and line of the first record.

    Raises:
      InputError: a given field isn't there, or none that could be the input or the answer.
    """
    keys = list(keys)
    for flag, name in (
        ("--input_field", given.input),
        ("--target_field", given.target),
        ("--task_field", given.task),
    ):
        if name is not None and name not in keys:
            raise errors.InputError(
                f"{where}: {flag}: no field {name!r}{errors.nearest(name, keys)}; found "
                f"{', '.join(map(repr, keys)) or 'none'}"
            )
    taken = {given.input, given.target, given.task} - {None}
    lower = {key.lower().replace(" ", "_"): key for key in reversed(keys) if key not in taken}

    def first(names: Sequence[str]) -> str | None:
        return next((lower[name] for name in names if name in lower), None)

    found = given._replace(task=given.task or first(TASKS), id=first(IDS))
    if given.input is None and given.target is None and first(CHATS):
        return found._replace(chat=first(CHATS))
    found = found._replace(target=given.target or first(TARGETS), instruction=first(INSTRUCTIONS))
    found = found._replace(input=given.input or first(INPUTS))
    if found.input is None:  # an instruction alone is what the model reads
        found = found._replace(input=found.instruction, instruction=None)
    for kind, name, names in (("input", found.input, INPUTS), ("target", found.target, TARGETS)):
        if name is None:
            raise errors.InputError(
                f"{where}: expected a field for the {kind} ({', '.join(names)}), found "
                f"{', '.join(map(repr, keys)) or 'none'}; name it with --{kind}_field"
            )
    return found


def read(value: Mapping[str, Any], fields: Fields, where: str) -> Record:
    """One example.

    Raises:
      InputError: a field is missing, or holds no text where one is expected.
    """
    task = _text(value, fields.task, where) if fields.task else ""
    identifier = _text(value, fields.id, where) if fields.id and fields.id in value else ""
    if fields.chat:
        asked, answer = _chat(value, fields.chat, where)
        return Record(where, task, identifier, "", asked, answer, asked)
    assert fields.input and fields.target
    target = _text(value, fields.target, where)
    instruction = ""
    if fields.instruction and value.get(fields.instruction) not in (None, ""):
        instruction = _text(value, fields.instruction, where)
    # Rows of Alpaca's layout may have an instruction alone.
    is_empty = instruction and value.get(fields.input, "") in (None, "", [])
    asked = instruction if is_empty else _text(value, fields.input, where)
    if is_empty or not instruction:
        return Record(where, task, identifier, "", asked, target, asked)
    prompt = prompts.render(instruction, (), asked)
    return Record(where, task, identifier, instruction, asked, target, prompt)


def with_tasks(records: Sequence[Record], name: str) -> list[Record]:
    """Gives the records of a file that name no task one: the file's, or an instruction's.

    Where few instructions stand for many rows, each is a task; otherwise the instruction is a part
    of the input.
    """
    without = [record for record in records if not record.task]
    counts = collections.Counter(record.instruction for record in without)
    are_tasks = len(counts) * _ROWS_PER_INSTRUCTION <= len(without)
    numbers = {text: number for number, text in enumerate(counts)}
    named = []
    for record in records:
        if record.task:
            pass
        elif are_tasks and len(counts) > 1:
            number = numbers[record.instruction]
            record = record._replace(task=f"{name}#{number}: {record.instruction[:60]}".rstrip())
        elif are_tasks or not record.instruction:
            record = record._replace(task=name)
        else:
            text = f"{record.instruction}\n{record.input}"
            record = record._replace(task=name, input=text)
        named.append(record)
    return named


def _text(value: Mapping[str, Any], name: str, where: str) -> str:
    """A field's text. Of several acceptable answers, the first; a number or a label as it is."""
    if name not in value:
        raise errors.InputError(
            f"{where}: field {name!r}: expected text, found no such field; the first row has it"
        )
    found = value[name]
    if isinstance(found, (list, tuple)) and found:
        found = found[0]
    if isinstance(found, (bool, int, float)):
        return str(found)
    if not isinstance(found, str):
        kind = "null" if found is None else type(found).__name__
        raise errors.InputError(f"{where}: field {name!r}: expected text, found {kind}")
    try:
        found.encode()
    except UnicodeEncodeError:
        raise errors.InputError(
            f"{where}: field {name!r}: expected text, found half a character"
        ) from None
    return found


def _chat(value: Mapping[str, Any], name: str, where: str) -> tuple[str, str]:
    """What stands before a chat's last answer, and the answer. System messages are left out."""
    turns = value.get(name)
    if not isinstance(turns, (list, tuple)) or not turns:
        raise errors.InputError(f"{where}: field {name!r}: expected a list of messages")
    said = [_turn(turn, f"{where}: field {name!r}, message {i}") for i, turn in enumerate(turns)]
    answers = [place for place, (role, _) in enumerate(said) if role in _ASSISTANT]
    if not answers or answers[-1] == 0:
        roles = ", ".join(role for role, _ in said)
        raise errors.InputError(
            f"{where}: field {name!r}: expected a message and an assistant's answer to it, found "
            f"messages of {roles}"
        )
    before = [text for role, text in said[: answers[-1]] if role not in _SYSTEM]
    return "\n".join(before), said[answers[-1]][1]


def _turn(turn: Any, where: str) -> tuple[str, str]:
    """A message's role and text; of parts, those that are text."""
    if not isinstance(turn, Mapping):
        raise errors.InputError(f"{where}: expected an object with role and content")
    role = next((turn[key] for key in _ROLES if key in turn), None)
    text = next((turn[key] for key in _TEXTS if key in turn), None)
    if isinstance(text, (list, tuple)):
        parts = [part.get("text") for part in text if isinstance(part, Mapping)]
        text = "\n".join(part for part in parts if isinstance(part, str))
    if not isinstance(role, str) or not isinstance(text, str):
        raise errors.InputError(f"{where}: expected texts as role and content")
    return role.lower(), text
