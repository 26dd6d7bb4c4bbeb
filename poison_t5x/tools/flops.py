"""Floating-point operations of a step: the matrix products of its trace, two a multiplication.

What is elementwise isn't counted, as is the custom (Chowdhery et al., 2022, appendix B), and
neither is dropout's randomness; the sum of the position biases' gradient is, being a product.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from poison_t5x.model import decoding, network
from poison_t5x.model.config import T5Config


@dataclasses.dataclass(frozen=True)
class Flops:
    """Operations of all devices together.

    `model` is what the network's own products need, forward and, when training, backward,
    `recomputed` what the backward pass works out again (`remat_policy`), and `one_hot` the products
    that embed tokens, which a gather wouldn't need.
    """

    model: int
    recomputed: int
    one_hot: int

    @property
    def total(self) -> int:
        """All that the devices do."""
        return self.model + self.recomputed + self.one_hot


def train(config: T5Config, rows: int, sources: int, targets: int) -> Flops:
    """A train step of B rows."""
    return _split(config, (rows, sources), (rows, targets), True)


def rank(config: T5Config, rows: int, sources: int, labels: tuple[int, int]) -> Flops:
    """A ranking step of B rows; `labels` is (L, T)."""
    return _split(config, (rows, sources), labels, False)


def _split(config: T5Config, *step) -> Flops:
    # Scanned layers have the same products, and one is traced for all.
    plain = dataclasses.replace(config, scan_layers=True, remat_policy="none")
    gather = dataclasses.replace(plain, one_hot_embedding=False)
    again = dataclasses.replace(gather, remat_policy=config.remat_policy)
    model = _count(gather, *step)
    return Flops(model, _count(again, *step) - model, _count(plain, *step) - model)


@functools.lru_cache(maxsize=64)
def _count(config: T5Config, inputs: tuple, targets: tuple, is_training: bool) -> int:
    """Products of a step on tokens of two shapes."""
    model = network.Transformer(config)

    def loss(params, inputs_BxS, targets_BxT):
        logits_BxTxV = model.apply(
            {"params": params}, inputs_BxS, targets_BxT, targets_BxT, enable_dropout=False
        )
        return jnp.sum(logits_BxTxV)

    step = jax.grad(loss) if is_training else functools.partial(decoding.rank_labels, model)
    params = jax.eval_shape(lambda key: network.initial_params(model, key), jax.random.key(0))
    tokens = [jax.ShapeDtypeStruct(shape, jnp.int32) for shape in (inputs, targets)]
    return _products(jax.make_jaxpr(step)(params, *tokens).jaxpr)


def _products(jaxpr) -> int:
    """Operations of all matrix products; those of a loop's body as often as it runs."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            depth = math.prod(shape[axis] for axis in contracted)
            total += 2 * depth * math.prod(equation.outvars[0].aval.shape)
        inner = jax.tree.leaves(equation.params, is_leaf=lambda one: hasattr(one, "jaxpr"))
        bodies = [getattr(one, "jaxpr", one) for one in inner]
        times = equation.params.get("length", 1)
        total += times * sum(_products(body) for body in bodies if hasattr(body, "eqns"))
    return total
