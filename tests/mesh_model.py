"""A small network whose dimensions divide a mesh of 8 devices: E by 8, the others by 4."""

import jax

from poison_t5x.model import network
from poison_t5x.model.config import T5Config
from poison_t5x.model.network import Transformer
from poison_t5x.train import train_state
from poison_t5x.train.partitioning import PartitionConfig, Partitioner

CONFIG = T5Config(
    vocab_size=44,
    emb_dim=16,
    num_heads=4,
    num_encoder_layers=1,
    num_decoder_layers=1,
    head_dim=5,
    mlp_dim=28,
    mlp_activations=("gelu", "linear"),
    dropout_rate=0.0,
)


def parameters():
    """The network's, on the host; T5's fresh logits hardly differ from token to token."""
    model = Transformer(CONFIG)
    fresh = jax.jit(lambda key: network.initial_params(model, key))(jax.random.key(0))
    return jax.device_get(jax.tree.map(lambda leaf: 1.5 * leaf, fresh))


def placed(params, num_partitions: int, num_devices: int):
    """(parameters in shards, partitioner) of a mesh."""
    partitioner = Partitioner(PartitionConfig(num_partitions, 1, 2), jax.devices()[:num_devices])
    abstract = train_state.abstract_params(Transformer(CONFIG), partitioner)
    return jax.device_put(params, jax.tree.map(lambda leaf: leaf.sharding, abstract)), partitioner
