"""Compiles the steps for a TPU that isn't there, and says what they need of it."""
