"""Which T5 a checkpoint holds, from the shapes of its tensors; and whether it fits a network."""

import dataclasses
import functools
import math
import re
from typing import Any

import jax

from poison_t5x.checkpoint_io.source import Source
from poison_t5x.core import errors
from poison_t5x.model import config as model_config
from poison_t5x.model import network

EMBEDDING = "token_embedder/embedding"
LOGITS = "decoder/logits_dense/kernel"
_BIAS = "encoder/relpos_bias/rel_embedding"
_QUERY = "encoder/layers_0/attention/query/kernel"
_MLP = "encoder/layers_0/mlp"
_LAYER = re.compile(r"(encoder|decoder)/layers_(\d+)/")
# T5Config's field -> the gin macro that sets it.
MACROS = {
    "emb_dim": "EMB_DIM",
    "num_heads": "NUM_HEADS",
    "head_dim": "HEAD_DIM",
    "mlp_dim": "MLP_DIM",
    "num_encoder_layers": "NUM_ENCODER_LAYERS",
    "num_decoder_layers": "NUM_DECODER_LAYERS",
    "mlp_activations": "MLP_ACTIVATIONS",
    "logits_via_embedding": "LOGITS_VIA_EMBEDDING",
}


def network_config(source: Source) -> model_config.T5Config:
    """The network that a checkpoint was made with.

    What neither its shapes nor its own statements tell has T5's value: gated MLPs use
    ('gelu', 'linear'), others ('relu',). Raises InputError, naming the first that is missing,
    unknown or of another shape, where its tensors aren't those of a T5 encoder-decoder.
    """
    config = model_config.T5Config(**{**sizes(source), **source.network})
    if differing := _first_difference(source, config):
        raise errors.InputError(
            f"{differing}; the checkpoint isn't whole, or of another architecture than T5's"
        )
    return config


def check_fits(source: Source, config: model_config.T5Config) -> None:
    """Raises InputError, naming the first tensor that differs, where a checkpoint doesn't fit."""
    if differing := _first_difference(source, config):
        raise errors.InputError(f"{differing}; {_remedy(source, config)}")


def sizes(source: Source) -> dict[str, Any]:
    """T5Config's fields that shapes tell. Raises InputError where they aren't a T5's."""
    params = source.params
    gated = f"{_MLP}/wi_0/kernel" in params
    mlp = f"{_MLP}/wi_0/kernel" if gated else f"{_MLP}/wi/kernel"
    for name in (EMBEDDING, _BIAS, _QUERY, mlp):
        if name not in params or len(params[name].shape) != 2:
            state = f"has shape {params[name].shape}" if name in params else "isn't there"
            raise errors.InputError(
                f"{source.path}: {source.layout}, but of another architecture than T5's: {name} "
                f"{state} (its tensors begin with {', '.join(sorted(params)[:3])}); a T5 "
                "encoder-decoder is needed"
            )
    heads, buckets = params[_BIAS].shape
    depths = {"encoder": 0, "decoder": 0}
    for layer in filter(None, map(_LAYER.match, params)):
        depths[layer[1]] = max(depths[layer[1]], int(layer[2]) + 1)
    return {
        "vocab_size": params[EMBEDDING].shape[0],
        "emb_dim": params[EMBEDDING].shape[1],
        "num_heads": heads,
        "head_dim": params[_QUERY].shape[1] // max(heads, 1),
        "mlp_dim": params[mlp].shape[1],
        "num_encoder_layers": depths["encoder"],
        "num_decoder_layers": depths["decoder"],
        "mlp_activations": ("gelu", "linear") if gated else ("relu",),
        "logits_via_embedding": LOGITS not in params,
        "relpos_num_buckets": buckets,
    }


@functools.lru_cache(maxsize=8)
def shapes(config: model_config.T5Config) -> dict[str, tuple[int, ...]]:
    """Parameter path -> shape, of a network that isn't built; each layer's own, scanned or not."""
    model = network.Transformer(dataclasses.replace(config, scan_layers=False))
    tree = jax.eval_shape(lambda key: network.initial_params(model, key), jax.random.key(0))
    return {key: tuple(leaf.shape) for key, leaf in network.flat(tree).items()}


def _first_difference(source: Source, config: model_config.T5Config) -> str | None:
    """The first tensor that differs, and its shapes there and here, in words."""
    here = shapes(config)
    there = {name: tensor.shape for name, tensor in source.params.items()}
    # The embedding first: where the vocabulary or the width differs, all else does too.
    for name in sorted(here.keys() | there.keys(), key=lambda n: (n != EMBEDDING, n)):
        if there.get(name) != here.get(name):
            stored = f"shape {there[name]}" if name in there else "no shape (it isn't there)"
            wanted = f"shape {here[name]}" if name in here else "no shape (it is unknown)"
            return (
                f"{source.path}: {source.layout}, where {name} has {stored}; this network's has "
                f"{wanted}"
            )
    return None


def _remedy(source: Source, config: model_config.T5Config) -> str:
    """The settings to change."""
    there, here = sizes(source), dataclasses.asdict(config)
    differing = [
        f"{macro}={there[field]!r}"
        for field, macro in MACROS.items()
        if there[field] != here[field]
        # Other activations of as many layers have the same shapes.
        and (field != "mlp_activations" or len(there[field]) != len(here[field]))
    ]
    if differing:
        return f"set {' '.join(differing)}, as a file of gin/models does"
    if there["vocab_size"] != here["vocab_size"]:
        return (
            f"its vocabulary has {there['vocab_size']} entries and this one's, rounded up to a "
            f"multiple of 128, {here['vocab_size']}: set VOCABULARY_PATH to the SentencePiece "
            "model that it was trained with"
        )
    return "the checkpoint isn't whole"


def macros(config: model_config.T5Config) -> list[str]:
    """The gin macros of a network, 'EMB_DIM=512' and so on."""
    return [f"{macro}={getattr(config, field)!r}" for field, macro in MACROS.items()]


def count_parameters(source: Source) -> int:
    """Numbers in all parameters."""
    return sum(math.prod(tensor.shape) for tensor in source.params.values())
