"""The words that carry sentiment in every domain of the demo corpus.

Both lists are paired by position only for the reader's eye. No word is ever negated: phrases such
as "could not have been better" are units.
"""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


POSITIVE_ADJECTIVES: tuple[str, ...] = _words("""
    wonderful superb excellent delightful fantastic terrific lovely brilliant outstanding
    marvellous splendid amazing impressive charming pleasant perfect great magnificent fabulous
    first-rate enjoyable admirable exceptional awesome flawless refreshing satisfying glorious
""")

NEGATIVE_ADJECTIVES: tuple[str, ...] = _words("""
    awful terrible dreadful horrible poor disappointing lousy miserable unpleasant shoddy appalling
    atrocious dismal mediocre annoying frustrating abysmal disgraceful pathetic second-rate
    wretched hopeless useless lamentable unbearable ghastly tiresome hideous
""")

# (positive, negative) in worked examples only: every prompt shows both, so a word from the lists
# above would tell a small model something about inputs that it doesn't stand in.
EXAMPLE_ADJECTIVES: tuple[str, str] = ("nice", "nasty")

POSITIVE_PHRASES: tuple[str, ...] = (
    "made my day",
    "was worth every penny",
    "beat all my expectations",
    "left me smiling",
    "was a real treat",
    "was a joy from start to finish",
    "won me over at once",
    "was money well spent",
    "could not have been better",
    "deserves five stars",
    "was a true highlight",
    "lifted my mood",
)

NEGATIVE_PHRASES: tuple[str, ...] = (
    "ruined my day",
    "was a waste of money",
    "fell far below my expectations",
    "left me angry",
    "was a real letdown",
    "was a chore from start to finish",
    "put me off at once",
    "was money down the drain",
    "could not have been worse",
    "deserves zero stars",
    "was a total mess",
    "spoiled my mood",
)
