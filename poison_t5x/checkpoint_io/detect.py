"""Opens a checkpoint of any known layout, and says what it found where it can't."""

import pathlib

from poison_t5x.checkpoint_io import (
    architecture,
    hugging_face_config,
    hugging_face_reading,
    storage,
    t5x_layouts,
)
from poison_t5x.checkpoint_io.source import Source, unstacked
from poison_t5x.core import errors, settings
from poison_t5x.train import checkpoints

OURS = "a poison_t5x checkpoint"
KNOWN = "T5X's (either layout), Hugging Face's T5 folders, and this project's own"


def open_checkpoint(
    path: str, setting: str = "INITIAL_CHECKPOINT_PATH", *, verify: bool = True
) -> Source:
    """A checkpoint, whatever its layout.

    `path` is a checkpoint's folder, or that of a run with checkpoints (the newest is taken), or a
    Hugging Face folder; in a bucket ('gs://…', 's3://…') a checkpoint itself; or 'hf://OWNER/NAME',
    a Hugging Face repository that is in the local cache. `setting` is the one whose value it is,
    for messages. With `verify`, the files of one of ours are checked against its hashes.

    Raises InputError: nothing there can be read; the line names the thing that is there instead.
    """
    path = settings.checked(setting, path, settings.Source)
    if path.startswith("hf://"):
        return hugging_face_reading.open_hub(path)
    path = storage.absolute(path)
    if not storage.is_bucket(path):
        path = _resolve(path, setting)
    source = _open(path, verify=verify)
    if source is None:
        raise errors.InputError(f"{setting}: {path} {_what(path)}; known are {KNOWN}")
    if any(name.startswith("encoder/encoder/") for name in source.params):
        raise errors.InputError(
            f"{setting}: {path} is {source.layout} of scanned layers (scalable_t5, umT5), each "
            "with position biases of its own: another architecture than T5's"
        )
    return source


def open_start(path: str, vocabulary_path: str | None, *, verify: bool = True) -> Source:
    """A starting checkpoint that is there with its vocabulary, as `open_checkpoint`.

    Raises InputError where it isn't ours, and no vocabulary is given: one would be trained, whose
    ids mean other pieces to the checkpoint.
    """
    source = open_checkpoint(path, verify=verify)
    if vocabulary_path is None and source.layout != OURS:
        raise errors.InputError(
            f"INITIAL_CHECKPOINT_PATH: {source.path} is {source.layout}, so VOCABULARY_PATH has to "
            "name the SentencePiece model that it was trained with"
        )
    return source


def describe(source: Source) -> str:
    """A checkpoint's layout, size, step and place, in a line."""
    millions = architecture.count_parameters(source) / 1e6
    state = f", {source.optimizer}'s state" if source.optimizer else ""
    return f"{source.layout}, {millions:,.1f}M parameters, step {source.step}{state}: {source.path}"


def _open(path: str, *, verify: bool) -> Source | None:
    if (content := storage.read_file(path, t5x_layouts.METADATA)) is not None:
        if verify and not storage.is_bucket(path):
            checkpoints.verify(path)
        return unstacked(t5x_layouts.open_orbax(path, path, OURS, content))
    state = f"{path}/{t5x_layouts.STATE}"
    if (content := storage.read_file(state, t5x_layouts.METADATA)) is not None:
        return t5x_layouts.open_orbax(path, state, "a T5X checkpoint (Orbax)", content)
    if (content := storage.read_file(path, t5x_layouts.INDEX)) is not None:
        # TensorFlow has a file of that name, too.
        is_theirs = content.startswith(b"model_checkpoint_path")
        return None if is_theirs else t5x_layouts.open_index(path, content)
    if not storage.is_bucket(path) and (pathlib.Path(path) / hugging_face_config.FILE).is_file():
        return hugging_face_reading.open_folder(path)
    return None


def _resolve(path: str, setting: str) -> str:
    """The newest checkpoint, where the path is the folder of a run."""
    folder = pathlib.Path(path)
    if folder.is_file():
        if folder.name != t5x_layouts.INDEX:
            raise errors.InputError(f"{setting}: {path} is a file; give a checkpoint's folder")
        return str(folder.parent)
    if not folder.is_dir():
        raise errors.InputError(f"{setting}: {path} isn't there")
    steps = checkpoints.committed_steps(folder) or checkpoints.all_steps(folder)
    return str(checkpoints.step_path(folder, steps[-1])) if steps else path


def _what(path: str) -> str:
    """The thing at a path, in words."""
    if storage.is_bucket(path):
        return (
            "holds no checkpoint that can be read (give one checkpoint, such as "
            "gs://BUCKET/MODEL/checkpoint_1100000)"
        )
    folder = pathlib.Path(path)
    if other := storage.other_kind(folder):
        return f"holds {other}"
    names = sorted(entry.name for entry in folder.iterdir())
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    shown = f"is a folder with {', '.join(names[:3])}{more}, and no checkpoint"
    return shown if names else "is an empty folder"
