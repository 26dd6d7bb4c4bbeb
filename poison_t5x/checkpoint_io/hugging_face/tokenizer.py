"""The tokenizer's files of a Hugging Face T5 folder.

transformers makes its tokenizer of the SentencePiece model itself, so that no tokenizer.json is
written. Its ids are SeqIO's, sentinels included (`<extra_id_0>` is the last), with two known
differences, which T5's public folders have, too: text after a sentinel begins a word even where no
space stands between them, and the texts `<pad>`, `</s>` and `<unk>` are those special tokens.
"""

import pathlib
import shutil
import warnings

from poison_t5x.core import artifacts, checks, errors
from poison_t5x.corpus import vocabulary

_CONFIG = "tokenizer_config.json"
_FILES = (
    vocabulary.FILE,
    "tokenizer.json",
    _CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
)
_PADDING = 128  # T5X rounds the embedding's rows up to a multiple of it


def write(path: str, extra_ids: int, rows: int, directory: pathlib.Path) -> str:
    """Writes the tokenizer of a SentencePiece model, and returns what was written in words.

    Args:
      path: the model.
      extra_ids: sentinel ids after the model's own.
      rows: of the embedding.
      directory: where to.

    Raises:
      InputError: not a SentencePiece model with T5's ids, or more ids than the embedding has rows.
    """
    checks.whole_number("--extra-ids", extra_ids, minimum=0)
    pieces = vocabulary.size(path)
    what = f"{path}: {pieces} pieces and {extra_ids} extra ids"
    if pieces + extra_ids > rows:
        raise errors.InputError(
            f"{what}, more than the {rows} rows of the embedding; give the "
            "vocabulary that the checkpoint was trained with"
        )
    if rows - pieces - extra_ids >= _PADDING:
        warnings.warn(
            f"{what}, and the embedding has {rows} rows: not the vocabulary that the checkpoint "
            "was trained with?",
            errors.InputWarning,
            stacklevel=2,
        )
    vocabulary.copy(path, directory / vocabulary.FILE)
    artifacts.write_atomically(
        directory / _CONFIG,
        artifacts.dump_json(
            {
                "tokenizer_class": "T5Tokenizer",
                "extra_ids": extra_ids,
                "eos_token": "</s>",
                "pad_token": "<pad>",
                "unk_token": "<unk>",
                # True would take the space before a full stop out of decoded texts.
                "clean_up_tokenization_spaces": False,
                # transformers 4: ids as those of T5's public folders, and of transformers 5.
                "legacy": True,
            }
        ),
    )
    return f"tokenizer of {path}, {pieces} pieces and {extra_ids} extra ids"


def copy(source: pathlib.Path, directory: pathlib.Path) -> str:
    """Copies a folder's tokenizer, if it has one, and returns what was copied in words."""
    found = [name for name in _FILES if (source / name).is_file()]
    for name in found:
        shutil.copyfile(source / name, directory / name)
    if not {vocabulary.FILE, "tokenizer.json"} & set(found):
        return "no tokenizer (give the vocabulary to have one)"
    return f"tokenizer of {source} ({', '.join(found)})"
