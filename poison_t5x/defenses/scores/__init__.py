"""One file a score, registered with `SCORES.register`; see `defenses.score`."""
