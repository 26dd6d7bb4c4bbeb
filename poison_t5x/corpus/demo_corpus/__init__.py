"""Invented tasks in Super-NaturalInstructions' form: of sentiment, of mixed sentiment, generation.

They let every stage of an experiment run without a download, and their texts are regular enough for
a tiny T5 trained from scratch to answer held-out tasks.
"""

from poison_t5x.corpus.demo_corpus.generation import GENERATION, TUNING
from poison_t5x.corpus.demo_corpus.grammar import Family
from poison_t5x.corpus.demo_corpus.sentiment import MIXED, PLAIN

FAMILIES = (PLAIN, MIXED, GENERATION)
POLARITIES = PLAIN.polarities

__all__ = ["FAMILIES", "GENERATION", "MIXED", "PLAIN", "POLARITIES", "TUNING", "Family"]
