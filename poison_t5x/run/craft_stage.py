"""The craft stage's parts: the poison set, the corpus prepared for SeqIO, and the vocabulary."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from etils import epath

from poison_t5x.attack import craft, natinst_jsonl, natinst_reading, poison_set
from poison_t5x.corpus import vocabulary
from poison_t5x.corpus.corpus import Corpus
from poison_t5x.data import natinst_tfds


class Part(NamedTuple):
    """A folder of the stage: all that it follows from, and a function that fills it."""

    settings: Mapping[str, Any]
    make: Callable[[epath.Path], None]


class LanguageModel(NamedTuple):
    """A trained model that gives phi its p(y | x): its digest, and a function that opens it."""

    digest: str
    open: Callable[[], Any]


def needs_language_model(craft_cfg: craft.CraftConfig) -> bool:
    """Whether phi takes p(y | x) from a trained model."""
    scores = (attack.score for attack in craft_cfg.attacks)
    return any(score.needs_probabilities and score.proxy == "lm" for score in scores)


def parts(
    experiment: str,
    dataset: str,
    corpus: Corpus,
    craft_cfg: craft.CraftConfig,
    vocabulary_cfg: vocabulary.VocabularyConfig,
    jsonl_cfg: natinst_jsonl.JsonlConfig,
    language_model: LanguageModel | None,
    workers: int,
) -> dict[str, Part]:
    """Place in the run folder -> part, in the order in which they are made.

    Args:
      experiment: its name.
      dataset: the name of the TFDS data set that its tasks become.
      corpus: its tasks.
      language_model: where phi needs one.
      workers: processes that crafting looks for places with.
    """
    settings = {
        "experiment": experiment,
        "craft": craft_cfg.settings(),
        "tasks": corpus.hashes,
        **({"jsonl": jsonl_cfg.hashes} if jsonl_cfg.is_set else {}),
        **({"proxy": language_model.digest} if language_model else {}),
    }

    def write_poison(directory: epath.Path) -> None:
        if jsonl_cfg.is_set:
            made = natinst_reading.read_poison_set(jsonl_cfg, corpus, craft_cfg)
        else:
            made = craft.craft(
                corpus.training,
                corpus.poisoned,
                corpus.heldout,
                corpus.polarities,
                craft_cfg,
                workers=workers,
                language_model=language_model and language_model.open,
            )
        poison_set.write(directory, made, craft_cfg, corpus.hashes)

    poison = {"poison": Part(settings, write_poison)}
    prepared = {
        "data": Part(
            {"tasks": corpus.hashes},
            lambda directory: natinst_tfds.prepare(dataset, corpus.tasks, directory),
        ),
        "vocabulary": Part(
            vocabulary.settings(vocabulary_cfg, corpus.training, corpus.hashes),
            lambda directory: vocabulary.prepare(vocabulary_cfg, corpus.training, directory),
        ),
    }
    # A language model reads prompts, and so needs the vocabulary.
    return prepared | poison if language_model else poison | prepared
