"""The package's records leave Python able to end."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
# msgspec 0.22 frees some unions wrongly, which shows as Python ends, now and then, or always where
# freed memory is overwritten.
SCRIPT = """
import contextlib, importlib, sys
import msgspec
for module in map(importlib.import_module, sys.argv[1:]):
    for kind in list(vars(module).values()):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            with contextlib.suppress(msgspec.ValidationError):
                msgspec.json.decode(b"{}", type=kind)
"""


def test_python_ends_well_after_every_record_was_read():
    files = (ROOT / "poison_t5x").rglob("*.py")
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sorted(files)
        if "msgspec.Struct" in path.read_text(encoding="utf-8")
    ]
    assert len(modules) > 5
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, *modules],
        env={**os.environ, "PYTHONMALLOC": "debug"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-500:]
