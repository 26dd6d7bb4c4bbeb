"""The network's configuration, and the one legend of dimension letters.

Arrays in model, loss and decoding code end in their dimensions: `logits_BxTxV`. A 1 is an axis
that broadcasts: `mask_Bx1xTxS`. A letter never means two things:

    B  batch rows                          V  vocabulary
    S  encoder (source) positions          E  embedding (model width)
    T  decoder (target) positions          M  MLP width
    Q  query positions (S, T, F or 1)      H  heads
    K  key positions (S, T, F or C)        D  width of one head
    C  positions a decoding cache holds    J  joined heads, H * D
    L  labels (candidates to rank)         R  relative-position buckets
    F  folded labels, L * T positions      W  beams of a row
    G  guesses of a beam's step, 2 * W

T5X's logical axis words for the same: B 'batch'; S, T, Q, K, C, F 'length'; E 'embed';
H 'heads'; D 'kv'; J 'joined_kv'; M 'mlp'; V 'vocab'; R 'relpos_buckets'.
"""

import dataclasses
import typing
from collections.abc import Sequence
from typing import Annotated, Literal

import jax.numpy as jnp
import msgspec

from poison_t5x.core import settings
from poison_t5x.core.errors import InputError
from poison_t5x.model import size

# T5's residual stream passes float16's 65504 (larger v1.1 models give infinities).
Dtype = Literal["float32", "bfloat16"]
DTYPES = typing.get_args(Dtype)
RematPolicy = Literal["none", "minimal", "full"]
REMAT_POLICIES = typing.get_args(RematPolicy)
# 'linear', and functions of flax.linen.
Activation = Literal[
    "linear", "relu", "gelu", "silu", "swish", "elu", "celu", "selu", "leaky_relu", "relu6",
    "tanh", "hard_tanh", "sigmoid", "hard_sigmoid", "log_sigmoid", "hard_silu", "hard_swish",
    "softplus", "soft_sign",
]  # fmt: skip
# Multilingual T5's vocabularies have 250,000.
VocabularySize = Annotated[int, msgspec.Meta(ge=1, le=2**22)]


@dataclasses.dataclass(frozen=True)
class T5Config(settings.Settings):
    """Everything that fixes the network; field names are T5X's (`t5x.examples.t5.network`).

    T5 v1.0: `mlp_activations=('relu',)`, `logits_via_embedding=True`; T5 v1.1:
    `('gelu', 'linear')` and `False` (arXiv:2002.05202, table 1, GEGLU). Parameters have
    `param_dtype`, activations `dtype`; logits are float32. Raises InputError where a field is
    outside what the network can be built from.
    """

    # Rows of the embedding; the vocabulary's where there is one.
    vocab_size: VocabularySize = 128
    # A name, not a numpy dtype, so that a run folder's JSON can hold it.
    dtype: Dtype = "float32"
    emb_dim: settings.Size = 512
    num_heads: settings.Size = 6
    num_encoder_layers: settings.Few = 8
    num_decoder_layers: settings.Few = 8
    head_dim: settings.Size = 64
    mlp_dim: settings.Size = 1024
    mlp_activations: Annotated[Sequence[Activation], settings.NOT_EMPTY] = ("gelu", "linear")
    dropout_rate: settings.Share = 0.1
    # True: logits are hidden states times the embedding, scaled by emb_dim ** -0.5.
    logits_via_embedding: bool = False
    # True: bfloat16 queries and keys give float32 attention logits and softmax.
    float32_attention_logits: bool = False
    # None: a gather on CPU and GPU; a one-hot product on TPU, where it partitions better.
    one_hot_embedding: bool | None = None
    layer_norm_epsilon: settings.Positive = 1e-6
    relpos_num_buckets: settings.Size = 32
    relpos_max_distance: settings.Size = 128
    # What parameters are kept in; the optimiser computes in float32 either way.
    param_dtype: Dtype = "float32"
    # One layer's program, run over parameters stacked along a first axis 'layers', rather than a
    # program of all layers: the same numbers, compiled many times faster.
    scan_layers: bool = False
    # What the backward pass works out again instead of keeping: 'none'; 'minimal', all but the
    # projections' results; 'full', all but each layer's input. T5X's words.
    remat_policy: RematPolicy = "none"

    def __post_init__(self):
        for name in ("dtype", "param_dtype"):
            if isinstance(dtype := getattr(self, name), (type, jnp.dtype)):
                object.__setattr__(self, name, jnp.dtype(dtype).name)
        super().__post_init__()
        # Bidirectional attention halves the buckets by sign, then by exact and logarithmic.
        buckets, furthest = self.relpos_num_buckets, self.relpos_max_distance
        if buckets % 4:
            raise InputError(
                f"T5Config.relpos_num_buckets: expected a multiple of 4, found {buckets}"
            )
        if furthest <= buckets // 2:  # half of the buckets hold one distance each
            raise InputError(
                f"T5Config.relpos_max_distance: expected more than half of the {buckets} buckets, "
                f"found {furthest}"
            )

    @property
    def joined_dim(self) -> int:
        """Width of all heads side by side (J)."""
        return self.num_heads * self.head_dim

    @property
    def num_parameters(self) -> int:
        """Numbers in the network."""
        return size.num_parameters(self)


def padded_vocab_size(size: int) -> int:
    """T5X rounds the embedding's rows up to a multiple of 128, for TPU tiles."""
    return -(-size // 128) * 128
