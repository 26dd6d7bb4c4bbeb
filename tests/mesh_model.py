"""A small network whose dimensions divide a mesh of 8 devices: E by 8, the others by 4."""

from poison_t5x.model.config import T5Config

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
