"""Defences: scores that need a model, what they find in a run, and training again without it."""
