"""Files that are whole or not there, and stages: folders that are made once, with a record.

A stage is written under a temporary name and renamed when it is whole. Its `stage.json` holds what
it was made with (settings) and, once it is whole, the SHA-256 of what it holds. The same settings
skip it, other settings are refused by name, and a changed file is noticed when it is read.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Annotated, Any

import msgspec
from etils import epath

from poison_t5x.core import errors, failures, paths, reading

RECORD = "stage.json"
# What isn't whole is called so until it is; beside it, Orbax's own word.
PARTIAL = ".partial"
_ORBAX_PARTIAL = ".orbax-checkpoint-tmp"
AnyPath = reading.AnyPath


def _json(value: Any, **options: Any) -> str:
    """JSON, which has no NaN and no infinity: where a user's own metric gives one, it is null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, **options)
    except ValueError:
        finite = json.loads(json.dumps(value), parse_constant=lambda name: None)
        return json.dumps(finite, ensure_ascii=False, **options)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, so that equal values are equal bytes."""
    return _json(value, sort_keys=True, indent=1) + "\n"


def json_line(value: Any) -> str:
    """JSON as a line of a file."""
    return _json(value) + "\n"


def digest(value: Any) -> str:
    """The hexadecimal SHA-256 of a JSON value: equal for equal values."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def dump_json(value: Any) -> str:
    """JSON with keys in their own order, for files whose order is part of their format."""
    return _json(value, indent=1) + "\n"


@contextlib.contextmanager
def writing(path: AnyPath) -> Iterator[IO[bytes]]:
    """A file to write: a reader sees the old one, or the whole new one once the block has ended."""
    whole = epath.Path(path)
    partial = whole.with_name(whole.name + PARTIAL)
    try:
        with failures.writing(path):
            whole.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(whole)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_atomically(path: AnyPath, content: str | bytes) -> None:
    """Writes bytes, or text as UTF-8, as `writing` does."""
    content = content.encode("utf-8") if isinstance(content, str) else content
    with writing(path) as file:
        file.write(content)


def write_jsonl(path: AnyPath, rows: Iterable[Any]) -> None:
    """Writes one JSON object a line, atomically, as UTF-8."""
    write_atomically(path, "".join(map(json_line, rows)))


def sha256(path: AnyPath) -> str:
    """The hexadecimal SHA-256 of a file. Raises InputError where it can't be read."""
    with reading.open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


class _Record(msgspec.Struct):
    stage: str
    settings: dict[str, Any]
    outputs: dict[str, str] | None  # None: begun, and not whole
    seconds: Annotated[float, msgspec.Meta(ge=0, le=1e12)]

    def __post_init__(self) -> None:
        reading.shallow(self.settings)


def _read(directory: AnyPath) -> _Record | None:
    path = epath.Path(directory) / RECORD
    if os.path.lexists(path):
        return reading.read_json(path, _Record, "delete its folder")
    if os.path.lexists(directory) and not os.path.isdir(directory):
        raise errors.InputError(f"{directory}: a folder can't be made there: a file is in the way")
    return None


def read_record(directory: AnyPath) -> dict | None:
    """A stage's record, or None where the stage isn't finished."""
    record = _read(directory)
    return None if record is None or record.outputs is None else msgspec.to_builtins(record)


def read_settings(directory: AnyPath) -> dict[str, Any] | None:
    """The settings of a stage, whole or only begun; None where nothing is."""
    record = _read(directory)
    return None if record is None else record.settings


def fingerprint(directory: AnyPath) -> str:
    """A digest of a finished stage's settings and contents, for the records of what follows it."""
    record = _finished(directory)
    return digest({"settings": record["settings"], "outputs": record["outputs"]})


def _finished(directory: AnyPath) -> dict:
    record = read_record(directory)
    if record is None:
        raise errors.InputError(f"{directory}: not a finished stage folder (no {RECORD})")
    return record


def verify(directory: AnyPath) -> None:
    """Raises InputError where a file of a finished stage isn't what was written."""
    for name, expected in _finished(directory)["outputs"].items():
        path = epath.Path(directory) / name
        if not path.is_file() or sha256(path) != expected:
            state = "doesn't match its recorded hash" if path.is_file() else "is missing"
            raise errors.InputError(f"{path} {state}; delete {directory} to make it again")


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested settings as one level, with names such as 'craft.attacks.0.kind'."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = {str(place): one for place, one in enumerate(value)}
    if not isinstance(value, dict):
        return {name: value}
    flat: dict[str, Any] = {}
    for key, one in value.items():
        flat |= _flat(one, f"{name}.{key}" if name else key)
    return flat


def check_settings(directory: AnyPath, old: Mapping, new: Mapping) -> None:
    """Raises InputError, naming each setting that differs between a folder's record and today's."""
    before, now = (_flat(json.loads(canonical_json(dict(one)))) for one in (old, new))
    changed = [
        f"{key} = {before.get(key)!r} (now {now.get(key)!r})"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise errors.InputError(
            f"{directory} was made with other settings: {'; '.join(changed)}. Go back to those, "
            "delete it, or choose another folder (STAGE_STORE_DIR lets it share what is unchanged)"
        )


def run_stage(
    directory: AnyPath,
    name: str,
    settings: Mapping[str, Any],
    make: Callable[[epath.Path], object],
    *,
    log: Callable[[str], None],
    keep_partial: bool = False,
) -> bool:
    """Makes `directory` with `make(temporary_folder)`, unless it's there already.

    Args:
      name: the stage's, for messages and the record.
      settings: all that the result follows from, JSON values (fingerprints of sources included).
      keep_partial: hands `make` the files of a killed attempt with the same settings, for stages
        that can go on from them.

    Returns:
      Whether the stage ran.

    Raises:
      InputError: the folder was made with other settings, or holds a changed file.
    """
    folder = epath.Path(directory)
    record = read_record(directory)
    if record is not None:
        check_settings(directory, record["settings"], settings)
        verify(directory)
        log(f"{name}: already done in {directory}")
        return False
    if folder.exists():
        raise errors.InputError(f"{directory} exists but isn't a finished {name} folder; delete it")
    partial = folder.with_name(folder.name + PARTIAL)
    if partial.exists() and not (keep_partial and _begun_with(partial, settings)):
        partial.rmtree()
    start = time.monotonic()
    with paths.keeping_no_empty_folders(partial.parent):
        try:
            partial.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise errors.InputError(f"{partial}: can't be made ({error.strerror})") from None
        write_record(partial, name, settings)
        try:
            make(partial)
        except errors.InputError:
            if {path.name for path in partial.iterdir()} <= {RECORD} or not keep_partial:
                partial.rmtree()  # a refused start
            raise
        seconds = time.monotonic() - start
        write_record(partial, name, settings, hash_folder(partial), seconds)
        partial.rename(folder)
    log(f"{name}: done in {seconds:.1f} s -> {directory}")
    return True


def leftovers(directory: AnyPath) -> list[pathlib.Path]:
    """What killed commands left half-written below a folder, and beside it."""
    folder = pathlib.Path(directory)
    beside = [folder.with_name(folder.name + end) for end in (PARTIAL, f".shared{PARTIAL}")]
    found = [
        *filter(pathlib.Path.exists, beside),
        *folder.rglob(f"*{PARTIAL}"),
        *folder.rglob(f"*{_ORBAX_PARTIAL}*"),
    ]
    return [path for path in sorted(found) if not set(path.parents) & set(found)]


def remove_leftovers(directory: AnyPath) -> None:
    """Removes them; for the one process that writes there."""
    for path in leftovers(directory):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _begun_with(partial: epath.Path, settings: Mapping[str, Any]) -> bool:
    with contextlib.suppress(errors.InputError):
        record = _read(partial)
        if record is not None and record.outputs is None:
            return canonical_json(record.settings) == canonical_json(dict(settings))
    return False


def hash_folder(directory: AnyPath) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below a folder but its stage record."""
    return {name: value for name, value in _hashes(directory).items() if name != RECORD}


def _hashes(directory: AnyPath) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for path in sorted(epath.Path(directory).iterdir()):
        if path.is_dir():
            hashes |= {f"{path.name}/{name}": value for name, value in _hashes(path).items()}
        else:
            hashes[path.name] = sha256(path)
    return hashes


def write_record(
    directory: AnyPath,
    name: str,
    settings: Mapping[str, Any],
    outputs: Mapping[str, str] | None = None,
    seconds: float = 0.0,
) -> None:
    """Writes a stage's record: a claim on the folder before it is made, or what it holds after."""
    hashes = None if outputs is None else dict(outputs)
    record = msgspec.structs.asdict(_Record(name, dict(settings), hashes, round(seconds, 3)))
    write_atomically(epath.Path(directory) / RECORD, canonical_json(record))
