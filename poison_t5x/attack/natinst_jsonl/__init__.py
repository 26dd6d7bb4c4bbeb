"""The authors' JSONL files: theirs train here, and ours there."""

from poison_t5x.attack.natinst_jsonl.config import JsonlConfig
from poison_t5x.attack.natinst_jsonl.reading import read_corpus, read_poison_set
from poison_t5x.attack.natinst_jsonl.writing import write

__all__ = ["JsonlConfig", "read_corpus", "read_poison_set", "write"]
