"""`poison-t5x convert`: a checkpoint from any layout to any other, tensor by tensor."""

import pathlib
from collections.abc import Callable
from typing import NamedTuple

from poison_t5x.checkpoint_io import architecture, detect, slots, storage, writing
from poison_t5x.checkpoint_io.hugging_face import writing as hugging_face
from poison_t5x.checkpoint_io.source import Source
from poison_t5x.core import artifacts, checks
from poison_t5x.corpus import vocabulary

EXTRA_IDS = 100
_WRITERS = {
    "t5x": writing.write_t5x,
    "t5x-orbax": writing.write_t5x_orbax,
    "poison-t5x": writing.write_ours,
}


def convert(
    path: str,
    directory: str,
    layout: str,
    *,
    dtype: str | None = None,
    optimizer_state: str = "keep",
    vocabulary_path: str | None = None,
    extra_ids: int | None = None,
    say: Callable[[str], None] = print,
) -> str:
    """Converts a checkpoint, and returns where it was written.

    Args:
      path: anything that `detect.open_checkpoint` opens.
      directory: where to write: `<directory>/checkpoint_<step>`, or Hugging Face's files
        themselves.
      layout: 'huggingface', 't5x' (as the public checkpoints), 't5x-orbax' (as today's T5X writes)
        or 'poison-t5x' (as our train loop).
      dtype: 'float32' or 'bfloat16', of the parameters; None leaves them as they are stored.
      optimizer_state: 'keep', 'drop', or the name of an optimiser whose state is to begin anew, at
        step 0. Hugging Face's folders have none.
      vocabulary_path: a SentencePiece model to put beside Hugging Face's files; None takes that of
        the run that the checkpoint is of, or of the folder.
      extra_ids: sentinel ids after the vocabulary's own; None takes the run's, or T5's 100.
      say: takes a line about what was found, and one about what was written.

    Raises:
      InputError: what is there isn't a whole checkpoint of a T5, or the place is taken.
    """
    checks.path("DESTINATION", directory)
    source = detect.open_checkpoint(path, "SOURCE")
    config = architecture.network_config(source)
    say(f"found {detect.describe(source)}")
    if layout in _WRITERS:
        written = _WRITERS[layout](_adapted(source, dtype, optimizer_state), directory)
    else:
        found = vocabulary_beside(source.path)
        written = hugging_face.write_folder(
            source,
            config,
            directory,
            dtype=dtype,
            vocabulary=vocabulary_path or found.path,
            extra_ids=found.extra_ids if extra_ids is None else extra_ids,
            say=say,
        )
    say(f"wrote {detect.describe(detect.open_checkpoint(written, 'DESTINATION'))}")
    return written


def describe(path: str, say: Callable[[str], None] = print) -> None:
    """Says what a checkpoint is, and the macros of a network that it fits."""
    source = detect.open_checkpoint(path, "SOURCE")
    config = architecture.network_config(source)
    say(detect.describe(source))
    say(f"set {' '.join(architecture.macros(config))}, for a vocabulary of {config.vocab_size}")


def _adapted(source: Source, dtype: str | None, optimizer_state: str) -> Source:
    if dtype is not None:
        source = slots.Cast(source, dtype)
    if optimizer_state == "keep":
        return source
    if optimizer_state == "drop":
        return slots.Dropped(source)
    return slots.Restarted(source, optimizer_state)


class Vocabulary(NamedTuple):
    """A vocabulary's file, None where there is none, and its sentinels."""

    path: str | None
    extra_ids: int


def vocabulary_beside(path: str) -> Vocabulary:
    """The vocabulary of the run whose checkpoint `path` is: RUN_DIR/models/NAME/checkpoint_N, or of
    a defence, RUN_DIR/defenses/NAME/model/checkpoint_N.
    """
    if not storage.is_bucket(path):
        folder = pathlib.Path(path).parent
        for run_dir in (folder, *folder.parents[:3]):
            found = run_dir / "vocabulary" / vocabulary.FILE
            if found.is_file():
                return Vocabulary(str(found), _extra_ids(folder / "settings.json"))
    return Vocabulary(None, EXTRA_IDS)


def _extra_ids(settings: pathlib.Path) -> int:
    """Sentinels that a run's model was made with."""
    if not settings.is_file():
        return EXTRA_IDS
    sources = artifacts.read_json(settings).get("sources", {})
    return int(sources.get("extra_ids", EXTRA_IDS))
