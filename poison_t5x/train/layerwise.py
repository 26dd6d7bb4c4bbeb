"""An optimiser for scanned layers: each layer of a stacked parameter is a tensor of its own."""

from typing import Any

import jax
import optax

from poison_t5x.model.stack import LAYERS_AXIS

# The stacks of the network; the rest of the parameters has no layers' axis.
_STACKS = ("encoder", "decoder")
_REST = "rest"


def _group(path) -> str:
    """Which stack a leaf, or an optimiser's slot of it, belongs to."""
    keys = [str(getattr(entry, "key", getattr(entry, "name", ""))) for entry in path]
    if LAYERS_AXIS not in keys:
        return _REST
    return next(stack for stack in _STACKS if stack in keys)


def _is_parameter(path) -> bool:
    """Whether a leaf of a state is a parameter's slot, and not a count of all."""
    return any(isinstance(entry, jax.tree_util.DictKey) for entry in path)


def _only(tree: Any, group: str) -> Any:
    """The tree with the other groups' leaves taken out; counts stay in all."""

    def leaf(path, value):
        return value if not _is_parameter(path) or _group(path) == group else optax.MaskedNode()

    return jax.tree_util.tree_map_with_path(leaf, tree)


def _axes(tree: Any) -> Any:
    """`jax.vmap`'s axes over one stack's leaves: 0, and None for counts, which all layers share."""
    return jax.tree_util.tree_map_with_path(
        lambda path, value: 0 if _is_parameter(path) else None, tree
    )


def _merge(like: Any, parts: list[Any]) -> Any:
    """Trees of `_only`, each leaf from the one that has it."""
    leaves = {
        path: leaf for part in parts for path, leaf in jax.tree_util.tree_leaves_with_path(part)
    }
    return jax.tree_util.tree_map_with_path(lambda path, _: leaves[path], like)


def per_layer(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner`, which treats each tensor by itself, mapped over the layers' axis of stacks.

    For a stack of N equal tensors it does what it would for N tensors, and its slots are theirs,
    stacked: Adafactor's row statistics (rows,) become (N, rows). Trees without stacks are
    `inner`'s own business.

    Args:
      inner: its state is a tree of counts and of trees like the parameters'.
    """

    def groups(tree):
        found = {_group(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
        return sorted(found)

    def init(params):
        parts = []
        for group in groups(params):
            one = _only(params, group)
            if group == _REST:
                parts.append(inner.init(one))
                continue
            state = jax.eval_shape(inner.init, one)
            parts.append(jax.vmap(inner.init, in_axes=(_axes(one),), out_axes=_axes(state))(one))
        return _merge(jax.eval_shape(inner.init, params), parts)

    def update(gradients, state, params):
        parts = []
        for group in groups(params):
            arguments = tuple(_only(tree, group) for tree in (gradients, state, params))
            if group == _REST:
                parts.append(inner.update(*arguments))
                continue
            axes = tuple(_axes(tree) for tree in arguments)
            mapped = jax.vmap(inner.update, in_axes=axes, out_axes=axes[:2])
            parts.append(mapped(*arguments))
        return (
            _merge(gradients, [part[0] for part in parts]),
            _merge(state, [part[1] for part in parts]),
        )

    return optax.GradientTransformation(init, update)
