"""A network's size, by its settings alone: nothing of JAX is imported."""

from typing import Any


def num_parameters(model: Any) -> int:
    """Numbers in a network, of a `T5Config` or of what has its fields.

    T5 (Raffel et al., 2020): embeddings, separate output logits unless they are tied, and of each
    stack its layers, its last norm and its relative positions; norms have no bias.
    """
    width = model.emb_dim
    attention = 4 * width * model.num_heads * model.head_dim
    mlp = (len(model.mlp_activations) + 1) * width * model.mlp_dim
    encoder = model.num_encoder_layers * (attention + mlp + 2 * width)
    decoder = model.num_decoder_layers * (2 * attention + mlp + 3 * width)
    outside = 2 * (width + model.relpos_num_buckets * model.num_heads)
    tables = 1 if model.logits_via_embedding else 2
    return encoder + decoder + outside + tables * model.vocab_size * width
