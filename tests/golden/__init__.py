"""Texts that are compared with files."""

import os
import pathlib


def expect(test: str, name: str, text: str) -> None:
    """The text is that of golden/NAME.txt beside the test; UPDATE_GOLDEN=1 writes what is meant."""
    path = pathlib.Path(test).parent / "golden" / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    assert text + "\n" == path.read_text(encoding="utf-8"), path
