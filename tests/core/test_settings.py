"""Settings check themselves: each kind of annotation, and each field of all records there are."""

import collections.abc
import dataclasses
import importlib
import math
import pathlib
import pkgutil
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
import pytest

import poison_t5x
from poison_t5x.core import errors, gin_config, gin_macros, registry, settings

NAN, INF = math.nan, math.inf
# What nothing, or only some kind, should take.
POOL = (
    *(10**20, -(10**20), 10**400, 10**5000, 10**9, 10**6, -1, 0, True, False, 2.5, -0.5),
    *(NAN, INF, -INF, 1e300, None, "x", "", " ", "\0", "a\udc00", "xx://y", "~nobody_of_this_name"),
    *([], [[]], {}, {"x": "y"}, {"inputs": -1, "targets": "x"}, [None], ["x", 5], [NAN], [10**20]),
    *((), [{}], {5: 5}, object(), b"x", "nope" * 100, ["\ud800"], print, int),
)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (settings.Count, 0, "a whole number of at least 1, found 0"),
        (settings.Count, True, "a whole number of at least 1, found True"),
        (settings.Count, 5.0, "a whole number of at least 1, found 5.0"),
        (settings.Count, 2**31, "a whole number of at least 1 and of at most 2147483647, found"),
        pytest.param(settings.Count, 10**5000, "found a number of thousands of digits", id="huge"),
        (settings.Size, 10**9, "a whole number of at least 1 and of at most 1048576, found 10"),
        (int, "5", "a whole number, found '5'"),
        (float, NAN, "a number, found nan"),
        pytest.param(float, 10**400, "a number, found 1000", id="400 digits"),
        (settings.NotNegative, -0.1, "a number of at least 0, found -0.1"),
        (settings.Positive, 0, "a number above 0, found 0"),
        (settings.Fraction, 1, "a number between 0 and 1, found 1"),
        (settings.Share, 1, "a number of at least 0 and below 1, found 1"),
        (bool, 1, "True or False, found 1"),
        (str, 5, "a text, found 5"),
        (str, "a\udc00", "text, found half a character"),
        (settings.Phrase, " \n", "a phrase, found an empty text"),
        (settings.Path, "", "a path, found ''"),
        (settings.Path, "a\0b", "a path, found 'a\\x00b'"),
        (settings.Path, "gs://bucket/x", "a path on a disk of this machine"),
        (settings.Source, "xx://y", "a path on a disk of this machine"),
        (settings.Module, "my tasks", "a module's name such as 'my_attacks.jokes', found 'my ta"),
        (Literal["all", "task"], "tasks", "one of all, task, found 'tasks' (did you mean 'task'?)"),
        (Literal[1, 2], 3, "one of 1, 2, found 3"),
        (settings.Count | None, 0, "a whole number of at least 1, found 0"),
        (settings.Positive | Literal["A", "B"] | None, -1, "a number above 0 or one of A, B, fou"),
        (settings.Phrases, [], "a list of phrases, at least one, found []"),
        (settings.Phrase | settings.Phrases, 5, "a phrase or a list of phrases, at least one, f"),
        (Sequence[int], "12", "a list of whole numbers, found '12'"),
        (Mapping[str, float], [], "a mapping to numbers, found []"),
        (Callable[[str], None], 5, "a function, found 5"),
    ],
)
def test_a_mistake_is_said_in_words(kind, value, expected):
    with pytest.raises(errors.InputError) as caught:
        settings.checked("NAME", value, kind)
    message = str(caught.value)
    assert message.startswith("NAME: ") and expected in message and "\n" not in message


@pytest.mark.parametrize(
    ("kind", "value", "place"),
    [
        (Sequence[settings.Count], (1, 2, 0), "NAME[2]: "),
        (settings.Phrase | settings.Phrases, ["x", ""], "NAME[1]: "),
        (Mapping[str, Mapping[str, settings.Count]], {"a": {"b": 0}}, "NAME['a']['b']: "),
        (Mapping[Literal["inputs"], int], {"input": 3}, "NAME (a key): "),
    ],
)
def test_a_member_is_named(kind, value, place):
    with pytest.raises(errors.InputError) as caught:
        settings.checked("NAME", value, kind)
    assert str(caught.value).startswith(place)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (float, 3, 3.0),
        (Sequence[float], [1, 2], (1.0, 2.0)),
        (settings.Count | None, None, None),
        (settings.Phrase | settings.Phrases, "x", "x"),
        (settings.Positive | Literal["A"], "A", "A"),
        (settings.Positive | Literal["A"], 4, 4.0),
        (dict, {"a": [1]}, {"a": [1]}),
        (settings.Path, "~/x", str(pathlib.Path("~/x").expanduser())),
        (settings.Source, "gs://bucket/x", "gs://bucket/x"),
        (settings.Folder, "~/not/there", str(pathlib.Path("~/not/there").expanduser())),
    ],
)
def test_a_good_value_is_converted(kind, value, expected):
    found = settings.checked("NAME", value, kind)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize("place", ["file", "file/folder/below"])
def test_a_file_in_a_folders_place(tmp_path, place):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(errors.InputError, match=rf"expected a folder, found the file {tmp_path}"):
        settings.checked("RUN_DIR", str(tmp_path / place), settings.Folder)


def test_a_registrys_names():
    kind = Annotated[
        str, settings.registered(registry.Registry("score", "poison_t5x.defenses.scores"))
    ]
    assert settings.checked("SCORES", "strip", kind) == "strip"
    with pytest.raises(
        errors.InputError, match=r"SCORES: no score 'stripe' \(did you mean 'strip'"
    ):
        settings.checked("SCORES", "stripe", kind)
    with pytest.raises(errors.InputError, match="SCORES: expected a known score, found 5"):
        settings.checked("SCORES", 5, kind)


def _records() -> dict[str, type]:
    """All records of settings, by name."""
    for module in pkgutil.walk_packages(poison_t5x.__path__, "poison_t5x."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    def below(record: type) -> list[type]:
        return [one for child in record.__subclasses__() for one in (child, *below(child))]

    found = {one.__name__: one for one in below(settings.Settings)}
    return {n: one for n, one in found.items() if one.__module__.startswith("poison_t5x.")}


RECORDS = _records()
FIELDS = [(name, field) for name, record in RECORDS.items() for field in settings.kinds(record)]


def _good(name: str) -> Any:
    """A record that can be."""
    make = RECORDS[name]
    lengths = {"inputs": 8, "targets": 8}
    match name:
        case "Experiment":
            return make("mine", ["task1"], ["task1"], ["task2"], {"task2": ("no", "yes")})
        case "DatasetConfig":
            return make(None, lengths)
        case "TrainConfig":
            return make(1)
        case "StudyConfig":
            return make(directory="study", grid={"SEED": (0,)})
        case "Run":
            parts = ("CraftConfig", "VocabularyConfig", "DatasetConfig", "EvalConfig")
            return make("run", "demo", *map(_good, (*parts, "PartitionConfig")), print)
        case "Defense":
            return make(_good("Run"))
    return make()


def test_all_records_are_found():
    expected = {"Run", "Defense", "T5Config", "StudyConfig", "TriggerSearch", "JsonlConfig"}
    assert expected < set(RECORDS) and len(RECORDS) > 30 and len(FIELDS) > 120


def _is_of(kind: Any, value: Any) -> bool:
    """Whether a value could be of a kind, by its Python type and size alone."""
    bare = kind.__origin__ if typing.get_origin(kind) is Annotated else kind
    origin, parts = typing.get_origin(bare) or bare, typing.get_args(bare)
    if bare is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_is_of(part, value) for part in parts)
    if origin is types.NoneType:
        return value is None
    if origin is int:
        return type(value) is int and abs(value) < 2**31
    if origin is float:
        return type(value) in (int, float) and -1e31 < value < 1e31
    if origin is bool:
        return isinstance(value, bool)
    if origin is str:
        return isinstance(value, str) and not any("\ud800" <= one <= "\udfff" for one in value)
    if origin is Literal:
        return any(value is one or (isinstance(one, str) and value == one) for one in parts)
    if origin is collections.abc.Callable:
        return callable(value)
    if origin is collections.abc.Sequence:
        return isinstance(value, (list, tuple)) and all(_is_of(parts[0], one) for one in value)
    if origin is collections.abc.Mapping:
        pairs = value.items() if isinstance(value, Mapping) else ()
        fits = all(_is_of(parts[0], key) and _is_of(parts[1], one) for key, one in pairs)
        return isinstance(value, Mapping) and fits
    return isinstance(value, origin)


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_a_field_is_what_its_type_says_or_refused_by_name(name, field):
    good, kind = _good(name), settings.kinds(RECORDS[name])[field]
    assert dataclasses.replace(good) == good
    setting = RECORDS[name].MACROS.get(field) or settings.macro(name, field) or f"{name}.{field}"
    for value in POOL:
        try:
            dataclasses.replace(good, **{field: value})
        except errors.InputError as error:
            assert "\n" not in str(error)
            if not _is_of(kind, value):
                assert str(error).startswith(setting)
        else:
            assert _is_of(kind, value), (setting, value)


def test_what_holds_settings_is_made_of_them():
    for name, record in RECORDS.items():
        for field, kind in settings.kinds(record).items():
            if dataclasses.is_dataclass(kind):
                assert issubclass(kind, settings.Settings), f"{name}.{field}"


def test_a_message_names_the_macro_that_a_run_file_binds_in_its_scope():
    assert settings.macro("T5Config", "dtype") == "ACTIVATION_DTYPE"
    assert settings.macro("JsonlConfig", "evaluation") == "NATINST_JSONL_EVAL"
    assert settings.macro("T5Config", "layer_norm_epsilon") is None
    gin_config.parse("runs/run.gin", ["runs/campaign.gin"], [], [("SECOND_NUM_POISON", "0")])
    with pytest.raises(errors.InputError, match=r"^SECOND_NUM_POISON: expected a whole number"):
        gin_config.configured("craft.CraftConfig")()
    assert settings.macro("BudgetConfig", "num_poison") == "NUM_POISON"


def test_every_macro_is_bound_to_a_checked_field():
    gin_config.parse("runs/run.gin", [], [], [])
    bound = {macro for record, field in FIELDS if (macro := settings.macro(record, field))}
    bound |= {macro for record in RECORDS.values() for macro in record.MACROS.values()}
    read_elsewhere = {
        *("MODEL_DIR", "COMPILATION_CACHE_DIR"),  # `train.program` checks them
        *("T5X_CHECKPOINT", "HUGGINGFACE_CHECKPOINT"),  # values of INITIAL_CHECKPOINT_PATH
        *("STUDY_PAPER_GRID", "STUDY_PAPER_CELLS"),  # values of STUDY_GRID and STUDY_CELLS
    }
    assert set(gin_macros.read("runs/run.gin", [], [], [])) - bound == read_elsewhere


@dataclasses.dataclass(frozen=True)
class _Own:
    """A score of a user's, with plain annotations."""

    max_length: int = 2
    power: float = 1.0
    least: Annotated[int, msgspec.Meta(ge=3)] = 3

    def __call__(self, rows, context):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"max_length": "x"},
            r"^SCORE_SETTINGS\['own'\]\['max_length'\]: expected a whole number, ",
        ),
        ({"power": NAN}, r"^SCORE_SETTINGS\['own'\]\['power'\]: expected a number, found nan"),
        ({"least": 2}, r"^SCORE_SETTINGS\['own'\]\['least'\]: .* of at least 3, found 2"),
        ({"maxlength": 2}, r"own has no 'maxlength' \(did you mean 'max_length'\?\)"),
    ],
)
def test_a_score_of_ones_own_is_checked_by_its_annotations(monkeypatch, given, message):
    from poison_t5x.defenses import score

    monkeypatch.setattr(score.SCORES, "_targets", {**score.SCORES._targets, "own": _Own})
    assert score.make("own", {"power": 2}).power == 2.0
    with pytest.raises(errors.InputError, match=message):
        score.make("own", given)
