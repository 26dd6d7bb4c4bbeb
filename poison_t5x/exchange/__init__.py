"""The authors' JSONL files: theirs train here, and ours there."""

from poison_t5x.exchange.config import JsonlConfig
from poison_t5x.exchange.reading import read_corpus, read_poison_set
from poison_t5x.exchange.writing import write

__all__ = ["JsonlConfig", "read_corpus", "read_poison_set", "write"]
