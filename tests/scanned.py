"""The same weights, a layer each or stacked: what a scanned network is compared by."""

import dataclasses

import jax
import numpy as np

from poison_t5x.model.config import T5Config


def scanned(config: T5Config, **changes) -> T5Config:
    """The config with its layers scanned."""
    return dataclasses.replace(config, scan_layers=True, **changes)


def stacked(params):
    """A tree with `encoder/layers_0`, … (or slots of it) as scanned networks have it."""
    found = {}
    for side, tree in params.items():
        tree = dict(tree)
        numbers = sorted(int(name[7:]) for name in tree if name.startswith("layers_"))
        if numbers:
            layers = [tree.pop(f"layers_{number}") for number in numbers]
            tree["layers"] = jax.tree.map(lambda *leaves: np.stack(leaves), *layers)
        found[side] = tree
    return found
