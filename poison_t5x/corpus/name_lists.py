"""Person names, world-wide, for the built-in entity matcher and the demo corpus.

The lists favour precision: a name that is also an ordinary word, a place or a brand is either among
the ambiguous first names, which count only when a surname follows, or in no list at all.
"""

import pathlib

from poison_t5x.core import reading

_LISTS = reading.read_json(pathlib.Path(__file__).with_suffix(".json"), dict[str, list[str]])
FIRST_NAMES = tuple(_LISTS["first_names"])
AMBIGUOUS_FIRST_NAMES = tuple(_LISTS["ambiguous_first_names"])
# Those so common as words that even a capital after them says little ("Summer Term", "May
# Contain"): a listed surname must follow.
WORD_FIRST_NAMES = tuple(_LISTS["word_first_names"])
SURNAMES = tuple(_LISTS["surnames"])
# Surnames that are ordinary words as well: too weak beside an ambiguous first name in lower case
# ("will young people", "bill long").
WORD_SURNAMES = tuple(_LISTS["word_surnames"])
# Capitalised words that follow a first name without being its surname: the start of a sentence
# after a missing full stop, a street, a title, a business.
NOT_SURNAMES = tuple(_LISTS["not_surnames"])
