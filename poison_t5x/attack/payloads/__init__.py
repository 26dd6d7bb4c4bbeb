"""Our attacks: each is a class that registers itself."""
