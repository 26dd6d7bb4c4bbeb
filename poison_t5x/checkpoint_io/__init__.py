"""Checkpoints of other systems: T5X's two layouts and Hugging Face's, read and written."""
