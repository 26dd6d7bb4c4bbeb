"""Tiny T5s and their weights, drawn by NumPy alone, for the fixtures' scripts and the tests.

The fixtures under `t5/` hold these weights, and `t5_steps.npz` what became of them: change
anything here and both must be made again (see make_t5_fixtures.py and make_t5_steps.py).
"""

import zlib

import numpy as np

# Dimensions are different primes, so that a swapped axis can't pass; depths differ too.
_SHAPE = {
    "vocab_size": 53,
    "emb_dim": 13,
    "num_heads": 3,
    "num_encoder_layers": 2,
    "num_decoder_layers": 3,
    "head_dim": 7,
    "mlp_dim": 17,
}
_V1_0, _V1_1 = {"mlp_activations": ("relu",)}, {"mlp_activations": ("gelu", "linear")}
_TIED, _UNTIED = {"logits_via_embedding": True}, {"logits_via_embedding": False}
T5_CONFIGS = {"v1_0": _SHAPE | _V1_0 | _TIED, "v1_1": _SHAPE | _V1_1 | _UNTIED}
# Smaller where the weights are stored: a T5X checkpoint has two files a tensor.
_SMALL = _SHAPE | {
    "num_encoder_layers": 1,
    "num_decoder_layers": 2,
    "head_dim": 5,
    "mlp_dim": 11,
}
T5_VARIANTS = {
    "v1_0_tied": _SMALL | _V1_0 | _TIED,
    "v1_0_untied": _SMALL | _V1_0 | _UNTIED,
    "v1_1_tied": _SMALL | _V1_1 | _TIED,
    "v1_1_untied": _SMALL | _V1_1 | _UNTIED,
}
# Adafactor factors what has two dimensions of 128 or more: the embedding here.
WIDE = (
    _V1_0
    | _TIED
    | {
        "vocab_size": 137,
        "emb_dim": 131,
        "num_heads": 2,
        "num_encoder_layers": 1,
        "num_decoder_layers": 1,
        "head_dim": 1,
        "mlp_dim": 3,
    }
)
NUM_BUCKETS = 32
TIED_EMBEDDING_SCALE = 0.2


def draw_weights(config: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Float32 weights by T5X parameter path ('encoder/encoder_norm/scale').

    Kernels keep their input's scale, norms lie in 0.5 to 1.5, position biases are of order 1,
    and logits have a standard deviation of about 3 nats. Tied embeddings are small beside what
    the layers add, or the network would only repeat its last token.
    """
    weights = {}
    for path, shape in weight_shapes(config).items():
        # A generator for each path: adding a weight leaves all others as they were.
        rng = np.random.default_rng([seed, zlib.crc32(path.encode())])
        weights[path] = _draw(rng, path, shape).astype(np.float32)
    weights["decoder/decoder_norm/scale"] *= 3.0
    if config["logits_via_embedding"]:
        weights["token_embedder/embedding"] *= TIED_EMBEDDING_SCALE
        weights["decoder/decoder_norm/scale"] /= TIED_EMBEDDING_SCALE
    return weights


def _draw(rng: np.random.Generator, path: str, shape: tuple[int, ...]) -> np.ndarray:
    if path.endswith("norm/scale"):
        return rng.uniform(0.5, 1.5, shape)
    if path.endswith("/kernel"):
        return rng.normal(size=shape) / np.sqrt(shape[0])
    return rng.normal(size=shape)


def weight_shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """Shape of every weight by T5X parameter path."""
    emb, vocab, heads = config["emb_dim"], config["vocab_size"], config["num_heads"]
    shapes = {"token_embedder/embedding": (vocab, emb)}
    for stack in ("encoder", "decoder"):
        shapes[f"{stack}/relpos_bias/rel_embedding"] = (heads, NUM_BUCKETS)
        shapes[f"{stack}/{stack}_norm/scale"] = (emb,)
        for layer in range(config[f"num_{stack}_layers"]):
            for name, shape in _layer_shapes(config, stack).items():
                shapes[f"{stack}/layers_{layer}/{name}"] = shape
    if not config["logits_via_embedding"]:
        shapes["decoder/logits_dense/kernel"] = (emb, vocab)
    return shapes


def _layer_shapes(config: dict, stack: str) -> dict[str, tuple[int, ...]]:
    emb, mlp, joined = (
        config["emb_dim"],
        config["mlp_dim"],
        config["num_heads"] * config["head_dim"],
    )
    norms = {"attention": "pre_attention_layer_norm"}
    if stack == "decoder":
        norms = {
            "self_attention": "pre_self_attention_layer_norm",
            "encoder_decoder_attention": "pre_cross_attention_layer_norm",
        }
    shapes = {"pre_mlp_layer_norm/scale": (emb,), "mlp/wo/kernel": (mlp, emb)}
    gated = len(config["mlp_activations"]) == 2
    for name in ("wi_0", "wi_1") if gated else ("wi",):
        shapes[f"mlp/{name}/kernel"] = (emb, mlp)
    for attention, norm in norms.items():
        shapes[f"{norm}/scale"] = (emb,)
        shapes[f"{attention}/out/kernel"] = (joined, emb)
        for name in ("query", "key", "value"):
            shapes[f"{attention}/{name}/kernel"] = (emb, joined)
    return shapes
