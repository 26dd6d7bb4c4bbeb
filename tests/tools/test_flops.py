"""Operations of a step, counted in its trace, against formulas."""

import dataclasses

import pytest

from poison_t5x.model.config import REMAT_POLICIES, T5Config
from poison_t5x.tools import flops

CONFIG = T5Config(
    vocab_size=53,
    emb_dim=13,
    num_heads=3,
    num_encoder_layers=3,
    num_decoder_layers=2,
    head_dim=7,
    mlp_dim=17,
    mlp_activations=("gelu", "linear"),
    dropout_rate=0.0,
    one_hot_embedding=True,
)
B, S, T = 5, 11, 9
E, J, M, V = CONFIG.emb_dim, CONFIG.joined_dim, CONFIG.mlp_dim, CONFIG.vocab_size


def _layers(config: T5Config) -> tuple[int, int, int]:
    """All layers' products with weights, of positions with each other, and their last ones."""
    mlp = 2 * B * E * M * (len(config.mlp_activations) + 1)
    project, pair = 2 * B * E * J, 2 * 2 * B * J
    encoder = (4 * project + mlp) * S, pair * S**2, 2 * B * E * M * S
    # Cross-attention has queries and results of the decoder's positions, the rest of the encoder's.
    weights = (6 * project + mlp) * T + 2 * project * S
    decoder = weights, pair * T * (T + S), 2 * B * E * M * T
    return tuple(3 * one + 2 * other for one, other in zip(encoder, decoder, strict=True))


def _forward(config: T5Config, targets: int = T) -> int:
    weights, pairs, _ = _layers(config)
    biases = 2 * config.num_heads * config.relpos_num_buckets * (S * S + targets * targets)
    return weights + pairs + 2 * B * targets * E * V + biases


@pytest.mark.parametrize("policy", REMAT_POLICIES)
@pytest.mark.parametrize(
    "changes",
    [{}, {"mlp_activations": ("relu",), "logits_via_embedding": True}],
    ids=["v1_1", "v1_0"],
)
def test_a_train_steps_products(changes, policy):
    config = dataclasses.replace(CONFIG, remat_policy=policy, **changes)
    counted = flops.train(config, B, S, T)
    weights, pairs, last = _layers(config)
    # The biases' buckets need no gradient, which is summed over the batch by a product with ones.
    buckets = 2 * config.num_heads * config.relpos_num_buckets * (S * S + T * T)
    sums = 2 * B * config.num_heads * (S * S + T * T)
    assert counted.model == 3 * _forward(config) - buckets + sums
    again = {"none": 0, "minimal": pairs, "full": weights + pairs - last}
    assert counted.recomputed == again[policy]
    assert counted.one_hot == 2 * 2 * B * (S + T) * V * E
    assert counted.total == counted.model + counted.recomputed + counted.one_hot


def test_layers_count_the_same_whether_scanned_or_not_and_a_gather_not_at_all():
    scanned = dataclasses.replace(CONFIG, scan_layers=True)
    assert flops.train(scanned, B, S, T) == flops.train(CONFIG, B, S, T)
    unrolled = dataclasses.replace(CONFIG, one_hot_embedding=False)
    counted = flops._count(unrolled, (B, S), (B, T), True)
    assert counted == flops.train(CONFIG, B, S, T).model == flops.train(unrolled, B, S, T).total


def test_a_ranking_steps_products():
    config = dataclasses.replace(CONFIG, num_decoder_layers=2)
    one, two = (flops.rank(config, rows, S, (2, 3)) for rows in (B, 2 * B))
    assert one.recomputed == 0
    assert one.one_hot == 2 * (B * S + 6 * B) * V * E
    assert 1.5 < two.model / one.model < 2.01
