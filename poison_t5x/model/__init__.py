"""The T5 encoder-decoder: configuration, layers and network."""
