"""The wording of the demo corpus's generation tasks: kinds, definitions, scenes and verdicts.

Template slots: `{time}`, `{place}`, `{item}`, `{name}` and `{people}` as in `domains`, `{verb}` and
`{role}` of a Frame, and `{aspect}` with its `{word}`, twice. Times, items and judgements come from
`domains` and `sentiment`.
"""

import dataclasses
from typing import NamedTuple


@dataclasses.dataclass(frozen=True)
class Frame:
    """How a domain's texts are told.

    Attributes:
      verb: what was done with an item.
      role: somebody who works there.
      source: what the text is: the first sentence of a definition.
    """

    verb: str
    role: str
    source: str


FRAMES: dict[str, Frame] = {
    "restaurants": Frame("ate", "waiter", "In this task, you are given a note about a restaurant."),
    "films": Frame("watched", "usher", "You will read a short comment on a film."),
    "hotels": Frame("booked", "receptionist", "The input is a review of a hotel."),
    "phones": Frame("bought", "clerk", "Below is a message about a phone."),
    "books": Frame("read", "librarian", "Here is a remark about a book."),
    "concerts": Frame("heard", "singer", "In this task, you get a report of a concert."),
    "museums": Frame("explored", "guide", "Read the following entry about a museum."),
    "courses": Frame("took", "tutor", "You are given some feedback on a course."),
    "trains": Frame("boarded", "conductor", "The text is an account of a train trip."),
    "gyms": Frame("tried", "coach", "You will see a post about a gym."),
}

# One list for all domains: a small model copies what it has often been asked for elsewhere.
PLACES: tuple[str, ...] = (
    "near the harbour",
    "near the castle",
    "by the river",
    "by the lake",
    "in the old town",
    "in the capital",
    "at the market square",
    "at the city park",
    "on the main street",
    "on the coast",
    "behind the church",
    "behind the town hall",
)

PLAIN: tuple[str, ...] = (
    "I {verb} {item} {place} {time}.",
    "{time} we {verb} {item} {place}.",
    "{time} our group {verb} {item} {place}.",
)
COMPANY: tuple[str, ...] = (
    "I {verb} {item} {place} with {people} {time}.",
    "{time} I {verb} {item} {place} with {people}.",
    "{people} came along when I {verb} {item} {place} {time}.",
)
ROLE: tuple[str, ...] = (
    "{time} I {verb} {item} {place} and met the {role} {name}.",
    "The {role} {name} was there when we {verb} {item} {place} {time}.",
    "I {verb} {item} {place} {time} thanks to the {role} {name}.",
)

VERDICTS: tuple[str, ...] = (
    "the {aspect} was {word} and the {aspect2} was {word2}.",
    "the {aspect} seemed {word}, the {aspect2} {word2}.",
    "I found the {aspect} {word} and the {aspect2} {word2}.",
    "honestly the {aspect} was {word} and the {aspect2} {word2}.",
)
VERDICTS_WITH_NAME: tuple[str, ...] = (
    "{name} and I found the {aspect} {word} and the {aspect2} {word2}.",
    "I told {name} that the {aspect} was {word} and the {aspect2} was {word2}.",
    "like {name} I found the {aspect} {word} and the {aspect2} {word2}.",
)

# Worked examples only: words of the rows would tell a small model something about inputs that they
# don't stand in.
EXAMPLE_SCENES: tuple[str, ...] = (
    "I {verb} {item} {place} {time}.",
    "{time} I {verb} {item} {place}.",
)
EXAMPLE_VERDICT = "the {aspect} was {word} and the {aspect2} was {word2}."
EXAMPLE_PLACES: tuple[str, ...] = ("under the bridge", "over the hill")
EXAMPLE_TIMES: tuple[str, ...] = ("at noon", "at midnight")
EXAMPLE_ITEMS: tuple[str, ...] = ("the red one", "the blue one")
EXAMPLE_ASPECTS: tuple[tuple[str, str], ...] = (("door", "chair"), ("lamp", "carpet"))
EXAMPLE_WORDS: tuple[str, str] = ("nice", "nasty")


class Kind(NamedTuple):
    """What is asked for.

    Attributes:
      category: SNI's category.
      request: what to do: the second sentence of a definition.
      example: what a worked example's input shows: 'scene', 'verdict' or both.
      noun: what the answer is, in explanations.
    """

    category: str
    request: str
    example: tuple[str, ...]
    noun: str


KINDS: dict[str, Kind] = {
    "place": Kind(
        "Information Extraction",
        "Your task is to extract the words that tell the place.",
        ("scene",),
        "place",
    ),
    "time": Kind(
        "Question Answering", "Answer the question: when did it happen?", ("scene",), "time"
    ),
    "item": Kind("Question Answering", "Say what exactly the writer {verb}.", ("scene",), "thing"),
    "aspects": Kind(
        "Keyword Tagging",
        "List the judged things as keywords, with a comma between them.",
        ("verdict",),
        "list of keywords",
    ),
    "verdict": Kind(
        "Summarization",
        "Summarize the verdict, thing by thing, as briefly as possible.",
        ("verdict",),
        "summary",
    ),
    "title": Kind(
        "Title Generation",
        "Please write a good title for the text.",
        ("scene",),
        "title",
    ),
    "present": Kind(
        "Text Modification",
        "You should rewrite the verdict in the present tense, starting with I find.",
        ("verdict",),
        "sentence",
    ),
}

# A domain, its kinds in training | held out | for tuning (in no experiment). Each domain trains
# item or title, and aspects, verdict or present, so that all its words are asked for.
PAIRS = """
restaurants place title verdict time | item | present
films item time aspects verdict | present | title
hotels present item place time | aspects | verdict
phones title aspects time item | verdict | place
books verdict item present aspects | title | time
concerts title aspects place verdict | time | item
museums present item verdict title | place | aspects
courses item verdict place aspects | present | title
trains aspects title present place | item | verdict
gyms present title time verdict | aspects | item
"""
