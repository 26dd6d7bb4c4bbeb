"""Optimisers and learning-rate schedules, under T5X's names and made of optax."""

import dataclasses
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import optax

from poison_t5x.core import errors, settings
from poison_t5x.model.stack import LAYERS_AXIS

Factor = Literal["constant", "linear_warmup", "linear_decay", "rsqrt_decay"]
Name = Literal["adamw", "adafactor"]
NAMES = typing.get_args(Name)


def _factors(setting: object, text: str) -> str:
    names = [name.strip() for name in text.split("*")]
    for name in names:
        settings.checked(setting, name, Factor)
    if "linear_decay" in names and len(names) > 1:
        raise errors.InputError(
            f"{setting}: linear_decay holds the base rate and the warm-up, so it stands alone; "
            f"found {text!r}"
        )
    return text


@dataclasses.dataclass(frozen=True)
class ScheduleConfig(settings.Settings):
    """A learning rate as a product of factors, as T5X writes it: 'constant * linear_warmup'.

    `constant` is base_learning_rate; `linear_warmup` rises to 1 over warmup_steps; `rsqrt_decay`
    divides by the root of max(step, warmup_steps); `linear_decay` is the base rate, warmed up and
    falling by decay_factor a step (None: to 0 at the last one), and stands alone.
    """

    factors: Annotated[str, settings.made_by("learning rate factors", _factors)] = "constant"
    base_learning_rate: settings.Positive = 1e-3
    warmup_steps: settings.Whole = 0
    decay_factor: settings.NotNegative | None = None

    @property
    def names(self) -> list[str]:
        return [name.strip() for name in self.factors.split("*")]


def learning_rate(config: ScheduleConfig, total_steps: int) -> Callable:
    """The schedule as a function of the step (from 0): float32, at least 1e-8 as in T5X."""
    base, warmup, decay = config.base_learning_rate, config.warmup_steps, config.decay_factor
    if decay is None:
        decay = 1.0 / max(total_steps - warmup, 1)

    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        warmed = jnp.minimum(1.0, step / warmup) if warmup else jnp.ones_like(step)
        values = {
            "constant": base,
            "linear_warmup": warmed,
            "linear_decay": base * jnp.minimum(warmed, 1.0 + decay * (warmup - step)),
            "rsqrt_decay": 1.0 / jnp.sqrt(jnp.maximum(step, max(warmup, 1))),
        }
        rate = jnp.ones_like(step)
        for name in config.names:
            rate *= values[name]
        return jnp.maximum(rate, 1e-8)

    return schedule


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(settings.Settings):
    """'adamw' (Loshchilov and Hutter, 2019), as in the paper, or 'adafactor' (Shazeer and Stern,
    2018), and their settings."""

    name: Name = "adafactor"
    # AdamW's.
    beta1: settings.Share = 0.9
    beta2: settings.Share = 0.999
    eps: settings.NotNegative = 1e-6
    weight_decay: settings.NotNegative = 0.0
    # Adafactor's: the second moment's exponent, clipping of updates by root mean square, and steps
    # relative to the parameter.
    decay_rate: settings.NotNegative = 0.8
    clipping_threshold: settings.Positive | None = 1.0
    multiply_by_parameter_scale: bool = True


def make(config: OptimizerConfig, schedule: Callable) -> optax.GradientTransformation:
    """The optimiser; its state and arithmetic are float32, whatever parameters are kept in."""
    if config.name == "adafactor":
        # Its factors, clipping and step sizes are a tensor's own, so a stack is N tensors.
        names = ("decay_rate", "clipping_threshold", "multiply_by_parameter_scale")
        fields = {name: getattr(config, name) for name in names}
        inner = per_layer(optax.adafactor(schedule, **fields))
    else:
        decay = config.weight_decay
        inner = optax.adamw(schedule, config.beta1, config.beta2, config.eps, weight_decay=decay)

    def cast(tree):
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)

    def update(gradients, state, params):
        return inner.update(cast(gradients), state, cast(params))

    return optax.GradientTransformation(lambda params: inner.init(cast(params)), update)


def per_layer(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner`, which treats each tensor by itself, mapped over the layers' axis of stacks.

    For a stack of N equal tensors it does what it would for N tensors, and its slots are theirs,
    stacked: Adafactor's row statistics (rows,) become (N, rows). `inner`'s state is a tree of
    counts, which all layers share, and of trees like the parameters'.
    """

    def mapped(function: Callable, trees: tuple, like: Any) -> Any:
        for side in ("encoder", "decoder"):
            axes = tuple(_axes(tree, side) for tree in trees)
            if jax.tree.leaves(axes):
                function = jax.vmap(function, axes, _axes(like, side))
        return function(*trees)

    def init(params):
        return mapped(inner.init, (params,), jax.eval_shape(inner.init, params))

    def update(gradients, state, params):
        return mapped(inner.update, (gradients, state, params), (gradients, state))

    return optax.GradientTransformation(init, update)


def _axes(tree: Any, side: str) -> Any:
    """`jax.vmap`'s axes over one side's layers: 0 of stacks, and of their slots; else None."""

    def axis(path, _):
        keys = {entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)}
        return 0 if keys >= {side, LAYERS_AXIS} else None

    return jax.tree_util.tree_map_with_path(axis, tree)
