"""T5's building blocks as flax.linen modules.

Parameter names, shapes, logical axes and numerics are T5X's (`t5x/examples/t5/layers.py`). Written
differently: the key side alone is masked (a padded query's output is never read), and heads stand
before positions, which spares the CPU a copy per product.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from poison_t5x.model.config import T5Config

# Large enough to vanish in the softmax, finite so that a fully masked row gives no NaN (T5X).
MASKED = -1e10

# Names of matrix products, by which a backward pass is told what to keep of a layer (`stack`): a
# position's with weights, and positions' with each other.
PROJECTION, ATTENTION = "projection", "attention"

scaled = functools.partial(nn.initializers.variance_scaling, 1.0)


@jax.custom_vjp
def project(x_BxQxE, kernel_ExM):
    """`x @ kernel`: (B, Q, M), of any two widths E and M. Reverse mode only.

    By JAX's own rule XLA's CPU compiler copies the wider operand, transposed, and works out the
    activation's derivative again inside that copy. Copying the narrower one took a T5.1.1-small
    step (2 cores) from 2.0 s to 1.4 s; the numbers are the same.
    """
    return jnp.einsum("bqe,em->bqm", x_BxQxE, kernel_ExM)


def _project_backward(saved, dy_BxQxM):
    x_BxQxE, kernel_ExM = saved
    dx_BxQxE = jnp.einsum("bqm,em->bqe", dy_BxQxM, kernel_ExM)
    positions = (((0, 1), (0, 1)), ((), ()))
    if x_BxQxE.shape[-1] <= dy_BxQxM.shape[-1]:
        return dx_BxQxE, jax.lax.dot_general(x_BxQxE, dy_BxQxM, positions)
    return dx_BxQxE, jax.lax.dot_general(dy_BxQxM, x_BxQxE, positions).T


project.defvjp(lambda *operands: (project(*operands), operands), _project_backward)


def _parameter(module: nn.Module, name: str, init, shape: tuple[int, ...], axes: tuple[str, ...]):
    partitioned = nn.with_logical_partitioning(init, axes)
    return module.param(name, partitioned, shape, module.config.param_dtype)


def _named_project(x_BxQxE, kernel_ExM, dimensions, **_):
    return checkpoint_name(project(x_BxQxE, kernel_ExM), PROJECTION)


def dense(config: T5Config, features: int, axes: tuple[str, str], init, dtype: str | None = None):
    """A bias-free projection of the last axis, in `dtype`; `kernel` has logical `axes`."""
    return nn.Dense(
        features,
        use_bias=False,
        dtype=dtype or config.dtype,
        param_dtype=config.param_dtype,
        kernel_init=nn.with_logical_partitioning(init, axes),
        dot_general=_named_project,
    )


def additive_mask(mask, dtype: str):
    """0 where `mask` (bool) is true and `MASKED` elsewhere; same shape, `dtype`."""
    return jnp.where(mask, 0.0, MASKED).astype(dtype)


class Dropout(nn.Module):
    """Inverted dropout with choices shared along `shared_axis`: the length, as is T5's habit."""

    rate: float
    shared_axis: int | None = -2

    @nn.compact
    def __call__(self, x, enable_dropout: bool):
        if not enable_dropout or self.rate == 0.0:
            return x
        shape = list(x.shape)
        if self.shared_axis is not None:
            shape[self.shared_axis] = 1
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - self.rate, shape)
        return x * (keep.astype(x.dtype) / (1.0 - self.rate))


class LayerNorm(nn.Module):
    """RMS normalisation, computed in float32: no mean, no bias (arXiv:1910.07467)."""

    config: T5Config

    @nn.compact
    def __call__(self, x_BxQxE):
        cfg = self.config
        scale_E = _parameter(self, "scale", nn.initializers.ones, (cfg.emb_dim,), ("embed",))
        x_BxQxE = x_BxQxE.astype(jnp.float32)
        square_BxQx1 = jnp.mean(jnp.square(x_BxQxE), axis=-1, keepdims=True)
        normed_BxQxE = x_BxQxE * jax.lax.rsqrt(square_BxQx1 + cfg.layer_norm_epsilon)
        return normed_BxQxE.astype(cfg.dtype) * scale_E.astype(cfg.dtype)


class Embed(nn.Module):
    """The token embedding; tied models read their logits from it too."""

    config: T5Config

    def setup(self):
        shape, axes = (self.config.vocab_size, self.config.emb_dim), ("vocab", "embed")
        self.embedding = _parameter(self, "embedding", nn.initializers.normal(1.0), shape, axes)

    def __call__(self, tokens_BxQ):
        """Vectors (B, Q, E) in the config's dtype; NaN (gathered) or zeros of an unknown id."""
        cfg = self.config
        on_tpu = jax.default_backend() == "tpu"
        if on_tpu if cfg.one_hot_embedding is None else cfg.one_hot_embedding:
            one_hot_BxQxV = jax.nn.one_hot(tokens_BxQ, cfg.vocab_size, dtype=cfg.dtype)
            x_BxQxE = one_hot_BxQxV @ self.embedding.astype(cfg.dtype)
        else:
            x_BxQxE = jnp.take(self.embedding, tokens_BxQ, axis=0, mode="fill").astype(cfg.dtype)
        return nn.with_logical_constraint(x_BxQxE, ("batch", "length", "embed"))

    def logits(self, x_BxTxE):
        """Hidden states times the embedding, scaled by E ** -0.5: float32 (B, T, V)."""
        # Scaling the hidden states is the same sum and E, not V, multiplications a position.
        scaled_BxTxE = x_BxTxE.astype(jnp.float32) * self.config.emb_dim**-0.5
        return jnp.einsum("bte,ve->btv", scaled_BxTxE, self.embedding.astype(jnp.float32))


def relative_position_buckets(num_queries, num_keys, bidirectional, num_buckets, max_distance):
    """Bucket of each (query, key) pair: int32 (Q, K) numpy array (arXiv:1910.10683, section 2.1).

    Half of the buckets hold one distance each; the rest grow logarithmically up to `max_distance`,
    and the last takes all beyond. Keys after the query have their own half or, in causal attention,
    bucket 0, where the mask hides them.
    """
    distance_QxK = np.arange(num_queries)[:, None] - np.arange(num_keys)[None, :]
    first_QxK = np.zeros_like(distance_QxK)
    if bidirectional:
        num_buckets //= 2
        first_QxK = np.where(distance_QxK < 0, num_buckets, 0)
        distance_QxK = np.abs(distance_QxK)
    distance_QxK = np.maximum(distance_QxK, 0)
    num_exact = num_buckets // 2
    # T5X adds float32's epsilon, so that rounding can't pull a power of two into the bucket below.
    ratio_QxK = np.maximum(distance_QxK, 1).astype(np.float32) / np.float32(num_exact)
    log_QxK = np.log(ratio_QxK + np.finfo(np.float32).eps) / math.log(max_distance / num_exact)
    far_QxK = num_exact + (log_QxK * (num_buckets - num_exact)).astype(np.int32)
    far_QxK = np.minimum(far_QxK, num_buckets - 1)
    near_or_far_QxK = np.where(distance_QxK < num_exact, distance_QxK, far_QxK)
    return (first_QxK + near_or_far_QxK).astype(np.int32)


@jax.custom_vjp
def masked_bias(bias_1xHxQxK, mask):
    """`bias + mask`, for an additive `mask` (B, H, Q, K) without gradient. Reverse mode only.

    The bias's gradient, a sum over the batch, is written as a product with ones: XLA's CPU compiler
    takes fifty times as long over a plain sum (17 ms for 14 MB), which differs by rounding.
    """
    return bias_1xHxQxK + mask


def _masked_bias_backward(mask, d_BxHxQxK):
    ones_B = jnp.ones(d_BxHxQxK.shape[0], d_BxHxQxK.dtype)
    flat_BxHQK = d_BxHxQxK.reshape(ones_B.size, -1)
    exact = {"precision": "highest", "preferred_element_type": jnp.float32}
    d_HQK = jnp.einsum("b,bx->x", ones_B, flat_BxHQK, **exact)
    d_1xHxQxK = d_HQK.reshape(1, *d_BxHxQxK.shape[1:]).astype(d_BxHxQxK.dtype)
    return d_1xHxQxK, jnp.zeros_like(mask)


masked_bias.defvjp(lambda bias, mask: (masked_bias(bias, mask), mask), _masked_bias_backward)


class RelativePositionBias(nn.Module):
    """A learnt number per head and bucket, added to attention logits; one table per stack."""

    config: T5Config
    bidirectional: bool

    @nn.compact
    def __call__(self, num_queries: int, num_keys: int):
        """Bias for queries and keys that start at the same position: (1, H, Q, K)."""
        cfg = self.config
        num_buckets, axes = cfg.relpos_num_buckets, ("heads", "relpos_buckets")
        init, shape = scaled("fan_avg", "uniform"), (cfg.num_heads, num_buckets)
        table_HxR = _parameter(self, "rel_embedding", init, shape, axes)
        buckets_QxK = relative_position_buckets(
            num_queries, num_keys, self.bidirectional, num_buckets, cfg.relpos_max_distance
        )
        # A product, not a gather: the gather's gradient is a serial scatter of H * Q * K numbers.
        one_hot_RxQxK = jnp.arange(num_buckets)[:, None, None] == jnp.asarray(buckets_QxK)
        bias_HxQxK = jnp.einsum(
            "hr,rqk->hqk", table_HxR.astype(cfg.dtype), one_hot_RxQxK.astype(cfg.dtype)
        )
        return bias_HxQxK[None]


class Attention(nn.Module):
    """Multi-head attention without query scaling: T5 folds it into `query`'s initialiser."""

    config: T5Config

    def setup(self):
        cfg = self.config
        size, axes = cfg.joined_dim, ("embed", "joined_kv")
        init = scaled("fan_in", "normal")
        narrow = nn.initializers.variance_scaling(1.0 / cfg.head_dim, "fan_in", "normal")
        self.query = dense(cfg, size, axes, narrow)
        self.key = dense(cfg, size, axes, init)
        self.value = dense(cfg, size, axes, init)
        self.out = dense(cfg, cfg.emb_dim, ("joined_kv", "embed"), init)
        self.dropout = Dropout(cfg.dropout_rate)

    def keys_values(self, x_BxKxE):
        """Keys and values of `x_BxKxE`: two arrays (B, H, K, D)."""
        return self._split(self.key(x_BxKxE)), self._split(self.value(x_BxKxE))

    def __call__(self, x_BxQxE, keys_values, bias, enable_dropout: bool):
        """(B, Q, E) in the config's dtype; `bias`, mask included, broadcasts to (B, H, Q, K)."""
        cfg = self.config
        query_BxHxQxD = self._split(self.query(x_BxQxE))
        key_BxHxKxD, value_BxHxKxD = keys_values
        logits_BxHxQxK = jnp.einsum(
            "bhqd,bhkd->bhqk",
            query_BxHxQxD,
            key_BxHxKxD,
            preferred_element_type=jnp.float32 if cfg.float32_attention_logits else None,
        )
        logits_BxHxQxK = checkpoint_name(logits_BxHxQxK, ATTENTION)
        logits_BxHxQxK += bias.astype(logits_BxHxQxK.dtype)
        weights_BxHxQxK = jax.nn.softmax(logits_BxHxQxK).astype(cfg.dtype)
        weights_BxHxQxK = self.dropout(weights_BxHxQxK, enable_dropout)
        mixed_BxHxQxD = jnp.einsum("bhqk,bhkd->bhqd", weights_BxHxQxK, value_BxHxKxD)
        mixed_BxHxQxD = checkpoint_name(mixed_BxHxQxD, ATTENTION)
        mixed_BxQxHxD = mixed_BxHxQxD.swapaxes(1, 2)
        return self.out(mixed_BxQxHxD.reshape(x_BxQxE.shape[:2] + (cfg.joined_dim,)))

    def _split(self, x_BxKxJ):
        shape = x_BxKxJ.shape[:2] + (self.config.num_heads, self.config.head_dim)
        x_BxHxKxD = x_BxKxJ.reshape(shape).swapaxes(1, 2)
        return nn.with_logical_constraint(x_BxHxKxD, ("batch", "heads", "length", "kv"))


class Mlp(nn.Module):
    """The feed-forward block; two activations multiply (GEGLU, arXiv:2002.05202)."""

    config: T5Config

    def setup(self):
        cfg = self.config
        init = scaled("fan_in", "truncated_normal")
        wi = [dense(cfg, cfg.mlp_dim, ("embed", "mlp"), init) for _ in cfg.mlp_activations]
        # T5X's parameter is `wi` alone, or `wi_0`, `wi_1`; flax numbers a list's members.
        self.wi = wi if len(wi) > 1 else wi[0]
        self.wo = dense(cfg, cfg.emb_dim, ("mlp", "embed"), init)
        self.dropout = Dropout(cfg.dropout_rate)

    def __call__(self, x_BxQxE, enable_dropout: bool):
        wi = self.wi if isinstance(self.wi, (list, tuple)) else [self.wi]
        hidden_BxQxM = 1
        for name, layer in zip(self.config.mlp_activations, wi, strict=True):
            y_BxQxM = layer(x_BxQxE)
            hidden_BxQxM *= y_BxQxM if name == "linear" else getattr(nn, name)(y_BxQxM)
        hidden_BxQxM = self.dropout(hidden_BxQxM, enable_dropout)
        hidden_BxQxM = nn.with_logical_constraint(hidden_BxQxM, ("batch", "length", "mlp"))
        return self.wo(hidden_BxQxM)
