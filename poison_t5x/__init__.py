"""A laboratory for data poisoning of instruction-tuned T5 models."""

__version__ = "0.1.0"
