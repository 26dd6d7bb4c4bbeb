"""Damaged files: those of a finished run, checkpoints, task files, rows, gin files and modules."""

import fnmatch
import json
import math
import os
import pathlib
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tests import small_run, task_files
from tests.campaign import judge

GOLDEN = small_run.ROOT / "tests" / "golden" / "t5"
LAYOUTS = (
    *("v1_1_untied/huggingface", "v1_1_untied/huggingface_sharded", "v1_1_untied/t5x"),
    *("v1_1_untied/t5x_orbax", "v1_0_tied/t5x_adamw", "v1_0_tied/t5x_orbax_adamw"),
)
RUN = small_run.arguments("", pathlib.Path("{here}/files"), TRAIN_STEPS=2)[1:]
QUICK = "--gin.SCORES=['label_log_odds', 'onion']"


class Reader(NamedTuple):
    """A command, and the files of one source that it reads: `certain` ones at each call."""

    source: str
    arguments: tuple[str, ...]
    certain: tuple[str, ...] = ("*",)
    codes: tuple[int, ...] = (0, 2)


def _of_run(command: str, *certain: str, more: tuple[str, ...] = ()) -> Reader:
    return Reader("run", (command, *RUN, *more), certain)


_CONVERT, _RECORDS = ("convert", "{here}/files"), ("poison/stage.json", "data/stage.json")
READERS = (
    _of_run("craft", *_RECORDS),
    _of_run("train", *_RECORDS, "poison/manifest.json", "models/*/stage.json"),
    _of_run("eval", *_RECORDS, "poison/manifest.json", "models/*/stage.json"),
    _of_run("report", *_RECORDS, "eval/results.json"),
    _of_run("detect", *_RECORDS, "eval/results.json", "poison/*.jsonl", more=(QUICK,)),
    _of_run("defend", *_RECORDS, "eval/results.json", more=("--gin.DEFENSE=x", QUICK)),
    Reader("run", ("report", "{here}/files", "{here}/files"), ("report/results.json",)),
    Reader("run", ("convert", "{here}/files/models/poisoned"), ("models/poisoned/stage.json",)),
    *(Reader(layout, _CONVERT, ()) for layout in LAYOUTS),
    *(Reader(layout, (*_CONVERT, "{here}/to", "--to", "huggingface"), ()) for layout in LAYOUTS),
    *(Reader(layout, (*_CONVERT, "{here}/to", "--to", "t5x-orbax"), ()) for layout in LAYOUTS),
    Reader(
        "tasks",
        (
            *("craft", "--gin_file=experiments/polarity.gin", "--gin.NATINST_DIR={here}/files"),
            *("--gin.RUN_DIR={here}/run", "--gin.NUM_POISON=5", "--gin.VOCABULARY_PATH=None"),
            "--gin.VOCABULARY_SIZE=211",
        ),
    ),
    Reader("tasks", ("scan", "{here}/files", "--output", "{here}/scan"), (), (0, 1, 2)),
    Reader("rows", ("scan", "{here}/files/rows.jsonl", "--output", "{here}/s"), ("*",), (0, 1, 2)),
    Reader("gin", ("config", "--gin_file={here}/files/own.gin")),
    Reader("gin", ("craft", "--gin_file={here}/files/own.gin", *RUN)),
    Reader("gin", ("doctor", "--gin_file={here}/files/own.gin"), ("*",), (0, 1, 2)),
    Reader("module", ("tasks", "--gin.MIXTURE_OR_TASK_MODULE=files.own"), ()),
)


def make_sources(folder: pathlib.Path, *, with_run: bool = True) -> dict[str, pathlib.Path]:
    """Name -> folder of whole files; a tiny run is made once and kept."""
    sources = {layout: GOLDEN / layout for layout in LAYOUTS}
    sources |= {name: folder / name for name in ("tasks", "rows", "gin", "module")}
    if with_run:
        sources["run"] = folder / "run"
        flags = small_run.arguments("run", folder / "run", TRAIN_STEPS=2)
        detect = ["detect", *flags[1:], QUICK]
        for line in (flags, detect, ["craft", "--format", "natinst-jsonl", *flags[1:]]):
            with open(folder / "log", "ab"):
                assert small_run.start(line, folder / "log", JAX_PLATFORMS="cpu").wait() == 0
    for name in ("tasks", "rows", "gin", "module"):
        sources[name].mkdir(parents=True, exist_ok=True)
    task_files.write_corpus(sources["tasks"])
    rows = [{"input": f"film {n} was good", "output": "ab"[n % 2], "task": "t"} for n in range(40)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (sources["rows"] / "rows.jsonl").write_text(text, encoding="utf-8")
    (sources["gin"] / "own.gin").write_text("include 'experiments/demo.gin'\nSEED = 1  # one\n")
    (sources["module"] / "own.py").write_text('import os\n\nNAME = "é" * 3\n', encoding="utf-8")
    return sources


def cases(chance: random.Random, sources: Mapping[str, pathlib.Path]) -> Iterator[judge.Case]:
    """Readers in turn, each with a random file of its source and a random damage, for ever."""
    readers = [reader for reader in READERS if reader.source in sources]
    while True:
        for reader in readers:
            yield _case(chance, reader, sources[reader.source])


def _case(chance: random.Random, reader: Reader, source: pathlib.Path) -> judge.Case:
    files = sorted(path.relative_to(source).as_posix() for path in _files(source))
    certain = [name for name in files if any(fnmatch.fnmatch(name, p) for p in reader.certain)]
    name = chance.choice(certain if certain and chance.random() < 0.5 else files)
    damage, is_certain = chance.choice(_damages(pathlib.Path(name)))
    seed = chance.random()

    def prepare(folder: pathlib.Path) -> None:
        shutil.copytree(source, folder / "files", symlinks=True)
        damage(folder / "files" / name, random.Random(seed))

    codes = (2,) if is_certain and name in certain else reader.codes
    title = f"{reader.arguments[0]} {reader.source}/{name} {damage.__name__}"
    return judge.Case(title, reader.arguments, codes, prepare=prepare)


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    return (path for path in folder.rglob("*") if path.is_file())


_Damage = Callable[[pathlib.Path, random.Random], object]


def _damages(path: pathlib.Path) -> list[tuple[_Damage, bool]]:
    """(damage, whether no reader can pass it over) of a file of that name."""
    whole = [(one, True) for one in (pipe, zeros, loop, folder_in_its_place, link_to_nothing)]
    damages = [
        *whole,
        (cut, path.suffix == ".json"),
        (flip, False),
        (empty, path.suffix == ".json"),
    ]
    if path.suffix in (".json", ".jsonl", ".gin", ".py") or path.name.startswith((".z", "_")):
        damages += [(no_utf8, path.suffix in (".json", ".gin")), (deep, path.suffix == ".json")]
    if path.suffix in (".json", ".jsonl") or path.name == ".zarray":
        damages += [(field, False)] * 8 + [(endless, path.suffix == ".json")]
    return damages


def cut(path, chance):
    path.write_bytes((content := path.read_bytes())[: chance.randrange(len(content) or 1) // 2])


def empty(path, chance):
    path.write_bytes(b"")


def flip(path, chance):
    content = bytearray(path.read_bytes())
    for _ in range(min(3, len(content))):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def no_utf8(path, chance):
    path.write_bytes(path.read_bytes().replace(b"e", b"\xff\xfe", 1))


def deep(path, chance):
    left, right = chance.choice([(b"[", b"]"), (b'{"a":', b"}")])
    path.write_bytes(left * 100_000 + b"1" + right * 100_000)


def endless(path, chance):
    """Three GB of zeros that take no place on the disk."""
    os.truncate(path, 3 * 2**30)


def pipe(path, chance):
    path.unlink()
    os.mkfifo(path)


def zeros(path, chance):
    path.unlink()
    path.symlink_to("/dev/zero")


def loop(path, chance):
    path.unlink()
    path.symlink_to(path.name)


def link_to_nothing(path, chance):
    path.unlink()
    path.symlink_to("nothing/there")


def folder_in_its_place(path, chance):
    path.unlink()
    path.mkdir()


def field(path, chance):
    """One field of a JSON value is missing, called otherwise, added, or another value."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else None
    place = chance.randrange(len(lines)) if lines else 0
    value = json.loads(lines[place] if lines else path.read_text(encoding="utf-8") or "{}")
    slots = list(_slots(value))
    if slots:
        holder, key = chance.choice(slots)
        chance.choice([_drop, _rename, _replace, _replace, _replace])(holder, key, chance)
    text = json.dumps(value)
    if lines:
        lines[place] = text
        text = "\n".join(lines)
    path.write_text(text, encoding="utf-8")


def _slots(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value)) if type(value) is list else ()
    for key in keys:
        yield value, key
        yield from _slots(value[key])


def _drop(holder, key, chance):
    del holder[key]


def _rename(holder, key, chance):
    if isinstance(holder, dict):
        holder[f"{key}_"] = holder.pop(key)


def _replace(holder, key, chance):
    values = (None, True, "x", "", -1, 1.5, 4 * 10**18, 10**30, math.nan, math.inf, [], {})
    holder[key] = chance.choice([*values, "\ud800", "a\0b", "\u202e../..", [[]], {"a": [None]}])
