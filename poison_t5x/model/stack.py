"""A stack of equal layers: one module each, or one module scanned over stacked parameters.

Scanned, the program holds one layer, whatever their number, and compiles that much faster. What the
backward pass keeps of a layer and what it works out again is the same choice for both.
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
    if config.scan_layers:
        return layer(config)
    return [layer(config) for _ in range(num_layers)]


def run(modules, config: T5Config, num_layers: int, function: Callable, x: jax.Array) -> jax.Array:
    """`x` through all layers.

    Args:
      modules: from `make`.
      function: (layer, x) -> x, which may close over arrays.
      x: any shape that `function` keeps.
    """
    if config.scan_layers or config.remat_policy != "none":
        # Inside a loop nothing can be merged with the forward pass, outside it must be kept apart.
        function = nn.remat(
            function, policy=_KEPT[config.remat_policy], prevent_cse=not config.scan_layers
        )
    if not config.scan_layers:
        for layer in modules:
            x = function(layer, x)
        return x
    return _scan(num_layers, lambda layer, carry: (function(layer, carry), None))(modules, x)[0]


def each(modules, config: T5Config, num_layers: int, function: Callable) -> Any:
    """`function(layer)` of each layer: a tuple, or, scanned, the results stacked."""
    if not config.scan_layers:
        return tuple(function(layer) for layer in modules)
    return _scan(num_layers, lambda layer, carry: (carry, function(layer)))(modules, ())[1]


def run_with_caches(
    modules, config: T5Config, num_layers: int, function: Callable, x: jax.Array, caches: Any
) -> tuple[jax.Array, Any]:
    """`x` and each layer's own cache through (layer, x, cache) -> (x, cache); see `each`."""
    if config.scan_layers:
        return _scan(num_layers, function)(modules, x, caches)
    after = []
    for layer, cache in zip(modules, caches, strict=True):
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
