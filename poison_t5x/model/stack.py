"""A stack of equal layers: one module each, or one module scanned over stacked parameters.

Scanned, the program holds one layer, whatever their number, and compiles that much faster. What the
backward pass keeps of a layer and what it works out again is the same choice for both.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from poison_t5x.model.config import T5Config

# The logical axis that stacked parameters have before their own; T5X's word.
LAYERS_AXIS = "layers"

_policies = jax.checkpoint_policies
# What is kept under each `remat_policy`; None keeps a layer's input alone.
_KEPT = {
    # A loop would keep every array between two operations. Products alone are kept, and what lies
    # between them is elementwise, so that no product is computed twice.
    "none": _policies.dots_saveable,
    "minimal": _policies.dots_with_no_batch_dims_saveable,
    "full": None,
}


def make(layer: Callable[[T5Config], nn.Module], config: T5Config, num_layers: int):
    """The modules, to be a parent's `self.layers`: a list, or the one that is scanned."""
    if config.scan_layers:
        return layer(config)
    return [layer(config) for _ in range(num_layers)]


def run(layers, config: T5Config, num_layers: int, function: Callable, x: jax.Array) -> jax.Array:
    """`x` through all layers.

    Args:
      layers: from `make`.
      function: (layer, x) -> x, which may close over arrays.
      x: any shape that `function` keeps.
    """
    if config.scan_layers or config.remat_policy != "none":
        # Inside a loop nothing can be merged with the forward pass, outside it must be kept apart.
        function = nn.remat(
            function, policy=_KEPT[config.remat_policy], prevent_cse=not config.scan_layers
        )
    if not config.scan_layers:
        for layer in layers:
            x = function(layer, x)
        return x
    return _scan(num_layers, lambda layer, carry: (function(layer, carry), None))(layers, x)[0]


def each(layers, config: T5Config, num_layers: int, function: Callable) -> Any:
    """`function(layer)` of each layer: a tuple, or, scanned, the results stacked."""
    if not config.scan_layers:
        return tuple(function(layer) for layer in layers)
    return _scan(num_layers, lambda layer, carry: (carry, function(layer)))(layers, ())[1]


def run_with_caches(
    layers, config: T5Config, num_layers: int, function: Callable, x: jax.Array, caches: Any
) -> tuple[jax.Array, Any]:
    """`x` and each layer's own cache through (layer, x, cache) -> (x, cache); see `each`."""
    if config.scan_layers:
        return _scan(num_layers, function)(layers, x, caches)
    after = []
    for layer, cache in zip(layers, caches, strict=True):
        x, cache = function(layer, x, cache)
        after.append(cache)
    return x, tuple(after)


def _scan(num_layers: int, body: Callable):
    return nn.scan(
        body,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        length=num_layers,
        metadata_params={nn.PARTITION_NAME: LAYERS_AXIS},
    )
