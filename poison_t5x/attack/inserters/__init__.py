"""Our inserters: each is a class that registers itself."""
