"""Write-once folders: a stage writes under a temporary name, and is renamed when it is whole.

Every finished stage folder holds `stage.json`: what it was made with (settings), what it was made
from (sources), and the SHA-256 of what it holds. The same settings skip it, other settings are
refused by name, and a changed file is found when it is read.
"""

import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from poison_t5x.core import errors

RECORD = "stage.json"


class _Record(msgspec.Struct):
    """What `finish` and the train loop write."""

    stage: str
    settings: dict[str, Any]
    outputs: dict[str, str]
    seconds: float


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, so that equal values are equal bytes."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, indent=1) + "\n"


def dump_json(value: Any) -> str:
    """JSON with keys in their own order, for files whose order is part of their format."""
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def write_atomically(path: str | pathlib.Path, text: str) -> None:
    """Writes text as UTF-8 so that a reader sees the old file or the whole new one."""
    write_bytes_atomically(path, text.encode("utf-8"))


def write_bytes_atomically(path: str | pathlib.Path, content: bytes) -> None:
    """Writes bytes so that a reader sees the old file or the whole new one."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_jsonl(path: str | pathlib.Path, rows) -> None:
    """Writes one JSON object a line, atomically, as UTF-8."""
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: str | pathlib.Path) -> list[dict]:
    """Reads what `write_jsonl` wrote."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_json(path: str | pathlib.Path) -> Any:
    """Reads one JSON file. Raises InputError where it's missing or damaged."""
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise errors.InputError(f"{path}: can't be read ({error})") from None


def sha256(path: str | pathlib.Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(directory: pathlib.Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below `directory` but its stage record."""
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        path.relative_to(directory).as_posix(): sha256(path)
        for path in paths
        if path != directory / RECORD
    }


def fingerprint(directory: str | pathlib.Path) -> str:
    """A digest of a finished stage's settings and contents, for the records of what follows it."""
    record = read_record(directory)
    if record is None:
        raise errors.InputError(f"{directory}: not a finished stage folder (no {RECORD})")
    content = {key: record[key] for key in ("settings", "outputs")}
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def read_record(directory: str | pathlib.Path) -> dict | None:
    """A stage's record, or None where the stage isn't finished."""
    path = pathlib.Path(directory) / RECORD
    try:
        return msgspec.to_builtins(msgspec.json.decode(path.read_bytes(), type=_Record))
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise errors.InputError(
            f"{directory}: a folder can't be made there: a file is in the way"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.InputError(
            f"{path}: not a stage record ({error}); delete its folder"
        ) from None


def _flat(settings: Mapping, prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level, with names such as 'craft.seed'."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def check_settings(directory: str | pathlib.Path, old: Mapping, new: Mapping) -> None:
    """Raises InputError, naming each setting that differs between a folder's record and today's."""
    old, new = _flat(old), _flat(json.loads(canonical_json(dict(new))))
    changed = [
        f"{key} = {old.get(key)!r} (now {new.get(key)!r})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if changed:
        raise errors.InputError(
            f"{directory} was made with other settings: {'; '.join(changed)}. "
            "Choose another folder, go back to those settings, or delete this one"
        )


def verify(directory: str | pathlib.Path) -> None:
    """Raises InputError where a file of a finished stage isn't what was written."""
    directory = pathlib.Path(directory)
    record = read_record(directory)
    if record is None:
        raise errors.InputError(f"{directory}: not a finished stage folder (no {RECORD})")
    for name, expected in record["outputs"].items():
        path = directory / name
        if not path.is_file() or sha256(path) != expected:
            state = "doesn't match its recorded hash" if path.is_file() else "is missing"
            raise errors.InputError(f"{path} {state}; delete {directory} to make it again")


def run_stage(
    directory: str | pathlib.Path,
    name: str,
    settings: Mapping[str, Any],
    make: Callable[[pathlib.Path], None],
    *,
    say: Callable[[str], None],
    keep_partial: bool = False,
) -> bool:
    """Makes `directory` with `make(temporary_folder)`, unless it's there already.

    Args:
      directory: the folder to make; its parents are created.
      name: the stage's name, for messages and the record.
      settings: all that the result follows from, JSON values (fingerprints of sources included).
      make: fills the folder it is given.
      say: takes one line about what was done.
      keep_partial: hands `make` what a killed attempt with the same settings left behind, for
        stages that can go on from it.

    Returns:
      Whether the stage ran.

    Raises:
      InputError: the folder was made with other settings, or holds a changed file.
    """
    directory = pathlib.Path(directory)
    record = read_record(directory)
    if record is not None:
        check_settings(directory, record["settings"], settings)
        verify(directory)
        say(f"{name}: already done in {directory}")
        return False
    if directory.exists():
        raise errors.InputError(f"{directory} exists but isn't a finished {name} folder; delete it")
    partial = directory.with_name(directory.name + ".partial")
    _prepare_partial(partial, settings, keep_partial)
    start = time.monotonic()
    make(partial)
    (partial / _PARTIAL_SETTINGS).unlink()
    finish(partial, name, settings, time.monotonic() - start)
    os.rename(partial, directory)
    say(f"{name}: done in {time.monotonic() - start:.1f} s -> {directory}")
    return True


_PARTIAL_SETTINGS = "settings.partial.json"


def _prepare_partial(partial: pathlib.Path, settings: Mapping[str, Any], keep: bool) -> None:
    marker = partial / _PARTIAL_SETTINGS
    text = canonical_json(dict(settings))
    same = marker.is_file() and marker.read_text(encoding="utf-8") == text
    if partial.exists() and not (keep and same):
        shutil.rmtree(partial)
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise errors.InputError(f"{partial}: can't be made ({error.strerror})") from None
    write_atomically(marker, text)


def finish(directory: pathlib.Path, name: str, settings: Mapping[str, Any], seconds: float) -> None:
    """Writes the record of a whole stage folder."""
    record = {
        "stage": name,
        "settings": json.loads(canonical_json(dict(settings))),
        "outputs": hash_folder(directory),
        "seconds": round(seconds, 3),
    }
    write_atomically(directory / RECORD, canonical_json(record))
