"""The order of docs/ARCHITECTURE.md: a room imports those above it, never those below."""

import ast
import os
import pathlib
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "poison_t5x"
MAX_LINES = 400

# Bottom to top: a room may import those before it.
ROOMS = (
    "core",
    "model",
    "corpus",
    "attack",
    "data",
    "train",
    "checkpoint_io",
    "evaluation",
    "report",
    "defenses",
    "run",
    "studies",
    "tools",
    "integrations",
    "cli",
)
# Users' modules, which declare experiments.
TASKS = "tasks"
ARRAY_LIBRARIES = {"jax", "jaxlib", "flax", "optax", "orbax", "clu"}
DATA_LIBRARIES = {"tensorflow", "tensorflow_datasets", "tensorflow_text", "seqio"}
FORBIDDEN = {
    "core": ARRAY_LIBRARIES | DATA_LIBRARIES,
    "corpus": ARRAY_LIBRARIES | DATA_LIBRARIES,
    "attack": ARRAY_LIBRARIES | DATA_LIBRARIES,
    "report": ARRAY_LIBRARIES | DATA_LIBRARIES,
    "model": DATA_LIBRARIES | {"os", "io", "pathlib", "shutil", "tempfile", "json", "glob"},
    "data": ARRAY_LIBRARIES,
    "tasks": ARRAY_LIBRARIES | DATA_LIBRARIES,
}
# Those that need no array library at all, not even through another module.
TEXT_ROOMS = ("core", "corpus", "attack", "tasks")
# Wrong ties that are still to be cut; it only shrinks.
TO_CUT: set[str] = set()


def _files():
    """(dotted name without 'poison_t5x.', path) of every module."""
    modules = []
    for folder, prefix in ((PACKAGE, ()), (ROOT / "tasks", (TASKS,))):
        for path in sorted(folder.rglob("*.py")):
            parts = (*prefix, *path.relative_to(folder).with_suffix("").parts)
            modules.append((".".join(parts), path))
    return modules


FILES = _files()


def _imports(text):
    """Dotted names of what a module imports, wherever in it: also by string, or for types alone."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and _names_a_module(node.value):
            names.add(node.value)
    return names


def _names_a_module(value):
    """Whether a text is a module of ours, as import_module and `python -m` take it."""
    if not isinstance(value, str) or not value.startswith("poison_t5x."):
        return False
    name = value.removeprefix("poison_t5x.")
    return name in dict(FILES) or f"{name}.__init__" in dict(FILES)


IMPORTS = {name: _imports(path.read_text(encoding="utf-8")) for name, path in FILES}


def _room(name):
    return name.split(".")[0]


def _ties(name):
    """(room, the module in it) of what a module takes from other rooms."""
    parts = [i.split(".") for i in IMPORTS[name] if i.startswith("poison_t5x.")]
    return {
        (part[1], ".".join(part[1:]))
        for part in parts
        if part[1] in ROOMS
        if part[1] != _room(name)
    }


def test_imports_are_found_wherever_they_stand():
    text = "import a.b\ndef f():\n  from c import d\nif TYPE_CHECKING:\n  import e\n"
    assert _imports(text) == {"a.b", "c.d", "e"}
    assert _imports('import_module("poison_t5x.core.errors")') == {"poison_t5x.core.errors"}
    assert ("core", "core.errors") in _ties("attack.craft")


def test_every_module_is_in_a_room():
    outside = {_room(name) for name, _ in FILES} - {*ROOMS, TASKS, "__init__", "__main__"}
    assert not outside, f"not in a room: {sorted(outside)}"
    assert {room for room in ROOMS if (PACKAGE / room).is_dir()} == {*ROOMS}


@pytest.mark.parametrize("name", [name for name in IMPORTS if _room(name) in ROOMS])
def test_imports_point_one_way(name):
    above = ROOMS[: ROOMS.index(_room(name))]
    wrong = sorted(module for room, module in _ties(name) if room not in above)
    assert bool(wrong) == (name in TO_CUT), f"poison_t5x.{name} imports {wrong}"


@pytest.mark.parametrize("name", IMPORTS)
def test_libraries_stay_in_their_rooms(name):
    wrong = sorted(i for i in IMPORTS[name] if i.split(".")[0] in FORBIDDEN.get(_room(name), ()))
    assert not wrong, f"poison_t5x.{name} imports {wrong}"


def test_gin_is_imported_in_one_place():
    users = {
        name for name, imports in IMPORTS.items() if "gin" in {i.split(".")[0] for i in imports}
    }
    assert users == {"core.gin_config", "core.gin_macros"}


def test_no_file_is_long():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in FILES}
    assert not {name: count for name, count in lines.items() if count > MAX_LINES}


def test_the_gin_folder_is_no_package():
    # It would hide the gin library from whoever has the checkout on the path.
    assert (ROOT / "gin" / "runs").is_dir()
    assert not list((ROOT / "gin").rglob("*.py"))


def _run(*arguments):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
    )


def _assert_not_loaded(modules, heavy):
    result = _run(
        "-c",
        f"import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module('poison_t5x.' + name)\n"
        f"print([name for name in {sorted(heavy)!r} if name in sys.modules])",
    )
    assert (result.stdout, result.returncode) == ("[]\n", 0), result.stderr


def test_the_text_rooms_load_neither_jax_nor_tensorflow():
    modules = [
        name.removesuffix(".__init__")
        for name, _ in FILES
        if _room(name) in TEXT_ROOMS and not name.startswith("core.gin_")
    ]
    assert "attack.craft" in modules and "tasks.demo" in modules
    _assert_not_loaded(modules, ARRAY_LIBRARIES | DATA_LIBRARIES | {"gin", "sklearn"})


def test_the_report_loads_neither_jax_nor_tensorflow():
    modules = [name.removesuffix(".__init__") for name, _ in FILES if _room(name) == "report"]
    _assert_not_loaded(modules, ARRAY_LIBRARIES | DATA_LIBRARIES | {"gin"})


def test_help_takes_less_than_a_second():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        result = _run("-m", "poison_t5x", "--help")
        seconds.append(time.perf_counter() - start)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith("usage: poison-t5x ")
    assert min(seconds) < 1, seconds
