"""The order of ARCHITECTURE.md: a layer imports those above it, never those below."""

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

# Top-level modules and folders of the package, by layer. A new one must be added here.
LAYERS = {
    "text": {
        "__init__",
        "errors",
        "checks",
        "memory",
        "pages",
        "progress",
        "sni",
        "prompts",
        "artifacts",
        "corpus",
        "declarations",
        "vocabulary",
        "demo_corpus",
        "exchange",
        "poison",
        "screening",
        "stage_store",
        "tasks",
    },
    "input": {"natinst_tfds", "mixtures", "input_pipeline", "mixture_rows"},
    "array": {
        "model",
        "losses",
        "decoding",
        "beam_search",
        "ranking",
        "partitioning",
        "optimizers",
        "train_state",
        "steps",
        "layerwise",
        "per_example",
    },
    "disk": {"checkpoints", "compilation_cache", "convert", "distributed", "metrics_log"},
    "programs": {
        "train",
        "train_config",
        "train_loop",
        "evaluation",
        "results_file",
        "experiment",
        "sweep",
        "stages",
        "craft_stage",
        "defense",
        "study",
        "caching",
        "footprint",
        "precompile",
    },
    "report": {"report"},
    "command line": {
        "cli",
        "gin_config",
        "cli_commands",
        "cli_tools",
        "listing",
        "t5x_engine",
        "doctor",
    },
}
# Layer -> the layers of the package that it may import from.
ALLOWED = {
    "text": {"text"},
    "input": {"text", "input"},
    "array": {"array"},
    "disk": {"text", "array", "disk"},
    "programs": {"text", "input", "array", "disk", "programs"},
    "report": {"report"},
    "command line": {"text", "input", "array", "disk", "programs", "report", "command line"},
}
# Any layer may raise the one exception; a run's last stage is its report.
EXCEPTIONS = {
    ("array", "errors"),
    ("array", "checks"),
    ("report", "errors"),
    ("experiment", "report"),
}

ARRAY_LIBRARIES = {"jax", "jaxlib", "flax", "optax", "orbax", "clu"}
DATA_LIBRARIES = {"tensorflow", "tensorflow_datasets", "tensorflow_text", "seqio"}
FILE_MODULES = {"os", "io", "pathlib", "shutil", "tempfile", "json", "glob"}
FORBIDDEN = {
    "text": ARRAY_LIBRARIES | DATA_LIBRARIES,
    "input": ARRAY_LIBRARIES,
    "array": DATA_LIBRARIES | FILE_MODULES,
    "disk": DATA_LIBRARIES,
    "programs": set(),
    "report": ARRAY_LIBRARIES | DATA_LIBRARIES,
    "command line": set(),
}


def _files():
    """(dotted name without 'poison_t5x.', path) of every module."""
    found = []
    for folder, prefix in ((PACKAGE, ()), (ROOT / "tasks", ("tasks",))):
        for path in sorted(folder.rglob("*.py")):
            parts = (*prefix, *path.relative_to(folder).with_suffix("").parts)
            found.append((".".join(parts), path))
    return found


FILES = _files()


def _is_main_guard(node):
    return isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)


def _nodes(tree):
    """All nodes, but for the body of `if __name__ == '__main__'`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if not _is_main_guard(node):
            waiting.extend(ast.iter_child_nodes(node))


def _imports(text):
    """Dotted names of what a module imports, wherever in it."""
    names = set()
    for node in _nodes(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


IMPORTS = {name: _imports(path.read_text(encoding="utf-8")) for name, path in FILES}


def _top(name):
    return name.split(".")[0]


def _layer(top):
    return next((layer for layer, members in LAYERS.items() if top in members), None)


def _inner(name):
    """Top-level parts of the package that a module imports."""
    inner = [i.split(".")[1] for i in IMPORTS[name] if i.startswith("poison_t5x.")]
    # `from poison_t5x import __version__` is an attribute of the package itself.
    return {"__init__" if part.startswith("__") else part for part in inner}


def test_imports_are_found_wherever_they_stand():
    text = "import a.b\ndef f():\n  from c import d\nif __name__ == '__main__':\n  import e\n"
    assert _imports(text) == {"a.b", "c.d"}
    assert {"errors", "sni"} <= _inner("poison.craft")


def test_every_module_is_in_one_layer():
    tops = {_top(name) for name, _ in FILES}
    unclaimed = sorted(top for top in tops if _layer(top) is None)
    assert not unclaimed, f"add them to LAYERS: {unclaimed}"
    gone = sorted(set().union(*LAYERS.values()) - tops)
    assert not gone, f"take them out of LAYERS: {gone}"
    assert sum(map(len, LAYERS.values())) == len(set().union(*LAYERS.values()))


@pytest.mark.parametrize("name", IMPORTS)
def test_imports_point_one_way(name):
    layer = _layer(_top(name))
    wrong = sorted(
        part
        for part in _inner(name)
        if _layer(part) not in ALLOWED[layer]
        and (layer, part) not in EXCEPTIONS
        and (_top(name), part) not in EXCEPTIONS
    )
    assert not wrong, f"poison_t5x.{name} ({layer} layer) imports {wrong}"


@pytest.mark.parametrize("name", IMPORTS)
def test_libraries_stay_in_their_layer(name):
    layer = _layer(_top(name))
    wrong = sorted(i for i in IMPORTS[name] if _top(i) in FORBIDDEN[layer])
    assert not wrong, f"poison_t5x.{name} ({layer} layer) imports {wrong}"


def test_gin_is_imported_by_the_command_line_only():
    users = {name for name, imports in IMPORTS.items() if "gin" in map(_top, imports)}
    assert users == {"gin_config"} or users == {"gin_config", "cli"}


def test_the_array_layer_opens_no_file():
    for name, path in FILES:
        if _layer(_top(name)) == "array":
            tree = ast.parse(path.read_text(encoding="utf-8"))
            calls = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
            assert "open" not in calls, name


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
        cwd=ROOT.parent,
        env=environment,
    )


def test_the_text_layer_loads_neither_jax_nor_tensorflow():
    modules = [
        f"poison_t5x.{name}".removesuffix(".__init__")
        for name, _ in FILES
        if _layer(_top(name)) == "text"
    ]
    assert "poison_t5x.poison.craft" in modules and "poison_t5x.tasks.demo" in modules
    heavy = sorted(ARRAY_LIBRARIES | DATA_LIBRARIES | {"gin", "sklearn"})
    result = _run(
        "-c",
        f"import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print([name for name in {heavy!r} if name in sys.modules])",
    )
    assert (result.stdout, result.returncode) == ("[]\n", 0), result.stderr


def test_the_report_loads_neither_jax_nor_tensorflow():
    modules = [f"poison_t5x.{name}" for name, _ in FILES if name.startswith("report.")]
    heavy = sorted(ARRAY_LIBRARIES | DATA_LIBRARIES | {"gin"})
    result = _run(
        "-c",
        f"import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name.removesuffix('.__init__'))\n"
        f"print([name for name in {heavy!r} if name in sys.modules])",
    )
    assert (result.stdout, result.returncode) == ("[]\n", 0), result.stderr


def test_help_takes_less_than_a_second():
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        result = _run("-m", "poison_t5x.cli", "--help")
        seconds.append(time.perf_counter() - start)
        assert result.returncode == 0, result.stderr
        assert result.stdout.startswith("usage: poison-t5x ")
    assert min(seconds) < 1, seconds
