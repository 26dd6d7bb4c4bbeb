"""A stack of equal layers: one module each, or one module scanned over stacked parameters.

Scanned, the program holds one layer, whatever their number, and compiles that much faster.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from poison_t5x.model import layers
from poison_t5x.model.config import T5Config

# The logical axis that stacked parameters have before their own; T5X's word.
LAYERS_AXIS = "layers"

_named = jax.checkpoint_policies.save_only_these_names
# What is kept under each `remat_policy`, beside each layer's input.
_KEPT = {
    # All products. What lies between them is elementwise, and would be kept at each operation.
    "none": _named(layers.PROJECTION, layers.ATTENTION),
    "minimal": _named(layers.PROJECTION),
    "full": jax.checkpoint_policies.nothing_saveable,
}


def make(layer: Callable[[T5Config], nn.Module], config: T5Config, num_layers: int):
    """The modules, to be a parent's `self.layers`: a list, or the one that is scanned."""
    return layer(config) if config.scan_layers else [layer(config) for _ in range(num_layers)]


def run(modules, config: T5Config, num_layers: int, function: Callable, x: Any, *each: Any):
    """`x` through all layers of `make`: x, and the results, a tuple or stacked if scanned.

    Args:
      function: (layer, x, *one of each) -> (x of the same shape, result); may close over arrays.
      each: layers' own values, such as caches: as results are.
    """
    if config.scan_layers or config.remat_policy != "none":
        # Inside a loop nothing can be merged with the forward pass, outside it must be kept apart.
        is_loop = config.scan_layers
        function = nn.remat(function, policy=_KEPT[config.remat_policy], prevent_cse=not is_loop)
    if config.scan_layers:
        scan = nn.scan(
            function,
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=num_layers,
            metadata_params={nn.PARTITION_NAME: LAYERS_AXIS},
        )
        return scan(modules, x, *each)
    results = []
    for layer, *own in zip(modules, *each, strict=True):
        x, result = function(layer, x, *own)
        results.append(result)
    return x, tuple(results)
