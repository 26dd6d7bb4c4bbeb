"""Text that experiments are made of: task files, prompts, vocabularies, polarities."""
