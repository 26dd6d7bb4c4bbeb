"""Tensor names of Hugging Face's T5, and T5X's parameter paths.

    shared.weight                                         token_embedder/embedding
    encoder.final_layer_norm.weight                       encoder/encoder_norm/scale
    encoder.block.0.layer.0.SelfAttention.q.weight        encoder/layers_0/attention/query/kernel
    decoder.block.2.layer.1.EncDecAttention.o.weight      decoder/layers_2/
                                                            encoder_decoder_attention/out/kernel
    decoder.block.2.layer.2.DenseReluDense.wi_0.weight    decoder/layers_2/mlp/wi_0/kernel
    decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight
                                                          decoder/relpos_bias/rel_embedding
    lm_head.weight                                        decoder/logits_dense/kernel

Kernels are (out, in) in torch and (in, out) in T5X; relative-position tables are (buckets, heads)
and (heads, buckets).
"""

import re

EMBEDDING = "shared.weight"
HEAD = "lm_head.weight"
# Other names of the embedding, in folders that hold it more than once.
EMBEDDING_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# Of T5's first public checkpoints; no network reads it, nor does transformers.
UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"


def _attention(sublayer: str, module: str) -> dict[str, str]:
    parts = {"q": "query", "k": "key", "v": "value", "o": "out"}
    return {f"{sublayer}.{part}": f"{module}/{name}/kernel" for part, name in parts.items()}


def _mlp(number: int) -> dict[str, str]:
    found = {f"layer.{number}.layer_norm": "pre_mlp_layer_norm/scale"}
    for name in ("wi", "wi_0", "wi_1", "wo"):
        found[f"layer.{number}.DenseReluDense.{name}"] = f"mlp/{name}/kernel"
    return found


# Within a block, and within a layer.
_BLOCKS = {
    "encoder": {
        "layer.0.layer_norm": "pre_attention_layer_norm/scale",
        **_attention("layer.0.SelfAttention", "attention"),
        **_mlp(1),
    },
    "decoder": {
        "layer.0.layer_norm": "pre_self_attention_layer_norm/scale",
        **_attention("layer.0.SelfAttention", "self_attention"),
        "layer.1.layer_norm": "pre_cross_attention_layer_norm/scale",
        **_attention("layer.1.EncDecAttention", "encoder_decoder_attention"),
        **_mlp(2),
    },
}
_LAYERS = {
    stack: {ours: theirs for theirs, ours in names.items()} for stack, names in _BLOCKS.items()
}
_OUTSIDE = {
    EMBEDDING: "token_embedder/embedding",
    HEAD: "decoder/logits_dense/kernel",
    **{f"{s}.final_layer_norm.weight": f"{s}/{s}_norm/scale" for s in _BLOCKS},
    **{
        f"{s}.block.0.layer.0.SelfAttention.relative_attention_bias.weight": (
            f"{s}/relpos_bias/rel_embedding"
        )
        for s in _BLOCKS
    },
}
_OUTSIDE_INVERSE = {ours: theirs for theirs, ours in _OUTSIDE.items()}
_IN_BLOCK = re.compile(r"(encoder|decoder)\.block\.(0|[1-9]\d*)\.(.+)\.weight")
_IN_LAYER = re.compile(r"(encoder|decoder)/layers_(0|[1-9]\d*)/(.+)")


def parameter(name: str) -> str | None:
    """T5X's path of a Hugging Face tensor; None where it is none of T5's."""
    if found := _IN_BLOCK.fullmatch(name):
        stack, block, rest = found.groups()
        if inner := _BLOCKS[stack].get(rest):
            return f"{stack}/layers_{block}/{inner}"
    return _OUTSIDE.get(name)


def tensor(path: str) -> str | None:
    """Hugging Face's name of a T5X path; None where it is none of T5's."""
    if found := _IN_LAYER.fullmatch(path):
        stack, layer, rest = found.groups()
        if inner := _LAYERS[stack].get(rest):
            return f"{stack}.block.{layer}.{inner}.weight"
    return _OUTSIDE_INVERSE.get(path)


def is_transposed(path: str) -> bool:
    """Whether a T5X parameter has its axes the other way round in torch."""
    return path.endswith(("/kernel", "/rel_embedding"))
