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

import contextlib
import dataclasses
import math

import jax.numpy as jnp
from flax import linen as nn

from poison_t5x.core import checks
from poison_t5x.core.errors import InputError

DTYPES = ("float32", "bfloat16")
REMAT_POLICIES = ("none", "minimal", "full")


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Everything that fixes the network; field names are T5X's (`t5x.examples.t5.network`).

    T5 v1.0: `mlp_activations=('relu',)`, `logits_via_embedding=True`; T5 v1.1:
    `('gelu', 'linear')` and `False` (arXiv:2002.05202, table 1, GEGLU). Parameters have
    `param_dtype`, activations `dtype`; logits are float32. Raises InputError where a field is
    outside what the network can be built from.
    """

    vocab_size: int
    # A name, not a numpy dtype, so that a run folder's JSON can hold it.
    dtype: str = "float32"
    emb_dim: int = 512
    num_heads: int = 6
    num_encoder_layers: int = 8
    num_decoder_layers: int = 8
    head_dim: int = 64
    mlp_dim: int = 1024
    mlp_activations: tuple[str, ...] = ("gelu", "linear")
    dropout_rate: float = 0.1
    # True: logits are hidden states times the embedding, scaled by emb_dim ** -0.5.
    logits_via_embedding: bool = False
    # True: bfloat16 queries and keys give float32 attention logits and softmax.
    float32_attention_logits: bool = False
    # None: a gather on CPU and GPU; a one-hot product on TPU, where it partitions better.
    one_hot_embedding: bool | None = None
    layer_norm_epsilon: float = 1e-6
    relpos_num_buckets: int = 32
    relpos_max_distance: int = 128
    # What parameters are kept in; the optimiser computes in float32 either way.
    param_dtype: str = "float32"
    # One layer's program, run over parameters stacked along a first axis 'layers', rather than a
    # program of all layers: the same numbers, compiled many times faster.
    scan_layers: bool = False
    # What the backward pass works out again instead of keeping: 'none'; 'minimal', all but the
    # projections' results; 'full', all but each layer's input. T5X's words.
    remat_policy: str = "none"

    def __post_init__(self):
        for name in ("dtype", "param_dtype"):
            dtype = getattr(self, name)
            with contextlib.suppress(TypeError):
                dtype = jnp.dtype(dtype).name
            # T5's residual stream passes float16's 65504 (larger v1.1 models give infinities).
            checks.one_of(f"T5Config.{name}", dtype, DTYPES)
            object.__setattr__(self, name, dtype)
        object.__setattr__(self, "mlp_activations", _activations(self.mlp_activations))
        for field in dataclasses.fields(self):
            if field.type is int:
                checks.whole_number(f"T5Config.{field.name}", getattr(self, field.name))
        # Bidirectional attention halves the buckets by sign, then by exact and logarithmic.
        buckets, furthest = self.relpos_num_buckets, self.relpos_max_distance
        if buckets % 4:
            raise InputError(
                f"T5Config.relpos_num_buckets: expected a multiple of 4, found {buckets}"
            )
        # Half of the buckets hold one distance each.
        checks.whole_number("T5Config.relpos_max_distance", furthest, buckets // 2 + 1)
        checks.switch("T5Config.logits_via_embedding", self.logits_via_embedding)
        checks.switch("SCAN_LAYERS", self.scan_layers)
        checks.one_of("REMAT_POLICY", self.remat_policy, REMAT_POLICIES)
        checks.number("T5Config.dropout_rate", self.dropout_rate, minimum=0)
        if self.dropout_rate >= 1:
            rate = self.dropout_rate
            raise InputError(f"T5Config.dropout_rate: expected less than 1, found {rate!r}")
        checks.between("T5Config.layer_norm_epsilon", self.layer_norm_epsilon, 0.0, math.inf)

    @property
    def joined_dim(self) -> int:
        """Width of all heads side by side (J)."""
        return self.num_heads * self.head_dim


def padded_vocab_size(size: int) -> int:
    """T5X rounds the embedding's rows up to a multiple of 128, for TPU tiles."""
    return -(-size // 128) * 128


def _activations(names) -> tuple[str, ...]:
    def is_known(name) -> bool:
        function = getattr(nn, name, None) if isinstance(name, str) else None
        return name == "linear" or (callable(function) and not isinstance(function, type))

    if not isinstance(names, (tuple, list)) or not names or not all(map(is_known, names)):
        raise InputError(
            "T5Config.mlp_activations: expected a tuple of 'linear' and functions of flax.linen, "
            f"such as ('relu',) or ('gelu', 'linear'), found {names!r}"
        )
    return tuple(names)
