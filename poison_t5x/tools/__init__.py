"""What is run before a run: precompile, doctor."""
