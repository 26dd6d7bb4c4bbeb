"""Tools for before a run: precompile, doctor."""
