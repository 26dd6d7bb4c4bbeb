"""The T5 encoder-decoder (arXiv:1910.10683), with T5X's parameter paths.

Two ways through the decoder share its layers: whole sequences (`decode`), and one token at a time
from a cache (`start_cache`, `decode_step`), an ordinary pytree that a loop carries.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from poison_t5x.core.errors import InputError
from poison_t5x.model import stack
from poison_t5x.model.config import T5Config
from poison_t5x.model.layers import (
    Attention,
    Dense,
    Dropout,
    Embed,
    LayerNorm,
    Mlp,
    RelativePositionBias,
    additive_mask,
    masked_bias,
)

RESIDUAL_AXES = ("batch", "length", "embed")
# Arrays of a batch, under SeqIO's names, that `Transformer` takes.
MODEL_INPUTS = (
    "encoder_input_tokens",
    "decoder_input_tokens",
    "decoder_target_tokens",
    "encoder_segment_ids",
    "decoder_segment_ids",
)


@struct.dataclass
class LayerCache:
    """One decoder layer's keys and values: self-attention so far, and of the encoder's output."""

    self_key_BxHxCxD: jax.Array
    self_value_BxHxCxD: jax.Array
    cross_key_BxHxSxD: jax.Array
    cross_value_BxHxSxD: jax.Array


@struct.dataclass
class DecodeCache:
    """State of one-token decoding; `index` (int32) counts the steps.

    `layers` is one cache a layer or, where the layers are scanned, one with them all stacked.
    """

    layers: tuple[LayerCache, ...] | LayerCache
    self_bias_1xHxCxC: jax.Array
    cross_bias_Bx1x1xS: jax.Array
    index: jax.Array


class EncoderLayer(nn.Module):
    """Self-attention and MLP, each normalised before and added to what came in."""

    config: T5Config

    def setup(self):
        self.pre_attention_layer_norm = LayerNorm(self.config)
        self.attention = Attention(self.config)
        self.pre_mlp_layer_norm = LayerNorm(self.config)
        self.mlp = Mlp(self.config)
        self.dropout = Dropout(self.config.dropout_rate)

    def __call__(self, x_BxSxE, bias, enable_dropout: bool):
        x_BxSxE = nn.with_logical_constraint(x_BxSxE, RESIDUAL_AXES)
        y_BxSxE = self.pre_attention_layer_norm(x_BxSxE)
        keys_values = self.attention.keys_values(y_BxSxE)
        y_BxSxE = self.attention(y_BxSxE, keys_values, bias, enable_dropout)
        x_BxSxE += self.dropout(y_BxSxE, enable_dropout)
        y_BxSxE = self.mlp(self.pre_mlp_layer_norm(x_BxSxE), enable_dropout)
        return x_BxSxE + self.dropout(y_BxSxE, enable_dropout)


class DecoderLayer(nn.Module):
    """Causal self-attention, attention to the encoder's output, and MLP."""

    config: T5Config

    def setup(self):
        self.pre_self_attention_layer_norm = LayerNorm(self.config)
        self.self_attention = Attention(self.config)
        self.pre_cross_attention_layer_norm = LayerNorm(self.config)
        self.encoder_decoder_attention = Attention(self.config)
        self.pre_mlp_layer_norm = LayerNorm(self.config)
        self.mlp = Mlp(self.config)
        self.dropout = Dropout(self.config.dropout_rate)

    def __call__(self, x_BxTxE, encoded_BxSxE, self_bias, cross_bias, enable_dropout: bool):
        x_BxTxE = nn.with_logical_constraint(x_BxTxE, _decoder_axes(x_BxTxE.shape))
        y_BxTxE = self.pre_self_attention_layer_norm(x_BxTxE)
        self_kv = self.self_attention.keys_values(y_BxTxE)
        cross_kv = self.encoder_decoder_attention.keys_values(encoded_BxSxE)
        biases = self_bias, cross_bias
        return self._blocks(x_BxTxE, y_BxTxE, self_kv, cross_kv, *biases, enable_dropout)

    def start_cache(self, encoded_BxSxE, max_decode_length: int) -> LayerCache:
        """The encoder's keys and values, and room for `max_decode_length` of the decoder's."""
        cfg = self.config
        shape = (encoded_BxSxE.shape[0], cfg.num_heads, max_decode_length, cfg.head_dim)
        zeros_BxHxCxD = jnp.zeros(shape, cfg.dtype)
        cross_kv = self.encoder_decoder_attention.keys_values(encoded_BxSxE)
        return LayerCache(zeros_BxHxCxD, zeros_BxHxCxD, *cross_kv)

    def step(self, x_Bx1xE, cache: LayerCache, index, self_bias_1xHx1xC, cross_bias_Bx1x1xS):
        """The layer at position `index`: (B, 1, E) and the cache with that position written."""
        y_Bx1xE = self.pre_self_attention_layer_norm(x_Bx1xE)
        key_BxHx1xD, value_BxHx1xD = self.self_attention.keys_values(y_Bx1xE)
        write = jax.lax.dynamic_update_slice_in_dim
        cache = cache.replace(
            self_key_BxHxCxD=write(cache.self_key_BxHxCxD, key_BxHx1xD, index, 2),
            self_value_BxHxCxD=write(cache.self_value_BxHxCxD, value_BxHx1xD, index, 2),
        )
        self_kv = cache.self_key_BxHxCxD, cache.self_value_BxHxCxD
        cross_kv = cache.cross_key_BxHxSxD, cache.cross_value_BxHxSxD
        biases = self_bias_1xHx1xC, cross_bias_Bx1x1xS
        return self._blocks(x_Bx1xE, y_Bx1xE, self_kv, cross_kv, *biases, False), cache

    def _blocks(self, x_BxTxE, y_BxTxE, self_kv, cross_kv, self_bias, cross_bias, enable_dropout):
        y_BxTxE = self.self_attention(y_BxTxE, self_kv, self_bias, enable_dropout)
        x_BxTxE += self.dropout(y_BxTxE, enable_dropout)
        y_BxTxE = self.pre_cross_attention_layer_norm(x_BxTxE)
        y_BxTxE = self.encoder_decoder_attention(y_BxTxE, cross_kv, cross_bias, enable_dropout)
        x_BxTxE += self.dropout(y_BxTxE, enable_dropout)
        y_BxTxE = self.mlp(self.pre_mlp_layer_norm(x_BxTxE), enable_dropout)
        return x_BxTxE + self.dropout(y_BxTxE, enable_dropout)


class Encoder(nn.Module):
    """The encoder's layers and final norm, over embedded tokens."""

    config: T5Config

    def setup(self):
        cfg = self.config
        self.relpos_bias = RelativePositionBias(cfg, bidirectional=True)
        self.layers = stack.make(EncoderLayer, cfg, cfg.num_encoder_layers)
        self.encoder_norm = LayerNorm(cfg)
        self.input_dropout = Dropout(cfg.dropout_rate)
        # T5X shares the encoder's last dropout along no axis, unlike every other.
        self.output_dropout = Dropout(cfg.dropout_rate, shared_axis=None)

    def __call__(self, x_BxSxE, mask, enable_dropout: bool):
        """(B, S, E) from embedded tokens; `mask` (bool) broadcasts to (B, 1, S, S)."""
        length = x_BxSxE.shape[1]
        bias = masked_bias(self.relpos_bias(length, length), additive_mask(mask, self.config.dtype))
        x_BxSxE = self.input_dropout(x_BxSxE, enable_dropout)

        def one(layer, x_BxSxE):
            return layer(x_BxSxE, bias, enable_dropout), None

        cfg = self.config
        remat = stack.remat(one, cfg)
        x_BxSxE, _ = stack.run(self.layers, cfg, cfg.num_encoder_layers, remat, x_BxSxE)
        return self.output_dropout(self.encoder_norm(x_BxSxE), enable_dropout)


class Decoder(nn.Module):
    """The decoder's layers, final norm and (untied models) logits."""

    config: T5Config

    def setup(self):
        cfg = self.config
        self.relpos_bias = RelativePositionBias(cfg, bidirectional=False)
        self.layers = stack.make(DecoderLayer, cfg, cfg.num_decoder_layers)
        self.decoder_norm = LayerNorm(cfg)
        self.dropout = Dropout(cfg.dropout_rate)
        if not cfg.logits_via_embedding:
            init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
            self.logits_dense = Dense(cfg, cfg.vocab_size, ("embed", "vocab"), init, "float32")

    def __call__(self, x_BxTxE, encoded_BxSxE, self_mask, cross_mask, enable_dropout: bool):
        """Hidden states (B, T, E), normalised; the masks (bool) broadcast to (B, 1, T, T or S)."""
        cfg, length = self.config, x_BxTxE.shape[1]
        self_mask = additive_mask(self_mask, cfg.dtype)
        self_bias = masked_bias(self.relpos_bias(length, length), self_mask)
        cross_bias = additive_mask(cross_mask, cfg.dtype)
        x_BxTxE = self.dropout(x_BxTxE, enable_dropout)

        def one(layer, x_BxTxE):
            return layer(x_BxTxE, encoded_BxSxE, self_bias, cross_bias, enable_dropout), None

        one = stack.remat(one, cfg)
        x_BxTxE, _ = stack.run(self.layers, cfg, cfg.num_decoder_layers, one, x_BxTxE)
        return self.dropout(self.decoder_norm(x_BxTxE), enable_dropout)

    def logits(self, x_BxTxE):
        """Untied logits: float32 (B, T, V)."""
        return self.logits_dense(x_BxTxE)

    def start_cache(self, encoded_BxSxE, cross_mask_Bx1x1xS, length: int) -> DecodeCache:
        cfg = self.config

        def one(layer, carry):
            return carry, layer.start_cache(encoded_BxSxE, length)

        causal_CxC = additive_mask(_causal_mask(length), cfg.dtype)
        return DecodeCache(
            layers=stack.run(self.layers, cfg, cfg.num_decoder_layers, one, ())[1],
            self_bias_1xHxCxC=self.relpos_bias(length, length) + causal_CxC,
            cross_bias_Bx1x1xS=additive_mask(cross_mask_Bx1x1xS, cfg.dtype),
            index=jnp.zeros((), jnp.int32),
        )

    def step(self, x_Bx1xE, cache: DecodeCache):
        slice_bias = jax.lax.dynamic_slice_in_dim
        self_bias_1xHx1xC = slice_bias(cache.self_bias_1xHxCxC, cache.index, 1, axis=2)

        def one(layer, x_Bx1xE, layer_cache):
            return layer.step(
                x_Bx1xE, layer_cache, cache.index, self_bias_1xHx1xC, cache.cross_bias_Bx1x1xS
            )

        x_Bx1xE, layer_caches = stack.run(
            self.layers, self.config, self.config.num_decoder_layers, one, x_Bx1xE, cache.layers
        )
        cache = cache.replace(layers=layer_caches, index=cache.index + 1)
        return self.decoder_norm(x_Bx1xE), cache


class Transformer(nn.Module):
    """T5. Tokens are int32, 0 is padding, on the right. Dropout needs `rngs={'dropout': key}`."""

    config: T5Config

    def setup(self):
        self.token_embedder = Embed(self.config)
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    def __call__(
        self,
        encoder_input_tokens,
        decoder_input_tokens,
        decoder_target_tokens,
        encoder_segment_ids=None,
        decoder_segment_ids=None,
        encoder_positions=None,
        decoder_positions=None,
        *,
        enable_dropout: bool = True,
    ):
        """Logits of every decoder position, given the decoder inputs before it: float32 (B, T, V).

        At padding positions they mean nothing. Packed examples see their own segment only.

        Args:
          decoder_input_tokens: the targets shifted right, (B, T).
          decoder_target_tokens: which positions are padding, and no more.
          encoder_positions, decoder_positions: unused, as in T5X: differences are enough.
        """
        del encoder_positions, decoder_positions
        encoded_BxSxE = self.encode(encoder_input_tokens, encoder_segment_ids, enable_dropout)
        decoder = decoder_input_tokens, decoder_target_tokens
        segments = encoder_segment_ids, decoder_segment_ids
        return self.decode(encoded_BxSxE, encoder_input_tokens, *decoder, *segments, enable_dropout)

    def encode(self, encoder_input_tokens, encoder_segment_ids=None, enable_dropout: bool = True):
        """The encoder's output, (B, S, E) in the config's dtype."""
        mask = _key_mask(encoder_input_tokens)
        if encoder_segment_ids is not None:
            mask &= _same_segment(encoder_segment_ids, encoder_segment_ids)
        return self.encoder(self.token_embedder(encoder_input_tokens), mask, enable_dropout)

    def decode(
        self,
        encoded_BxSxE,
        encoder_input_tokens,
        decoder_input_tokens,
        decoder_target_tokens,
        encoder_segment_ids=None,
        decoder_segment_ids=None,
        enable_dropout: bool = True,
    ):
        """Logits (float32, B x T x V) from `encode`'s output; arguments as in `__call__`.

        Decoder segments without encoder segments are several targets of one input: each sees
        all of the input and nothing of the others.
        """
        cross_mask = _key_mask(encoder_input_tokens)
        self_mask = _key_mask(decoder_target_tokens) & _causal_mask(decoder_target_tokens.shape[1])
        if decoder_segment_ids is not None:
            self_mask &= _same_segment(decoder_segment_ids, decoder_segment_ids)
        if encoder_segment_ids is not None:
            if decoder_segment_ids is None:
                raise InputError("encoder_segment_ids came without decoder_segment_ids: give both")
            cross_mask &= _same_segment(decoder_segment_ids, encoder_segment_ids)
        x_BxTxE = self.token_embedder(decoder_input_tokens)
        x_BxTxE = self.decoder(x_BxTxE, encoded_BxSxE, self_mask, cross_mask, enable_dropout)
        return self._logits(x_BxTxE)

    def start_cache(self, encoded_BxSxE, encoder_input_tokens, max_decode_length: int):
        """A `DecodeCache` before the first token; the encoder's keys and values are made here."""
        cross_mask_Bx1x1xS = _key_mask(encoder_input_tokens)
        return self.decoder.start_cache(encoded_BxSxE, cross_mask_Bx1x1xS, max_decode_length)

    def decode_step(self, token_B, cache: DecodeCache):
        """Logits (float32, B x V) after `token_B` (int32, first 0), and the next cache."""
        x_Bx1xE, cache = self.decoder.step(self.token_embedder(token_B[:, None]), cache)
        return self._logits(x_Bx1xE)[:, 0], cache

    def _logits(self, x_BxTxE):
        tied = self.config.logits_via_embedding
        logits_BxTxV = (self.token_embedder if tied else self.decoder).logits(x_BxTxE)
        return nn.with_logical_constraint(logits_BxTxV, ("batch", "length", "vocab"))


def _decoder_axes(shape: tuple[int, int, int]) -> tuple[str | None, str, str]:
    """Where a decoder's residual stream of global `shape` (B, T, E) lies.

    With parameters' 'embed' over the data axis, each projection brings its weights together (of an
    (E, M) kernel 3 * E * M numbers a step) or moves the positions to them (2 * B * T * M), so that
    few positions move.
    """
    moving = (None, "length", "embed")
    num_rows, length, width = shape
    spec = nn.logical_to_mesh_axes(moving)
    return moving if spec[-1] == "data" and num_rows * length <= width else RESIDUAL_AXES


def _key_mask(tokens_BxK):
    """True at real tokens, to be attended to: bool (B, 1, 1, K)."""
    return (tokens_BxK > 0)[:, None, None, :]


def _same_segment(query_ids_BxQ, key_ids_BxK):
    """True where query and key belong to the same packed example: bool (B, 1, Q, K)."""
    return query_ids_BxQ[:, None, :, None] == key_ids_BxK[:, None, None, :]


def _causal_mask(length: int):
    """True where the key isn't after the query: bool (T, T)."""
    return jnp.tril(jnp.ones((length, length), bool))


def boxed_params(model: Transformer, key: jax.Array):
    """Fresh parameters in boxes that carry their logical axes."""
    tokens_1x1 = jnp.ones((1, 1), jnp.int32)
    variables = model.init(key, tokens_1x1, tokens_1x1, tokens_1x1, enable_dropout=False)
    return variables["params"]


def initial_params(model: Transformer, key: jax.Array):
    """Fresh parameters, as a plain tree of float32 arrays."""
    return nn.unbox(boxed_params(model, key))


def flat(tree) -> dict[str, Any]:
    """A tree of parameters as one dictionary, by path: 'encoder/encoder_norm/scale' -> leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
