"""Experiments: a module here declares one. Add your own beside these."""
