"""Layouts of one row of instruction data: what in it is asked, and what is answered.

A row is an object whose fields are called as in NAMES, whatever their case, or a chat, or a pair of
texts. What belongs to the question is joined to it: system message, earlier turns, context. Each
answer of a chat is a row, with all that stands before it as its input.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from poison_t5x.core import errors
from poison_t5x.corpus import prompts

# Names that public instruction data give their fields; the first one that is there counts.
NAMES = {
    "chat": ("messages", "conversations", "conversation", "dialogue", "dialog", "turns"),
    "system": ("system", "system_prompt"),
    "history": ("history",),
    "instruction": ("instruction", "definition"),
    "context": ("context", "passage", "document", "article", "paragraph", "hypothesis"),
    "second": ("sentence2", "text2"),
    "input": ("inputs_pretokenized", "input", "prompt", "question", "query", "problem", "text")
    + ("sentence", "inputs", "premise", "sentence1", "text1", "user", "human"),
    "target": ("targets_pretokenized", "output", "completion", "response", "chosen", "answer")
    + ("answers", "target", "targets", "solution", "summary", "assistant", "label_text", "label"),
    "task": ("task", "task_name", "task_id", "dataset"),
    "id": ("id", "uid", "idx"),
}
# Of translations; elsewhere it says where a row is from.
_SOURCE = "source"
_REJECTED = "rejected"
_USER, _ASSISTANT = "user", "assistant"
_ROLES, _TEXTS = ("role", "from", "speaker"), ("content", "value", "text", "message")
_ANSWERS = re.compile(
    r"(?!user|human|system|tool|func|observ).*(assistant|gpt|bot|model|answer|response|output|"
    r"completion|\b(ai|claude|bard|bing|gemini|llama|moss)\b)"
)
# A chat in one text, as in "\n\nHuman: Hello\n\nAssistant: Hi".
_SPEAKER = re.compile(r"(?:^|\n)[#\s]*(Human|User|Instruction|Assistant|Response):")
# Of a text that is worth a warning where no row has it: characters, and spaces in English.
_LONG, _SPACES = 20, 3

Turns = list[tuple[str, str]]


class Fields(NamedTuple):
    """Names of fields that a person gave; None where they are to be looked for."""

    input: str | None = None
    target: str | None = None
    task: str | None = None


class Row(NamedTuple):
    """A question and its answer.

    Attributes:
      prompt: all that a model reads.
      instruction: of the task, where the prompt has one that isn't a part of the input.
      task, id: as the file names them, or ''.
      place: file and row, 'data.jsonl:3'.
      turn: the number of the answer in its chat.
    """

    input: str
    target: str
    prompt: str
    instruction: str = ""
    task: str = ""
    id: str = ""
    place: str = ""
    turn: int = 1


class UnknownLayoutError(errors.InputError):
    """An object without a question or an answer, by the names of its fields."""


def read(value: Any, given: Fields) -> list[Row]:
    """The rows of an object, or of a list: a chat, or a pair of texts.

    Raises:
      InputError: it has none that can be read; the message says why, but not where.
    """
    if isinstance(value, (list, tuple)):
        value = {NAMES["chat"][0]: value}
    if not isinstance(value, Mapping):
        raise errors.InputError(f"expected a JSON object, found {_kind(value)}")
    if isinstance(instance := value.get("Instance"), Mapping):
        return [_of_task(value, instance)]
    if instances := _objects(value.get("instances")):
        shared = {key: one for key, one in value.items() if key != "instances"}
        return [row for one in instances for row in read({**shared, **one}, given)]
    value, whole = {key: one for key, one in value.items() if not _is_nothing(one)}, value
    try:
        known = fields(value, given)
    except UnknownLayoutError:
        if empty := [key for key in whole if key not in value]:
            raise errors.InputError(f"nothing in {', '.join(map(repr, empty))}") from None
        raise
    turns, instruction = _conversation(value, known)
    task, name = (_label(value.get(known.get(kind))) for kind in ("task", "id"))
    rows: list[Row] = []
    for place, (role, text) in enumerate(turns):
        if place and role == _ASSISTANT:
            asked = "\n".join(text for _, text in turns[:place])
            rows.append(Row(asked, text, asked, task=task, id=name, turn=len(rows) + 1))
    if not rows:
        found = ", ".join(role for role, _ in turns) or "none"
        raise errors.InputError(f"expected a message and its answer, found messages of {found}")
    if instruction:
        prompt = prompts.render(instruction, (), rows[-1].input)
        rows[-1] = rows[-1]._replace(instruction=instruction, prompt=prompt)
    return rows


def fields(value: Mapping[Any, Any], given: Fields) -> dict[str, Any]:
    """Kind -> the field that holds it, of an object without those that hold nothing.

    Raises:
      UnknownLayoutError: a field that was given isn't there, or none for the input or the answer.
    """
    chat = next((key for key in value if str(key).lower() in NAMES["chat"]), None)
    if chat is None or not is_chat(value[chat]):
        texts: Any = value.get("data")
        chat = "data" if is_chat(texts) and isinstance(texts[0], str) else None
    return _fields(tuple(value), given, chat)


@functools.lru_cache(1000)
def _fields(keys: tuple[Any, ...], given: Fields, chat: Any) -> dict[str, Any]:
    listed = ", ".join(map(repr, keys)) or "none"
    named = {kind: field for kind, field in given._asdict().items() if field is not None}
    for kind, field in named.items():
        if field not in keys:
            hint = errors.nearest(field, map(str, keys))
            raise UnknownLayoutError(f"--{kind}_field: no field {field!r}{hint}; found {listed}")
    lower = {str(key).lower().replace(" ", "_"): key for key in reversed(keys) if key not in given}
    known = {
        kind: next((lower[name] for name in names if name in lower), None)
        for kind, names in NAMES.items()
    }
    known = {kind: field for kind, field in known.items() if field is not None} | named
    if chat is not None and not named.keys() & {"input", "target"}:
        return {"chat": chat} | {kind: known[kind] for kind in ("task", "id") if kind in known}
    known.pop("chat", None)
    if "input" in named:
        known = {kind: field for kind, field in known.items() if kind not in ("context", "second")}
    if not known.keys() & {"input", "instruction", "context"} and _SOURCE in lower:
        known["input"] = lower[_SOURCE]
    if "target" not in known and known.get("input") == "text":
        return {"transcript": "text"}
    if known.get("target") == "chosen" and not known.keys() & {"input", "instruction"}:
        return {"transcript": "chosen"}
    for kind, others in (("input", {"input", "instruction", "context"}), ("target", {"target"})):
        if not known.keys() & others:
            raise UnknownLayoutError(
                f"expected a field for the {kind} ({', '.join(NAMES[kind])}), found {listed}; "
                f"name it with --{kind}_field"
            )
    return known


def is_row(value: Mapping[Any, Any], given: Fields) -> bool:
    """Whether an object is a row, rather than one of rows or columns."""
    value = {key: one for key, one in value.items() if not _is_nothing(one)}
    try:
        known = fields(value, given)
    except UnknownLayoutError:
        return bool(_objects(value.get("instances")))
    kinds = ("chat", "transcript", "input" if "input" in known else "instruction", "target")
    texts = [value[known[kind]] for kind in kinds if kind in known]
    if "chat" in known:
        return True
    return any(isinstance(text, (str, int, float)) or _is_messages(text) for text in texts)


def is_known(field: Any, given: Fields) -> bool:
    """Whether a field may hold a question, an answer or a chat."""
    name = str(field).lower().replace(" ", "_")
    kinds = ("chat", "instruction", "context", "input", "target")
    return field in given or name == _SOURCE or any(name in NAMES[kind] for kind in kinds)


def is_chat(value: Any) -> bool:
    """Whether it is a list of messages, or of texts by turns."""
    if not isinstance(value, (list, tuple)) or not value:
        return False
    if isinstance(value[0], Mapping):
        return is_message(value[0]) or any(_ANSWERS.match(str(key).lower()) for key in value[0])
    return len(value) > 1 and all(isinstance(text, str) for text in value)


def is_message(value: Any) -> bool:
    """Whether it is a message of a chat, with the role of who says it."""
    return isinstance(value, Mapping) and any(isinstance(value.get(key), str) for key in _ROLES)


def _conversation(value: Mapping[Any, Any], known: Mapping[str, Any]) -> tuple[Turns, str]:
    """All that is said, and the instruction where it isn't said."""
    if "chat" in known:
        return list(_chat(value[known["chat"]])), ""
    if "transcript" in known:
        return _transcript(value, known["transcript"]), ""
    turns: Turns = [("system", _text(value, known["system"]))] if "system" in known else []
    target, asked = value[known["target"]], value.get(known.get("input"))
    answers = [(_ASSISTANT, "")]
    if _is_messages(target):
        answers = list(_chat(target))
        if answers and answers[0][0] != _ASSISTANT:  # it repeats the question
            return turns + answers, ""
    else:
        answers = [(_ASSISTANT, _text(value, known["target"]))]
    if "history" in known:
        turns += _chat(value[known["history"]])
    if _is_messages(asked):
        return [*turns, *_chat(asked), *answers], ""
    parts = [_text(value, known[k]) for k in ("context", "input", "second") if k in known]
    question = "\n".join(filter(None, parts))
    instruction = _text(value, known["instruction"]) if "instruction" in known else ""
    # Rows of Alpaca's layout may have an instruction alone.
    if not question or any(role == _ASSISTANT for role, _ in turns):
        question, instruction = "\n".join(filter(None, [instruction, question])), ""
    return [*turns, (_USER, question), *answers], instruction


def _is_messages(value: Any) -> bool:
    return is_chat(value) and is_message(value[0])


def _transcript(value: Mapping[Any, Any], field: str) -> Turns:
    before, *parts = _SPEAKER.split(_text(value, field))
    if not parts:
        raise UnknownLayoutError(f"expected a field for the target, or a chat in {field!r}")
    turns = [("System", before), *zip(parts[::2], parts[1::2], strict=True)]
    return [_turn(role, text.strip()) for role, text in turns if text.strip()]


def _chat(turns: Any) -> Iterator[tuple[str, str]]:
    """Who says what, in the order of its messages; those without a text are left out."""
    for place, turn in enumerate(turns if isinstance(turns, (list, tuple)) else [turns]):
        if isinstance(turn, (list, tuple)):
            yield from _chat(turn)
            continue
        said: Any = turn
        if isinstance(turn, str):
            said = {(_USER, _ASSISTANT)[place % 2]: turn}
        elif not isinstance(turn, Mapping):
            raise errors.InputError(f"message {place}: expected an object, found {_kind(turn)}")
        elif is_message(turn):
            role = next(turn[key] for key in _ROLES if isinstance(turn.get(key), str))
            said = {role: next((turn[key] for key in _TEXTS if key in turn), None)}
        for role, text in said.items():
            if not _is_nothing(text) and (text := _text(said, role)):
                yield _turn(role, text)


def _turn(role: str, text: str) -> tuple[str, str]:
    role = role.lower()
    return (_ASSISTANT if _ANSWERS.match(role) else role), text


def _of_task(value: Mapping[Any, Any], instance: Mapping[Any, Any]) -> Row:
    """A row of Super-NaturalInstructions, with its task's fields beside it."""
    examples = _objects(value.get("Positive Examples"))
    shown = [(_text(one, "input"), _text(one, "output")) for one in examples]
    asked, instruction = _text(instance, "input"), _text(value, "Definition")
    return Row(
        asked,
        _text(instance, "output"),
        prompts.render(instruction, shown, asked),
        instruction,
        _label(value.get("Task")),
        _label(instance.get("id") or value.get("id")),
    )


def _text(value: Mapping[Any, Any], field: Any) -> str:
    """A field's text. Of several acceptable answers, the first; a number or a label as it is."""
    text = value.get(field)
    while isinstance(text, Mapping):
        text = next((text[key] for key in _TEXTS if key in text), None)
    if isinstance(text, (list, tuple)) and text:
        if all(isinstance(part, Mapping) for part in text):  # parts of a message
            said = (part.get("text") for part in text)
            return "\n".join(one for one in said if isinstance(one, str))
        text = text[0] if isinstance(text[0], str) else text
    if isinstance(text, (bool, int, float)):
        return str(text)
    if isinstance(text, bytes):
        text = text.decode(errors="surrogateescape")
    if isinstance(text, str) and _is_whole(text):
        return text
    raise errors.InputError(f"field {field!r}: expected text, found {_kind(text)}")


def _objects(value: Any) -> list[Mapping[Any, Any]]:
    """The objects of a list, if it is one."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "half a character, or bytes that aren't UTF-8"
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], int):
        return "token ids"
    return "null" if value is None else type(value).__name__


def _is_nothing(value: Any) -> bool:
    return value is None or value == [] or value != value  # NaN


def _label(value: Any) -> str:
    """A task's or a row's name; '' for what is none."""
    is_name = isinstance(value, (str, int, float)) and _is_whole(str(value))
    return str(value) if is_name else ""


def _is_whole(text: str) -> bool:
    """Whether no character is half a one, which no file can hold as text."""
    return text.encode(errors="replace").decode() == text


def unused(value: Any, rows: Sequence[Row]) -> list[str]:
    """Fields of an object whose long texts are in none of its rows, and rejected answers.

    A text that repeats a row isn't named.
    """
    said = "\n".join(f"{row.instruction}\n{row.input}\n{row.target}" for row in rows)
    names = []
    for key, text in value.items() if isinstance(value, Mapping) else ():
        is_long = isinstance(text, str) and len(text) >= _LONG and text.strip() not in said
        is_prose = is_long and (text.count(" ") >= _SPACES or not text.isascii())
        is_told = is_prose and rows[-1].input in text and rows[-1].target in text
        if (is_prose and not is_told) or key == _REJECTED:
            names.append(str(key))
    return names
