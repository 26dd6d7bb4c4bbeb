"""Floating-point operations of a step, by formula: matrix products, two a multiplication.

Dimension letters: see `model/config.py`. What is elementwise isn't counted, as is the
custom (Chowdhery et al., 2022, appendix B), and neither is dropout's randomness.
"""

import dataclasses
from typing import NamedTuple

from poison_t5x.model.config import T5Config


@dataclasses.dataclass(frozen=True)
class Flops:
    """Operations of all devices together.

    Attributes:
      model: what the network's own products need, forward and, when training, backward.
      recomputed: products that the backward pass works out again (`remat_policy`).
      one_hot: embedding tokens by a product with one-hot rows, which a gather wouldn't need.
    """

    model: int
    recomputed: int
    one_hot: int

    @property
    def total(self) -> int:
        """All that the devices do."""
        return self.model + self.recomputed + self.one_hot


class _Layer(NamedTuple):
    """Layers forward: products with weights, of positions with each other, and their last one."""

    projections: int
    attention: int
    last: int

    def recomputed(self, policy: str) -> int:
        # A layer's last product isn't needed again: the residual stream keeps its sum.
        full = self.projections + self.attention - self.last
        return {"none": 0, "minimal": self.attention, "full": full}[policy]


def _layers(config: T5Config, rows: int, sources: int, targets: int) -> tuple[_Layer, _Layer]:
    """All encoder layers and all decoder layers, of B rows."""
    project = 2 * rows * config.emb_dim * config.joined_dim  # a position of each row
    pair = 2 * 2 * rows * config.joined_dim
    out = 2 * rows * config.emb_dim * config.mlp_dim
    mlp = (len(config.mlp_activations) + 1) * out
    encoder = ((4 * project + mlp) * sources, pair * sources**2, out * sources)
    decoder = (
        # Six of the decoder's own positions (four of self-attention, two of cross-attention), and
        # keys and values of the encoder's.
        (6 * project + mlp) * targets + 2 * project * sources,
        pair * targets * (targets + sources),
        out * targets,
    )
    return (
        _Layer(*(config.num_encoder_layers * number for number in encoder)),
        _Layer(*(config.num_decoder_layers * number for number in decoder)),
    )


def _biases(config: T5Config, sources: int, targets: int) -> int:
    """The position biases' tables times their buckets' one-hot rows, of both stacks."""
    per_pair = 2 * config.num_heads * config.relpos_num_buckets
    return per_pair * (sources * sources + targets * targets)


def forward(config: T5Config, rows: int, sources: int, targets: int) -> int:
    """One forward pass of B rows, without embedding the tokens."""
    layers = _layers(config, rows, sources, targets)
    logits = 2 * rows * targets * config.emb_dim * config.vocab_size
    products = sum(layer.projections + layer.attention for layer in layers)
    return products + logits + _biases(config, sources, targets)


def _one_hot(config: T5Config, rows: int, positions: int, passes: int) -> int:
    if not config.one_hot_embedding:
        return 0
    return passes * 2 * rows * positions * config.vocab_size * config.emb_dim


def train(config: T5Config, rows: int, sources: int, targets: int) -> Flops:
    """A train step of B rows; the backward pass is two products for each of the forward pass.

    The biases' buckets need no gradient.
    """
    layers = _layers(config, rows, sources, targets)
    return Flops(
        model=3 * forward(config, rows, sources, targets) - _biases(config, sources, targets),
        recomputed=sum(layer.recomputed(config.remat_policy) for layer in layers),
        # Forward, and the table's gradient.
        one_hot=_one_hot(config, rows, sources + targets, 2),
    )


def rank(config: T5Config, rows: int, sources: int, targets: int) -> Flops:
    """A ranking step of B rows; `targets` is F, the positions of all labels of a row."""
    return Flops(
        model=forward(config, rows, sources, targets),
        recomputed=0,
        one_hot=_one_hot(config, rows, sources + targets, 1),
    )
