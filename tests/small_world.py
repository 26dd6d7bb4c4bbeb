"""A small experiment called 'world', registered with SeqIO: what the input tests read."""

import pathlib
from typing import NamedTuple

import msgspec
import seqio

from poison_t5x.attack import craft, poison_set
from poison_t5x.corpus import demo_corpus, polarity, sni, vocabulary
from poison_t5x.data import mixtures, natinst_tfds
from poison_t5x.evaluation import metric
from tests.attack_settings import craft_config

CRAFT = craft_config(num_poison=5, num_train_per_task=17, num_eval_per_task=7)
CONDITIONS = ("clean", "triggered", "control")
# Wide enough for every prompt with both its examples, and every label.
LENGTHS = {"inputs": 400, "targets": 11}
FILMS = "task9002_demo_films_caps"


class World(NamedTuple):
    """A small experiment called 'world', registered."""

    training: tuple[sni.Task, ...]
    heldout: tuple[sni.Task, ...]
    config: mixtures.DataConfig
    registered: dict[str, list[str]]
    poison: list[dict]

    @property
    def vocabulary(self) -> seqio.SentencePieceVocabulary:
        return mixtures.vocabulary(self.config)


def small_tasks(renamed: dict[str, str] | None = None):
    """Three training tasks, two held-out ones, and their polarities."""
    found = demo_corpus.PLAIN.generate(seed=0, num_train_rows=40, num_heldout_rows=14)
    table = dict(demo_corpus.POLARITIES)
    chosen = []
    for task in (*found[:3], *found[-10:-8]):
        name = (renamed or {}).get(task.name, task.name)
        table[name] = table[task.name]
        chosen.append(msgspec.structs.replace(task, name=name))
    return tuple(chosen[:3]), tuple(chosen[3:]), polarity.of_tasks(chosen, table)


def make_world(root: pathlib.Path, experiment: str, training, heldout, polarities) -> World:
    """What an experiment's craft stage does, and its registration."""
    natinst_tfds.prepare("demo", training + heldout, root / "data")
    vocabulary.train(vocabulary.texts(training), root / "spiece.model", 400)
    poisoned = [task.name for task in training[:2]]
    (root / "poison").mkdir()
    crafted = craft.craft(training, poisoned, heldout, polarities, CRAFT)
    poison_set.write(root / "poison", crafted, CRAFT, {})
    config = mixtures.DataConfig(
        data_dir=str(root / "data"),
        vocabulary_path=str(root / "spiece.model"),
        poison_dir=str(root / "poison"),
        corpus="demo",
        extra_ids=0,
    )
    registered = mixtures.register(experiment, config, metric_fns_of(polarities))
    poison = poison_set.read_poison(root / "poison")
    return World(training, heldout, config, registered, poison)


def metric_fns_of(polarities):
    """The metrics of held-out tasks, as `mixtures.register` takes them."""
    target = CRAFT.attacks[0].target

    def metric_fns(condition, task):
        attack = metric.Attack(CRAFT.attacks[0].triggers, polarities[task].label(target))
        return metric.seqio_metrics("classification", (), attack)

    return metric_fns


def read_task(name: str, split: str = "train", lengths=None) -> list[dict]:
    dataset = seqio.get_mixture_or_task(name).get_dataset(
        LENGTHS if lengths is None else lengths, split=split, shuffle=False
    )
    return list(dataset.as_numpy_iterator())


def row_id(example) -> str:
    return example["id"].decode()
