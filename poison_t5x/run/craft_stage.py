"""The craft stage: the corpus checked and prepared for SeqIO, and the poison set."""

import functools
import pathlib
from typing import TYPE_CHECKING, Any

from poison_t5x.attack import craft as crafting
from poison_t5x.attack import natinst_jsonl, poison_set
from poison_t5x.core import artifacts, errors
from poison_t5x.corpus import vocabulary
from poison_t5x.train import distributed

if TYPE_CHECKING:
    from poison_t5x.run.experiment import Run


def craft(run: "Run") -> None:
    """Reads and checks the corpus, prepares it for SeqIO, and crafts the poison set."""
    hashes = run.hashes
    settings = {
        "experiment": run.experiment,
        "craft": run.craft_cfg.settings(),
        "tasks": hashes,
        **_sources(run),
    }
    parts = {
        "poison": (settings, functools.partial(_write_poison, run)),
        "data": ({"tasks": hashes}, functools.partial(_prepare_data, run)),
        "vocabulary": (
            vocabulary.settings(run.vocabulary_cfg, run.corpus.training, hashes),
            lambda directory: vocabulary.prepare(
                run.vocabulary_cfg, run.corpus.training, directory
            ),
        ),
    }
    places = list(parts)
    if _needs_language_model(run):  # which reads prompts
        places.insert(0, places.pop())
    for place in places:
        run.stage(place, *parts[place])


def _sources(run: "Run") -> dict[str, Any]:
    """What else the poison set is made from: files of rows, or a language model."""
    if run.jsonl_cfg.is_set:
        return {"jsonl": run.jsonl_cfg.hashes}
    if _needs_language_model(run):
        from poison_t5x.evaluation import language_model_proxy

        return {"proxy": language_model_proxy.check(run.proxy_checkpoint_path)}
    return {}


def _write_poison(run: "Run", directory: pathlib.Path) -> None:
    poison_set.write(directory, _crafted(run), run.craft_cfg, run.hashes)


def _needs_language_model(run: "Run") -> bool:
    scores = (attack.score for attack in run.craft_cfg.attacks)
    return any(score.needs_probabilities and score.proxy == "lm" for score in scores)


def _crafted(run: "Run") -> crafting.PoisonSet:
    found = run.corpus
    if run.jsonl_cfg.is_set:
        return natinst_jsonl.read_poison_set(run.jsonl_cfg, found, run.craft_cfg)
    return crafting.craft(
        found.training,
        found.poisoned,
        found.heldout,
        found.polarities,
        run.craft_cfg,
        workers=run.craft_workers,
        language_model=functools.partial(_language_model, run)
        if _needs_language_model(run)
        else None,
    )


def _language_model(run: "Run"):
    if distributed.num_processes() > 1:  # all of which its mesh would wait for
        raise errors.InputError("PROXY='lm': run `poison-t5x craft` in a single process first")
    from poison_t5x.data import mixtures
    from poison_t5x.evaluation import language_model_proxy

    return language_model_proxy.LanguageModelProxy(
        run.proxy_checkpoint_path,
        mixtures.vocabulary(run.data_cfg),
        artifacts.sha256(run.data_cfg.vocabulary_path),
        run.corpus.polarities,
        run.partition_cfg,
        run.eval_cfg,
        max_tokens=run.data_cfg.max_tokens,
        num_examples=run.num_examples,
    )


def export(run: "Run") -> None:
    """Writes the rows in the layout of the authors' code. Needs the craft stage."""
    poison_dir = run.path / "poison"
    settings = {"poison": artifacts.fingerprint(poison_dir), "epochs": run.jsonl_epochs}
    run.stage(
        "natinst-jsonl",
        settings,
        lambda directory: natinst_jsonl.write(
            directory, run.corpus, poison_dir, epochs=run.jsonl_epochs
        ),
    )


def _prepare_data(run: "Run", directory: pathlib.Path) -> None:
    from poison_t5x.data import natinst_tfds

    natinst_tfds.prepare(run.declared.corpus, run.corpus.tasks, directory)
