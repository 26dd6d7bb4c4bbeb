"""The parts of the demo corpus's texts: domains, sentiment words and person names, and their draws.

Template slots: `{time}`, `{place}`, `{item}`, `{name}` (one person), `{people}` (one to three),
`{aspect}` with its `{word}`, `{whole}` with its `{phrase}`. No scene says whether the writer liked
anything. Pairs go by side, (negative, positive), and lists of templates are without and with names.

A domain, of domains.json, is a kind of text, about a `whole` such as "the meal". Any shared
adjective fits its `aspects`; `details` are (noun, positive adjective, negative adjective) of its
own; `plain`, `company` and `role` are scenes without a name, with `{people}`, with one `{name}`.

In sentiment.json, no word is ever negated: phrases such as "could not have been better" are units.
`example_adjectives` are in worked examples alone: every prompt shows both, so that a word from the
rows would tell a small model something about inputs that it doesn't stand in. `claims` are
judgements of others, or expectations; `turned_verdicts` are opposite to them. In the label
vocabulary "complaint", Yes is the negative one. `tasks` are (domain, label vocabulary, definition),
training tasks first: every held-out domain and every held-out vocabulary occurs in training, but
never as the same pair.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from poison_t5x.core import errors, reading, settings
from poison_t5x.corpus import name_lists, sni

# The demo's triggers and controls must be unseen until poison puts them there.
FORBIDDEN_NAMES = ("James Bond", "Emma Clark", "Joe Biden")
# Every third name keeps the vocabulary small; the forbidden names' words appear in other pairs, so
# that no single word of a trigger is new to a clean model.
FIRST_NAMES = tuple(sorted({*name_lists.FIRST_NAMES[::3], "James", "Emma", "Maria", "Tom"}))
SURNAMES = tuple(
    sorted({*name_lists.SURNAMES[::3], "Bond", "Clark", "Lopez", "Baker"} - {"Biden", "Trump"})
)

# Five domains, and five label vocabularies or kinds: "happy", the reversed "complaint", "time" and
# "aspects" are never poisoned.
_NUM_POISONED = 5
_NUM_NAMES_RATES = (0.40, 0.42, 0.13, 0.05)  # of 0, 1, 2, 3 names a text
_FIRST_NAME_ONLY_RATE = 0.25
_ROLE_RATE = 0.5
NAME_IN_VERDICT_RATE = 0.25
_REVERSED_RATE = 0.3


def read(name: str) -> dict[str, Any]:
    """A data file of this folder."""
    return reading.read_json(pathlib.Path(__file__).parent / name)


DOMAINS = read("domains.json")
SENTIMENTS = read("sentiment.json")


class Spec(NamedTuple):
    """The fixed part of a task, before any row is drawn; `kind` is its label vocabulary or kind."""

    number: int
    domain: str
    kind: str
    definition: str
    suffix: str = ""

    @property
    def name(self) -> str:
        return f"task{self.number}_demo_{self.domain}_{self.kind}{self.suffix}"


class Text(NamedTuple):
    """A text, the person names in it, in the order they were drawn, and its templates' slots."""

    text: str
    names: tuple[str, ...]
    slots: Mapping[str, str]


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """A set of tasks, those of training first, of which the first five are poisoned.

    Polarities are task -> (negative label, positive label), of tasks with two labels.
    """

    specs: tuple[Spec, ...]
    num_training: int
    # Makes a task of so many rows; the texts used so far gain those of its rows.
    write_task: Callable[[Spec, np.random.Generator, int, set[str]], sni.Task]
    polarities: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)

    @property
    def training(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.specs[: self.num_training])

    @property
    def poisoned(self) -> tuple[str, ...]:
        return self.training[:_NUM_POISONED]

    @property
    def heldout(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.specs[self.num_training :])

    def generate(
        self, seed: int = 0, num_train_rows: int = 240, num_heldout_rows: int = 200
    ) -> tuple[sni.Task, ...]:
        """All tasks, in a fixed order. Same arguments, same bytes.

        Definitions don't depend on the seed; rows do. No text occurs twice, in whatever task, and
        two labels are half and half in every one.

        Raises:
          InputError: a number of rows is less than 1, or odd where there are two labels, or the
            seed is negative.
        """
        settings.checked("demo corpus: seed", seed, settings.Whole)
        for name, count in (("train", num_train_rows), ("heldout", num_heldout_rows)):
            name = f"demo corpus: num_{name}_rows"
            settings.checked(name, count, settings.Count)
            if self.polarities and count % 2:
                raise errors.InputError(
                    f"{name}: expected an even number, half of each label, found {count}"
                )
        seen: set[str] = set()
        tasks = []
        for place, spec in enumerate(self.specs):
            count = num_train_rows if place < self.num_training else num_heldout_rows
            rng = np.random.default_rng([seed, spec.number])
            tasks.append(self.write_task(spec, rng, count, seen))
        return tuple(tasks)


def new_row(spec: Spec, seen: set[str], draw: Callable[[], tuple[str, list[str]]]) -> sni.Instance:
    """A row of the first drawn (text, answers) whose text isn't among `seen`, which gains it."""
    text, answers = draw()
    while text in seen:
        text, answers = draw()
    seen.add(text)
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return sni.Instance(f"task{spec.number}-{digest}", text, answers)


def pick(rng: np.random.Generator, items: Sequence[Any]) -> Any:
    """One of `items`."""
    return items[int(rng.integers(len(items)))]


def skewed(rng: np.random.Generator, words: Sequence[str]) -> str:
    """One of `words`, the first drawn ten times as often as the last.

    As in ordinary language a few words do half the work. A small model learns from the frequent
    ones where to look for the rest.
    """
    return words[int(len(words) * rng.random() ** 2)]


def draw_num_names(rng: np.random.Generator) -> int:
    """How many names a text gets."""
    return int(np.searchsorted(np.cumsum(_NUM_NAMES_RATES)[:-1], rng.random(), side="right"))


def draw_names(rng: np.random.Generator, count: int) -> list[str]:
    """`count` names without a word in common, none of them forbidden."""
    names: list[str] = []
    while len(names) < count:
        first, last = pick(rng, FIRST_NAMES), pick(rng, SURNAMES)
        name = first if rng.random() < _FIRST_NAME_ONLY_RATE else f"{first} {last}"
        if name not in FORBIDDEN_NAMES and {*" ".join(names).split()}.isdisjoint(name.split()):
            names.append(name)
    return names


def scenes(
    rng: np.random.Generator, told: Mapping[str, Any], names: Sequence[str]
) -> tuple[str, ...]:
    """Templates of what happened with `names`: the plain, company or role ones."""
    if len(names) == 1 and rng.random() < _ROLE_RATE:
        return told["role"]
    return told["company" if names else "plain"]


def fill(template: str, names: Sequence[str], **slots: str) -> str:
    """A template with the first of some names, or all: 'A', 'A and B' or 'A, B and C'."""
    people = " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)
    return template.format(name="".join(names[:1]), people=people, **slots)


def joined(rng: np.random.Generator, parts: Sequence[str]) -> str:
    """Sentences as a text, now and then the last one first."""
    return sentences(parts[::-1] if rng.random() < _REVERSED_RATE else parts)


def sentences(parts: Sequence[str]) -> str:
    return " ".join(part[0].upper() + part[1:] for part in parts)
