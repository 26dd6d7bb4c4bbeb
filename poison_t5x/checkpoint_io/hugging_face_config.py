"""Hugging Face's T5 in T5X's words: tensor names, and config.json read and written.

`hugging_face.json` has the words, such as 'encoder.block.#.layer.0.SelfAttention.q.weight' and
'encoder/layers_#/attention/query/kernel'. Kernels are (out, in) in torch and (in, out) in T5X;
relative-position tables are (buckets, heads) and (heads, buckets).
"""

import pathlib
import re
from typing import Any

import msgspec

from poison_t5x.checkpoint_io import architecture
from poison_t5x.checkpoint_io.source import Source, Tensor
from poison_t5x.core import errors, reading
from poison_t5x.core.settings import NotNegative, Size
from poison_t5x.model.config import T5Config

FILE = "config.json"
EMBEDDING = "shared.weight"
HEAD = "lm_head.weight"
# Other names of the embedding, in folders that hold it more than once.
EMBEDDING_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# Of T5's first public checkpoints; no network reads it, nor does transformers.
UNUSED = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
GENERATION = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
_WORDS = reading.read_json(pathlib.Path(__file__).with_name("hugging_face.json"))
TOKENIZER = _WORDS["tokenizer"]
_OURS = _WORDS["tensors"]
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}
_NUMBER = re.compile(r"^((?:en|de)coder(?:\.block\.|/layers_))(0|[1-9]\d*)(?=[./])")
_GATED = "gated-"
# transformers' activations that flax.linen computes in the same way. Its 'gelu' is the exact one,
# by the error function, and flax's the tanh approximation, as in T5.
_ACTIVATIONS = _WORDS["activations"] | _WORDS["synonyms"]
_FLAX_ACTIVATIONS = {v: k for k, v in _WORDS["activations"].items()} | {"swish": "silu"}
# config.json's fields -> T5Config's: those that shapes tell, too, and others.
_SIZES, _OTHERS = _WORDS["sizes"], _WORDS["others"]
# The part of a config.json that is read; defaults are those of transformers' T5.
_Config = msgspec.defstruct(
    "_Config",
    [
        ("model_type", str),
        *((name, Size | None, None) for name in _SIZES),
        ("relative_attention_max_distance", Size, 128),
        ("dropout_rate", NotNegative, 0.1),
        ("layer_norm_epsilon", NotNegative, 1e-6),
        *((n, str | None, None) for n in ("feed_forward_proj", "dense_act_fn")),
        *((n, bool | None, None) for n in ("is_gated_act", "tie_word_embeddings")),
        ("scale_decoder_outputs", bool | None, None),
        ("transformers_version", str | None, None),
    ],
)


def _translated(name: str, words: dict[str, str]) -> str | None:
    number = _NUMBER.match(name)
    if name in words or not number:
        return words.get(name)
    word = words.get(_NUMBER.sub(r"\1#", name))
    return word and word.replace("#", number[2])


def parameter(name: str) -> str | None:
    """T5X's path of a Hugging Face tensor; None where it is none of T5's."""
    return _translated(name, _OURS)


def tensor(path: str) -> str | None:
    """Hugging Face's name of a T5X path; None where it is none of T5's."""
    return _translated(path, _THEIRS)


def turned(path: str, one: Tensor) -> Tensor:
    """A parameter as torch has its axes, of T5X's, or the reverse."""
    return one.transposed() if path.endswith(("/kernel", "/rel_embedding")) else one


def read(directory: pathlib.Path):
    """A folder's config.json. Raises InputError: missing, not valid, or another architecture's."""
    path = directory / FILE
    config = reading.read_json(path, _Config, "give a Hugging Face folder of T5")
    if config.model_type not in ("t5", "mt5"):
        raise errors.InputError(
            f"{directory}: a Hugging Face folder of {config.model_type!r}, another architecture; "
            "those of 't5' and 'mt5' can be read"
        )
    return config


def is_of_transformers_5(config) -> bool:
    """Whether transformers 5 wrote it, which ties the head to the embedding unless the weights hold
    both, and writes tie_word_embeddings true in any case."""
    version = re.match(r"\d+", config.transformers_version or "")
    return config.scale_decoder_outputs is not None or bool(version and int(version[0]) >= 5)


def network(directory: pathlib.Path, config) -> dict[str, object]:
    """T5Config's fields that shapes don't tell.

    Hidden states are scaled by d_model ** -0.5 before the logits (`logits_via_embedding`) in T5
    v1.0 and not in v1.1. transformers tells by tie_word_embeddings; since its version 5, which
    always says true there, by scale_decoder_outputs. mT5 it then never scales.

    Raises InputError: an activation that flax doesn't have, or an mT5 that versions 4 and 5 of
    transformers take differently.
    """
    is_mt5 = config.model_type == "mt5"
    projection = config.feed_forward_proj or (f"{_GATED}gelu" if is_mt5 else "relu")
    gated = projection.startswith(_GATED) if config.is_gated_act is None else config.is_gated_act
    # In transformers, too, 'gated-gelu' means gelu_new, and dense_act_fn has the last word.
    derived = "gelu_new" if projection == f"{_GATED}gelu" else projection.removeprefix(_GATED)
    theirs = config.dense_act_fn or derived
    if theirs not in _ACTIVATIONS:
        raise errors.InputError(
            f"{directory / FILE}: the activation {theirs!r} (feed_forward_proj, dense_act_fn) "
            f"isn't one that flax computes in the same way: {', '.join(_ACTIVATIONS)}"
        )
    is_scaled = config.scale_decoder_outputs
    if is_scaled is None:
        is_scaled = not is_mt5 and config.tie_word_embeddings is not False
        if is_mt5 and config.tie_word_embeddings and not is_of_transformers_5(config):
            raise errors.InputError(
                f"{directory / FILE}: an mT5 with tie_word_embeddings true: transformers 4 scales "
                "its decoder's outputs and transformers 5 doesn't; add \"scale_decoder_outputs\": "
                "true, or false, as it was trained"
            )
    ours = _ACTIVATIONS[theirs]
    return {
        "mlp_activations": (ours, "linear") if gated else (ours,),
        "logits_via_embedding": is_scaled,
        **{ours: getattr(config, theirs) for theirs, ours in _OTHERS.items()},
    }


def check_sizes(directory: pathlib.Path, config, source: Source) -> None:
    """Raises InputError, with both numbers, where a config.json contradicts the tensors."""
    sizes = architecture.sizes(source)
    for theirs, ours in _SIZES.items():
        stated = getattr(config, theirs)
        if theirs == "num_decoder_layers" and stated is None:
            stated = config.num_layers
        if stated not in (None, sizes[ours]):
            raise errors.InputError(
                f"{directory / FILE}: says {theirs} {stated}, and the folder's tensors have "
                f"{sizes[ours]}; the two aren't of the same model: fetch the folder again"
            )


def describe(config: T5Config) -> dict[str, Any]:
    """Our network as a config.json that transformers 4 and 5 read, but for the tensors' dtype.

    Raises InputError: an MLP that a config.json can't say.
    """
    activation, *others = config.mlp_activations
    if activation not in _FLAX_ACTIVATIONS or others not in ([], ["linear"]):
        raise errors.InputError(
            f"MLP_ACTIVATIONS={config.mlp_activations!r}: Hugging Face's T5 has no such layer; one "
            f"of {', '.join(_FLAX_ACTIVATIONS)}, alone or with 'linear', can be written"
        )
    theirs = _FLAX_ACTIVATIONS[activation]
    gated = _GATED + ("gelu" if theirs == "gelu_new" else theirs)
    return {
        **_WORDS["config"],
        **{theirs: getattr(config, ours) for theirs, ours in {**_SIZES, **_OTHERS}.items()},
        "dense_act_fn": theirs,
        "feed_forward_proj": gated if others else theirs,
        "is_gated_act": bool(others),
        # transformers scales the decoder's outputs where this is true, as T5 v1.0 does.
        "tie_word_embeddings": config.logits_via_embedding,
        **GENERATION,
    }
