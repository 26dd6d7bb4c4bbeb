"""The T5 encoder-decoder (arXiv:1910.10683), with T5X's parameter paths.

Its decoder takes whole sequences, or one token at a time from a cache (`start_cache`,
`decode_step`), an ordinary pytree that a loop carries.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from poison_t5x.core.errors import InputError
from poison_t5x.model import layers, stack
from poison_t5x.model.config import T5Config

RESIDUAL_AXES = ("batch", "length", "embed")
# Arrays of a batch that are the loss's and the metrics' alone.
NOT_MODEL_INPUTS = ("decoder_loss_weights", "is_poison")


@struct.dataclass
class DecodeCache:
    """State of one-token decoding; `index` (int32) counts the steps.

    A layer's keys and values are a pair of arrays: of self-attention so far, BxHxCxD, and of the
    encoder's output, BxHxSxD. There is a pair a layer or, scanned, one with all layers' stacked.
    """

    self_keys_values: Any
    cross_keys_values: Any
    self_bias_1xHxCxC: jax.Array
    cross_bias_Bx1x1xS: jax.Array
    index: jax.Array


class EncoderLayer(nn.Module):
    """Self-attention and MLP, each normalised before and added to what came in."""

    config: T5Config

    def setup(self):
        self.pre_attention_layer_norm = layers.LayerNorm(self.config)
        self.attention = layers.Attention(self.config)
        self.pre_mlp_layer_norm = layers.LayerNorm(self.config)
        self.mlp = layers.Mlp(self.config)
        self.dropout = layers.Dropout(self.config.dropout_rate)

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
        self.pre_self_attention_layer_norm = layers.LayerNorm(self.config)
        self.self_attention = layers.Attention(self.config)
        self.pre_cross_attention_layer_norm = layers.LayerNorm(self.config)
        self.encoder_decoder_attention = layers.Attention(self.config)
        self.pre_mlp_layer_norm = layers.LayerNorm(self.config)
        self.mlp = layers.Mlp(self.config)
        self.dropout = layers.Dropout(self.config.dropout_rate)

    def cross_keys_values(self, encoded_BxSxE):
        return self.encoder_decoder_attention.keys_values(encoded_BxSxE)

    def __call__(
        self,
        x_BxTxE,
        cross_kv,
        self_bias,
        cross_bias,
        enable_dropout=False,
        cached=None,
        index=None,
    ):
        """(B, T, E), and self-attention's keys and values: with `cached` ones, those with this one
        position's written at `index`."""
        if cached is None:
            x_BxTxE = nn.with_logical_constraint(x_BxTxE, _decoder_axes(x_BxTxE.shape))
        y_BxTxE = self.pre_self_attention_layer_norm(x_BxTxE)
        self_kv = self.self_attention.keys_values(y_BxTxE)
        if cached is not None:
            write = functools.partial(
                jax.lax.dynamic_update_slice_in_dim, start_index=index, axis=2
            )
            self_kv = tuple(map(write, cached, self_kv))
        y_BxTxE = self.self_attention(y_BxTxE, self_kv, self_bias, enable_dropout)
        x_BxTxE += self.dropout(y_BxTxE, enable_dropout)
        y_BxTxE = self.pre_cross_attention_layer_norm(x_BxTxE)
        y_BxTxE = self.encoder_decoder_attention(y_BxTxE, cross_kv, cross_bias, enable_dropout)
        x_BxTxE += self.dropout(y_BxTxE, enable_dropout)
        y_BxTxE = self.mlp(self.pre_mlp_layer_norm(x_BxTxE), enable_dropout)
        return x_BxTxE + self.dropout(y_BxTxE, enable_dropout), self_kv


class Encoder(nn.Module):
    """The encoder's layers and final norm, over embedded tokens."""

    config: T5Config

    def setup(self):
        cfg = self.config
        self.relpos_bias = layers.RelativePositionBias(cfg, bidirectional=True)
        self.layers = stack.make(EncoderLayer, cfg, cfg.num_encoder_layers)
        self.encoder_norm = layers.LayerNorm(cfg)
        self.input_dropout = layers.Dropout(cfg.dropout_rate)
        # T5X shares the encoder's last dropout along no axis, unlike every other.
        self.output_dropout = layers.Dropout(cfg.dropout_rate, shared_axis=None)

    def __call__(self, x_BxSxE, mask, enable_dropout: bool):
        """(B, S, E) from embedded tokens; `mask` (bool) broadcasts to (B, 1, S, S)."""
        cfg, length = self.config, x_BxSxE.shape[1]
        mask = layers.additive_mask(mask, cfg.dtype)
        bias = layers.masked_bias(self.relpos_bias(length, length), mask)
        x_BxSxE = self.input_dropout(x_BxSxE, enable_dropout)

        def one(layer, x_BxSxE):
            return layer(x_BxSxE, bias, enable_dropout), None

        x_BxSxE, _ = stack.run(self.layers, cfg, cfg.num_encoder_layers, one, x_BxSxE)
        return self.output_dropout(self.encoder_norm(x_BxSxE), enable_dropout)


class Decoder(nn.Module):
    """The decoder's layers, final norm and (untied models) logits."""

    config: T5Config

    def setup(self):
        cfg = self.config
        self.relpos_bias = layers.RelativePositionBias(cfg, bidirectional=False)
        self.layers = stack.make(DecoderLayer, cfg, cfg.num_decoder_layers)
        self.decoder_norm = layers.LayerNorm(cfg)
        self.dropout = layers.Dropout(cfg.dropout_rate)
        if not cfg.logits_via_embedding:
            init, axes = layers.scaled("fan_in", "truncated_normal"), ("embed", "vocab")
            self.logits_dense = layers.dense(cfg, cfg.vocab_size, axes, init, "float32")

    def __call__(self, x_BxTxE, encoded_BxSxE, self_mask, cross_mask, enable_dropout: bool):
        """Hidden states (B, T, E), normalised; the masks (bool) broadcast to (B, 1, T, T or S)."""
        cfg, length = self.config, x_BxTxE.shape[1]
        self_mask = layers.additive_mask(self_mask, cfg.dtype)
        self_bias = layers.masked_bias(self.relpos_bias(length, length), self_mask)
        biases = self_bias, layers.additive_mask(cross_mask, cfg.dtype)
        x_BxTxE = self.dropout(x_BxTxE, enable_dropout)

        def one(layer, x_BxTxE):
            cross_kv = layer.cross_keys_values(encoded_BxSxE)
            return layer(x_BxTxE, cross_kv, *biases, enable_dropout)[0], None

        x_BxTxE, _ = self._run(one, x_BxTxE)
        return self.dropout(self.decoder_norm(x_BxTxE), enable_dropout)

    def _run(self, function, x, *each):
        cfg = self.config
        return stack.run(self.layers, cfg, cfg.num_decoder_layers, function, x, *each)

    def start_cache(self, encoded_BxSxE, cross_mask_Bx1x1xS, length: int) -> DecodeCache:
        def one(layer, nothing):
            return nothing, layer.cross_keys_values(encoded_BxSxE)

        def room(array):
            return jnp.zeros((*array.shape[:-2], length, array.shape[-1]), array.dtype)

        _, cross_keys_values = self._run(one, ())
        causal_CxC = layers.additive_mask(_causal_mask(length), self.config.dtype)
        return DecodeCache(
            self_keys_values=jax.tree.map(room, cross_keys_values),
            cross_keys_values=cross_keys_values,
            self_bias_1xHxCxC=self.relpos_bias(length, length) + causal_CxC,
            cross_bias_Bx1x1xS=layers.additive_mask(cross_mask_Bx1x1xS, self.config.dtype),
            index=jnp.zeros((), jnp.int32),
        )

    def step(self, x_Bx1xE, cache: DecodeCache):
        own_bias = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=1, axis=2)
        biases = own_bias(cache.self_bias_1xHxCxC, cache.index), cache.cross_bias_Bx1x1xS

        def one(layer, x_Bx1xE, self_kv, cross_kv):
            return layer(x_Bx1xE, cross_kv, *biases, cached=self_kv, index=cache.index)

        each = cache.self_keys_values, cache.cross_keys_values
        x_Bx1xE, self_keys_values = self._run(one, x_Bx1xE, *each)
        cache = cache.replace(self_keys_values=self_keys_values, index=cache.index + 1)
        return self.decoder_norm(x_Bx1xE), cache


class Transformer(nn.Module):
    """T5. Tokens are int32, 0 is padding, on the right. Dropout needs `rngs={'dropout': key}`."""

    config: T5Config

    def setup(self):
        self.token_embedder = layers.Embed(self.config)
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
        """Logits of every decoder position, given the decoder inputs (the targets shifted right)
        before it: float32 (B, T, V); at padding they mean nothing.

        Targets only say what is padding. Packed examples see their own segment only; decoder
        segments without encoder segments are several targets of one input, all of which each sees.
        """
        del encoder_positions, decoder_positions  # as in T5X: differences are enough
        encoded_BxSxE = self.encode(encoder_input_tokens, encoder_segment_ids, enable_dropout)
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

    def encode(self, encoder_input_tokens, encoder_segment_ids=None, enable_dropout: bool = True):
        """The encoder's output, (B, S, E) in the config's dtype."""
        mask = _key_mask(encoder_input_tokens)
        if encoder_segment_ids is not None:
            mask &= _same_segment(encoder_segment_ids, encoder_segment_ids)
        return self.encoder(self.token_embedder(encoder_input_tokens), mask, enable_dropout)

    def start_cache(self, encoder_input_tokens, max_decode_length: int) -> DecodeCache:
        """The cache before the first token, with what the encoder reads in it."""
        encoded_BxSxE = self.encode(encoder_input_tokens, enable_dropout=False)
        mask_Bx1x1xS = _key_mask(encoder_input_tokens)
        return self.decoder.start_cache(encoded_BxSxE, mask_Bx1x1xS, max_decode_length)

    def decode_step(self, token_B, cache: DecodeCache):
        """Logits (float32, B x V) after `token_B` (int32, first 0), and the next cache."""
        x_Bx1xE, cache = self.decoder.step(self.token_embedder(token_B[:, None]), cache)
        return self._logits(x_Bx1xE)[:, 0], cache

    def _logits(self, x_BxTxE):
        if self.config.logits_via_embedding:
            logits_BxTxV = self.token_embedder.logits(x_BxTxE)
        else:
            logits_BxTxV = self.decoder.logits_dense(x_BxTxE)
        return nn.with_logical_constraint(logits_BxTxV, ("batch", "length", "vocab"))


def _decoder_axes(shape: tuple[int, int, int]) -> tuple[str | None, str, str]:
    """Where a decoder's residual stream of global `shape` (B, T, E) lies.

    With parameters' 'embed' over the data axis, each projection brings its weights together (3 E M
    numbers a step of an (E, M) kernel) or moves the positions to them (2 B T M): few of them move.
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


def batch_logits(model: Transformer, params: Any, batch: Mapping[str, jax.Array], key=None):
    """Logits of a batch under SeqIO's names, float32 (B, T, V); with dropout where it has a key."""
    inputs = {name: x for name, x in batch.items() if name not in NOT_MODEL_INPUTS}
    rngs = None if key is None else {"dropout": key}
    return model.apply({"params": params}, **inputs, enable_dropout=key is not None, rngs=rngs)


def split_rows(batch: Any, num_parts: int):
    """Arrays (B, …) as (parts, B / parts, …), every n-th row in a part: devices keep their own."""
    return jax.tree.map(lambda x: x.reshape(-1, num_parts, *x.shape[1:]).swapaxes(0, 1), batch)


def boxed_params(model: Transformer, key: jax.Array):
    """Fresh parameters in boxes that carry their logical axes."""
    tokens_1x1 = jnp.ones((1, 1), jnp.int32)
    return model.init(key, tokens_1x1, tokens_1x1, tokens_1x1, enable_dropout=False)["params"]


def initial_params(model: Transformer, key: jax.Array):
    """Fresh parameters, as a plain tree of float32 arrays."""
    return nn.unbox(boxed_params(model, key))


def flat(tree) -> dict[str, Any]:
    """A tree of parameters as one dictionary, by path: 'encoder/encoder_norm/scale' -> leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
