"""The config.json of Hugging Face's T5: what it says of the network, and how ours is said in it."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from poison_t5x.checkpoint_io.hugging_face import names
from poison_t5x.checkpoint_io.source import TensorInfo
from poison_t5x.core import errors
from poison_t5x.model import config as model_config

FILE = "config.json"
_GATED = "gated-"
# transformers' activations that flax.linen computes in the same way. Its 'gelu' is the exact one,
# by the error function, and flax's the tanh approximation, as in T5.
_ACTIVATIONS = {
    "relu": "relu",
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "linear": "linear",
}
_FLAX_ACTIVATIONS = {"gelu": "gelu_new"} | {
    name: name for name in ("relu", "silu", "swish", "tanh", "sigmoid", "linear")
}
_BIAS = names.tensor("encoder/relpos_bias/rel_embedding")
_QUERY = names.tensor("encoder/layers_0/attention/query/kernel")
_WO = names.tensor("encoder/layers_0/mlp/wo/kernel")
# Field -> the tensor and the axis that tell it, too.
_SIZES = {
    "vocab_size": (names.EMBEDDING, 0),
    "d_model": (names.EMBEDDING, 1),
    "relative_attention_num_buckets": (_BIAS, 0),
    "num_heads": (_BIAS, 1),
    "d_ff": (_WO, 1),
}


class Config(msgspec.Struct):
    """What is read of a config.json; defaults are those of transformers' T5."""

    model_type: str
    vocab_size: int | None = None
    d_model: int | None = None
    d_kv: int | None = None
    d_ff: int | None = None
    num_heads: int | None = None
    num_layers: int | None = None
    num_decoder_layers: int | None = None
    relative_attention_num_buckets: int | None = None
    relative_attention_max_distance: int = 128
    dropout_rate: float = 0.1
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str | None = None
    dense_act_fn: str | None = None
    is_gated_act: bool | None = None
    tie_word_embeddings: bool | None = None
    scale_decoder_outputs: bool | None = None
    transformers_version: str | None = None

    @property
    def is_mt5(self) -> bool:
        """Whether it is mT5's, whose network is T5 v1.1's."""
        return self.model_type == "mt5"

    @property
    def is_of_transformers_5(self) -> bool:
        """Whether transformers 5 wrote it, which ties the head to the embedding unless the weights
        hold both, and writes tie_word_embeddings true in any case."""
        version = re.match(r"\d+", self.transformers_version or "")
        return self.scale_decoder_outputs is not None or (
            version is not None and int(version[0]) >= 5
        )


def read(directory: pathlib.Path) -> Config:
    """Reads a folder's config.json.

    Raises:
      InputError: it isn't there, isn't valid, or another architecture's.
    """
    path = directory / FILE
    try:
        config = msgspec.json.decode(path.read_bytes(), type=Config)
    except OSError as error:
        raise errors.InputError(
            f"{path}: can't be read ({error.strerror}); give a Hugging Face folder of T5"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.InputError(
            f"{path}: not the config.json of a Hugging Face T5 ({error})"
        ) from None
    if config.model_type not in ("t5", "mt5"):
        raise errors.InputError(
            f"{directory}: a Hugging Face folder of {config.model_type!r}, another architecture; "
            "those of 't5' and 'mt5' can be read"
        )
    return config


def network(directory: pathlib.Path, config: Config) -> dict[str, object]:
    """T5Config's fields that shapes don't tell, but for `logits_via_embedding`.

    Raises:
      InputError: an activation that flax doesn't have.
    """
    projection = config.feed_forward_proj or (f"{_GATED}gelu" if config.is_mt5 else "relu")
    gated = projection.startswith(_GATED) if config.is_gated_act is None else config.is_gated_act
    # In transformers, too, 'gated-gelu' means gelu_new, and dense_act_fn has the last word.
    derived = "gelu_new" if projection == f"{_GATED}gelu" else projection.removeprefix(_GATED)
    theirs = config.dense_act_fn or derived
    if theirs not in _ACTIVATIONS:
        raise errors.InputError(
            f"{directory / FILE}: the activation {theirs!r} (feed_forward_proj, dense_act_fn) "
            f"isn't one that flax computes in the same way: {', '.join(_ACTIVATIONS)}"
        )
    ours = _ACTIVATIONS[theirs]
    return {
        "mlp_activations": (ours, "linear") if gated else (ours,),
        "dropout_rate": config.dropout_rate,
        "layer_norm_epsilon": config.layer_norm_epsilon,
        "relpos_max_distance": config.relative_attention_max_distance,
    }


def is_scaled(directory: pathlib.Path, config: Config) -> bool:
    """Whether hidden states are scaled by d_model ** -0.5 before the logits.

    T5 v1.0 scales them and v1.1 doesn't. transformers tells by tie_word_embeddings; since its
    version 5, which always says true there, by scale_decoder_outputs. mT5 it then never scales.

    Raises:
      InputError: an mT5 that versions 4 and 5 take differently.
    """
    if config.scale_decoder_outputs is not None:
        return config.scale_decoder_outputs
    if not config.is_mt5:
        return config.tie_word_embeddings is not False
    if config.tie_word_embeddings and not config.is_of_transformers_5:
        raise errors.InputError(
            f"{directory / FILE}: an mT5 with tie_word_embeddings true: transformers 4 scales its "
            "decoder's outputs and transformers 5 doesn't; add \"scale_decoder_outputs\": true, or "
            "false, as it was trained"
        )
    return False


def check_sizes(directory: pathlib.Path, config: Config, tensors: Mapping[str, TensorInfo]) -> None:
    """Raises InputError, with both numbers, where a config.json contradicts the tensors.

    Args:
      tensors: Hugging Face's names, one of the embedding's among them, -> shapes as stored.
    """
    found: dict[str, int | None] = {}
    for field, (name, axis) in _SIZES.items():
        if name in tensors and len(tensors[name].shape) == 2:
            found[field] = tensors[name].shape[axis]
    if _QUERY in tensors and config.num_heads:
        found["d_kv"] = tensors[_QUERY].shape[0] // config.num_heads
    depths = {stack: _depth(stack, tensors) for stack in ("encoder", "decoder")}
    found["num_layers"], found["num_decoder_layers"] = depths["encoder"], depths["decoder"]
    stated = {**msgspec.to_builtins(config)}
    if stated["num_decoder_layers"] is None:
        stated["num_decoder_layers"] = config.num_layers
    for field, size in found.items():
        if stated[field] is not None and stated[field] != size:
            raise errors.InputError(
                f"{directory / FILE}: says {field} {stated[field]}, and the folder's tensors have "
                f"{size}; the two aren't of the same model: fetch the folder again"
            )


def _depth(stack: str, tensors: Mapping[str, TensorInfo]) -> int:
    blocks = [re.match(rf"{stack}\.block\.(\d+)\.", name) for name in tensors]
    return max((int(block[1]) + 1 for block in blocks if block), default=0)


def describe(config: model_config.T5Config) -> dict[str, Any]:
    """Our network as a config.json that transformers 4 and 5 read, but for the tensors' dtype.

    Raises:
      InputError: an MLP that a config.json can't say.
    """
    activation, *others = config.mlp_activations
    if activation not in _FLAX_ACTIVATIONS or others not in ([], ["linear"]):
        raise errors.InputError(
            f"MLP_ACTIVATIONS={config.mlp_activations!r}: Hugging Face's T5 has no such layer; one "
            f"of {', '.join(_FLAX_ACTIVATIONS)}, alone or with 'linear', can be written"
        )
    theirs = _FLAX_ACTIVATIONS[activation]
    projection = theirs
    if others:
        projection = _GATED + ("gelu" if theirs == "gelu_new" else theirs)
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "d_ff": config.mlp_dim,
        "d_kv": config.head_dim,
        "d_model": config.emb_dim,
        "decoder_start_token_id": 0,
        "dense_act_fn": theirs,
        "dropout_rate": config.dropout_rate,
        "eos_token_id": 1,
        "feed_forward_proj": projection,
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "is_gated_act": bool(others),
        "layer_norm_epsilon": config.layer_norm_epsilon,
        "model_type": "t5",
        "num_decoder_layers": config.num_decoder_layers,
        "num_heads": config.num_heads,
        "num_layers": config.num_encoder_layers,
        "pad_token_id": 0,
        "relative_attention_max_distance": config.relpos_max_distance,
        "relative_attention_num_buckets": config.relpos_num_buckets,
        # transformers scales the decoder's outputs where this is true, as T5 v1.0 does.
        "tie_word_embeddings": config.logits_via_embedding,
        "use_cache": True,
        "vocab_size": config.vocab_size,
    }


GENERATION = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
