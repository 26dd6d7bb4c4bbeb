"""Settings that aren't what their annotations say, made from the annotations themselves."""

import ast
import dataclasses
import functools
import math
import random
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from poison_t5x.core import gin_macros
from tests import small_run
from tests.campaign import judge

# As they are typed after --gin.NAME=
VALUES = (
    *("x", "''", "' '", "1.5", "True", "None", "[]", "()", "{}", "[1]", "[None]", "['a', '']"),
    *("{'a': 1}", "{1: [2]}", "[[['a']]]", "(1, 'x')", "b'x'", "-1", "0", "2", "1e-400", "-0.5"),
    *("1e999", "-1e999", "[1e999]", "nan", "1000000000", "10000000000", "1" + "0" * 20),
    *("-1" + "0" * 20, "9" * 5000, "'a\\x00b'", "'\\ud800'", "['\\udfff']", "'/dev/zero'"),
    *("ftp://host/x", "gs://", "~nobody_at_all/x", "[" * 60 + "]" * 60, "[" * 3000 + "]" * 3000),
    *("'" + "a" * 100_000 + "'", "@no_such_function", "@no_such_function()", "%NO_SUCH_MACRO"),
    *("[%NO_SUCH_MACRO]", "{'a': @no_such()}", "@attacks.AttackConfig", "1 2", "'unclosed"),
)
# Record -> commands that make it; all others belong to a run.
COMMANDS = {"Defense": ("detect", "defend"), "StudyConfig": ("study",)}
RUN = ("run", "craft", "train", "eval", "report")


class Field(typing.NamedTuple):
    record: str
    name: str
    macro: str
    kind: typing.Any


@functools.cache
def fields() -> tuple[Field, ...]:
    """Every field of a record that a macro is bound to."""
    records = {
        item.__name__: item
        for name, module in sorted(sys.modules.items())
        if name.startswith("poison_t5x.")
        for item in vars(module).values()
        if isinstance(item, type)
        and (dataclasses.is_dataclass(item) or issubclass(item, msgspec.Struct))
    }
    bound = {
        field: by_scope.get("") or next(iter(by_scope.values()))
        for field, by_scope in gin_macros.bound_macros().items()
    }
    if "StudyConfig" in records:
        study = records["StudyConfig"]
        own = getattr(study, "__struct_fields__", ()) or [f.name for f in dataclasses.fields(study)]
        bound |= {("StudyConfig", name): f"STUDY_{name.upper()}" for name in own}
    known = gin_macros.read("runs/run.gin", (), (), ())
    made = []
    for (record, name), macro in sorted(bound.items()):
        if record in records and macro in known:
            hints = typing.get_type_hints(records[record], include_extras=True)
            made.append(Field(record, name, macro, hints[name]))
    return tuple(made)


def fits(kind, value) -> bool:
    """Whether a value is what an annotation says, worked out apart from `core.settings`."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if kind is typing.Any:
        return True
    if origin is typing.Annotated:
        return fits(parts[0], value) and all(_within(meta, value) for meta in parts[1:])
    if origin in (typing.Union, types.UnionType):
        return any(fits(part, value) for part in parts)
    if origin is typing.Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin in (list, tuple, Sequence):
        return isinstance(value, (list, tuple)) and all(fits(parts[0], one) for one in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(
            fits(parts[0], key) and fits(parts[1], one) for key, one in value.items()
        )
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind in (None, types.NoneType):
        return value is None
    return kind in (int, str, bool) and type(value) is kind


def _within(meta, value) -> bool:
    if isinstance(meta, msgspec.Meta) and type(value) in (int, float):
        limits = ((meta.ge, value.__ge__), (meta.gt, value.__gt__), (meta.le, value.__le__))
        limits += ((meta.lt, value.__lt__),)
        return all(limit is None or is_within(limit) for limit, is_within in limits)
    if isinstance(value, str) and meta.extra:
        if re.search("[\\0\ud800-\udfff]", value) or not value:
            return False
        if meta.extra["noun"] == "a path":
            return "://" not in value and not value.startswith("~")
        return bool(value.strip())
    return True


def _parsed(text: str):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def cases(chance: random.Random) -> Iterator[judge.Case]:
    """Every value outside a field's annotation, for every field, in a random order."""
    pairs = [(field, text) for field in fields() for text in VALUES]
    chance.shuffle(pairs)
    for field, text in pairs:
        # What gin can't read, such as references to what isn't there, is a plain text.
        if "%" in text or not fits(field.kind, _parsed(text)):
            yield _case(field, text, chance.choice(COMMANDS.get(field.record, RUN)))


def _case(field: Field, text: str, command: str) -> judge.Case:
    macros = {**small_run.MACROS, "RUN_DIR": "{here}/run"}
    if command == "study" and field.macro != "STUDY_GRID":
        macros["STUDY_GRID"] = "{'NUM_POISON': (5, 10)}"
    if command == "defend":
        macros["DEFENSE"] = "filtered"
    macros[field.macro] = text
    arguments = (command, "--gin_file=experiments/demo.gin")
    arguments += tuple(f"--gin.{name}={value}" for name, value in macros.items())
    return judge.Case(f"{command} {field.macro}={text[:40]}", arguments, named=field.macro)
