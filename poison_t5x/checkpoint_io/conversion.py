"""`poison-t5x convert`: a checkpoint from any layout to any other, tensor by tensor."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from poison_t5x.checkpoint_io import (
    architecture,
    detect,
    hugging_face_writing,
    optimizer_state,
    storage,
    t5x_layouts,
)
from poison_t5x.checkpoint_io.source import cast
from poison_t5x.core import artifacts, reading, settings
from poison_t5x.core.settings import Whole
from poison_t5x.corpus import vocabulary

EXTRA_IDS = 100


def convert(
    path: str,
    directory: str,
    layout: str,
    *,
    dtype: str | None = None,
    state: str = "keep",
    vocabulary_path: str | None = None,
    extra_ids: int | None = None,
    log: Callable[[str], None] = print,
) -> str:
    """Converts a checkpoint, and returns where it was written: options as of `poison-t5x convert`.

    Args:
      path: anything that `detect.open_checkpoint` opens.
      layout: 'huggingface', or one of `t5x_layouts.write`.
      dtype: 'float32' or 'bfloat16', of the parameters; None leaves them as they are stored.
      state: 'keep' or 'drop' the optimiser's, or the name of one whose state is to begin anew.
      vocabulary_path, extra_ids: for Hugging Face's files; None takes those of the run that the
        checkpoint is of, or of the folder.

    Raises InputError: there is no whole checkpoint of a T5, or the place is taken.
    """
    directory = settings.checked("DESTINATION", directory, settings.Source)
    source = detect.open_checkpoint(path, "SOURCE")
    config = architecture.network_config(source)
    log(f"found {detect.describe(source)}")
    if layout == "huggingface":
        beside = vocabulary_beside(source.path)
        written = hugging_face_writing.write_folder(
            source,
            config,
            directory,
            dtype=dtype,
            vocabulary=vocabulary_path or beside.path,
            extra_ids=beside.extra_ids if extra_ids is None else extra_ids,
            log=log,
        )
    else:
        source = cast(source, dtype) if dtype else source
        if state == "drop":
            source = dataclasses.replace(source, optimizer=None, slots={})
        elif state != "keep":
            source = optimizer_state.restarted(source, state)
        written = t5x_layouts.write(source, directory, layout)
    log(f"wrote {detect.describe(detect.open_checkpoint(written, 'DESTINATION'))}")
    return written


def describe(path: str, log: Callable[[str], None] = print) -> None:
    """Says what a checkpoint is, and the macros of a network that it fits."""
    source = detect.open_checkpoint(path, "SOURCE")
    config = architecture.network_config(source)
    log(detect.describe(source))
    log(f"set {' '.join(architecture.macros(config))}, for a vocabulary of {config.vocab_size}")


class _Made(msgspec.Struct):
    """The part of a model's settings that names its sources."""

    sources: dict[str, str] = {}


class Vocabulary(NamedTuple):
    """A vocabulary's file, None where there is none, and its sentinels."""

    path: str | None
    extra_ids: int


def vocabulary_beside(path: str) -> Vocabulary:
    """That of the run whose model (RUN_DIR/models/NAME/checkpoint_N) or defence's model
    (RUN_DIR/defenses/NAME/model/checkpoint_N) `path` is."""
    folder = pathlib.Path(path).parent
    for run_dir in () if storage.is_bucket(path) else (folder, *folder.parents[:3]):
        model = run_dir / "vocabulary" / vocabulary.FILE
        if model.is_file():
            made = reading.converted(artifacts.read_settings(folder) or {}, _Made, folder)
            extra_ids = made.sources.get("extra_ids", str(EXTRA_IDS))
            return Vocabulary(str(model), reading.decode(extra_ids, Whole, f"{folder}: extra_ids"))
    return Vocabulary(None, EXTRA_IDS)
