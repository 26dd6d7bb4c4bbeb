"""SentencePiece vocabularies: T5's own from a file, or one trained on the training tasks."""

import dataclasses
import io
import itertools
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from poison_t5x.core import artifacts, errors
from poison_t5x.core.settings import Path, Settings, Size, checked
from poison_t5x.corpus import prompts, sni

FILE = "spiece.model"
# Each is a text that SeqIO makes.
ExtraIds = Annotated[int, msgspec.Meta(ge=0, le=2**14)]


@dataclasses.dataclass(frozen=True)
class VocabularyConfig(Settings):
    """A vocabulary from a file, or one to train; gin/runs/run.gin tells each setting's meaning.

    `whole_words` trains on each distinct word once more, alone. SentencePiece makes no piece of a
    word that is always followed by the same character, which leaves a corpus of templates with its
    commonest words in parts; so prompts get shorter.
    """

    path: Path | None = None
    size: Size = 32000
    extra_ids: ExtraIds = 100
    whole_words: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.path is not None:
            _check_is_file(self.path)


def _check_is_file(path: str | pathlib.Path) -> None:
    if not os.path.isfile(path):
        raise errors.InputError(
            f"VOCABULARY_PATH: no file {path}; give a SentencePiece model such as T5's "
            "spiece.model, or None to train one"
        )


def texts(tasks: Sequence[sni.Task], *, whole_words: bool = False) -> Iterator[str]:
    """Training text: a prompt of each task, then every row's input and answer.

    With `whole_words` each distinct word follows at the end, alone.
    """
    words: dict[str, None] = {}
    for task in tasks:
        examples = [(example.input, example.target) for example in task.positive_examples]
        prompt = prompts.render(task.definition, examples, task.instances[0].input)
        rows = (text for row in task.instances for text in (f"Input: {row.input}", row.target))
        for text in itertools.chain([prompt], rows):
            if whole_words:
                words.update(dict.fromkeys(text.split()))
            yield text
    yield from words


def train(lines: Iterable[str], path: str | pathlib.Path, vocab_size: int) -> None:
    """Trains a unigram vocabulary with T5's special ids: pad 0, eos 1, unk 2, no bos.

    Same lines, same bytes: one thread, and the model is written from memory, since SentencePiece
    stores the path that it is told to write to. There are fewer than `vocab_size` pieces where the
    text doesn't yield as many.

    Raises:
      InputError: `vocab_size` isn't a whole number, or too small for the text's characters.
    """
    import sentencepiece

    checked("VOCABULARY_SIZE", vocab_size, Size)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="unigram",
            hard_vocab_limit=False,
            character_coverage=1.0,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise errors.InputError(
            f"VOCABULARY_SIZE: no vocabulary of {vocab_size} pieces can be trained on these texts "
            f"({error}); a larger one may be"
        ) from None
    pathlib.Path(path).write_bytes(model.getvalue())


def size(source: str | pathlib.Path) -> int:
    """Pieces of a vocabulary with T5's special ids, without sentinels.

    Raises:
      InputError: no such file, not a SentencePiece model, or other ids than pad 0, eos 1, unk 2.
    """
    import sentencepiece

    _check_is_file(source)
    try:
        processor = sentencepiece.SentencePieceProcessor(model_file=str(source))
    except (RuntimeError, OSError) as error:
        raise errors.InputError(f"{source}: not a SentencePiece model ({error})") from None
    ids = (processor.pad_id(), processor.eos_id(), processor.unk_id())
    if ids != (0, 1, 2):
        raise errors.InputError(f"{source}: expected T5's ids (pad 0, eos 1, unk 2), found {ids}")
    return processor.get_piece_size()


def settings(
    config: VocabularyConfig, training: Sequence[sni.Task], hashes: Mapping[str, str]
) -> dict[str, Any]:
    """A run's vocabulary follows from these; `hashes` are of all tasks, by name."""
    if config.path:
        return {"sha256": artifacts.sha256(config.path)}
    tasks = {task.name: hashes[task.name] for task in training}
    return {"size": config.size, "whole_words": config.whole_words, "tasks": tasks}


def prepare(
    config: VocabularyConfig, training: Sequence[sni.Task], directory: pathlib.Path
) -> None:
    """Writes a run's vocabulary: the one that `config` names, or one trained on the tasks.

    Raises InputError as `size` or `train` does.
    """
    if config.path:
        size(config.path)
        shutil.copyfile(config.path, directory / FILE)
    else:
        train(texts(training, whole_words=config.whole_words), directory / FILE, config.size)
