"""Optimisers and learning-rate schedules, under T5X's names and made of optax."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from poison_t5x.core import checks, errors
from poison_t5x.train import layerwise

FACTORS = ("constant", "linear_warmup", "linear_decay", "rsqrt_decay")
NAMES = ("adamw", "adafactor")


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """A learning rate as a product of factors, as T5X writes it: 'constant * linear_warmup'.

    Attributes:
      factors: of FACTORS, joined by '*'. `constant` is base_learning_rate; `linear_warmup` rises to
        1 over warmup_steps; `rsqrt_decay` divides by the root of max(step, warmup_steps);
        `linear_decay` is base_learning_rate, warmed up and then falling by decay_factor a step, and
        stands alone.
      base_learning_rate: per optimiser step.
      warmup_steps: optimiser steps; 0 for none.
      decay_factor: None falls to 0 at the last step.
    """

    factors: str = "constant"
    base_learning_rate: float = 1e-3
    warmup_steps: int = 0
    decay_factor: float | None = None

    def __post_init__(self):
        if not isinstance(self.factors, str):
            raise errors.InputError(
                f"learning rate factors: expected a text, found {self.factors!r}"
            )
        names = self.names
        for name in names:
            if name not in FACTORS:
                raise errors.InputError(
                    f"learning rate factors: unknown {name!r}{errors.nearest(name, FACTORS)}; "
                    f"known are {', '.join(FACTORS)}"
                )
        if "linear_decay" in names and len(names) > 1:
            raise errors.InputError(
                "learning rate factors: linear_decay holds the base rate and the warm-up, so it "
                f"stands alone; found {self.factors!r}"
            )
        checks.number("base_learning_rate", self.base_learning_rate)
        if not self.base_learning_rate > 0:
            raise errors.InputError(
                f"base_learning_rate: expected more than 0, found {self.base_learning_rate!r}"
            )
        checks.whole_number("warmup_steps", self.warmup_steps, minimum=0)

    @property
    def names(self) -> list[str]:
        return [name.strip() for name in self.factors.split("*")]


def learning_rate(config: ScheduleConfig, total_steps: int) -> Callable:
    """The schedule as a function of the step (from 0), float32 to float32.

    Never less than 1e-8, as in T5X.
    """
    base, warmup = config.base_learning_rate, config.warmup_steps
    decay = config.decay_factor
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
class OptimizerConfig:
    """Which optimiser, and its settings; the defaults of AdamW are the paper's.

    Attributes:
      name: 'adamw' (Loshchilov and Hutter, 2019) or 'adafactor' (Shazeer and Stern, 2018).
      beta1, beta2, eps, weight_decay: of AdamW.
      decay_rate: Adafactor's second-moment exponent.
      clipping_threshold: Adafactor's update clipping, by root mean square.
      multiply_by_parameter_scale: Adafactor's relative step sizes.
    """

    name: str = "adafactor"
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    weight_decay: float = 0.0
    decay_rate: float = 0.8
    clipping_threshold: float | None = 1.0
    multiply_by_parameter_scale: bool = True

    def __post_init__(self):
        if self.name not in NAMES:
            raise errors.InputError(
                f"OPTIMIZER: expected one of {', '.join(NAMES)}, found {self.name!r}"
                + errors.nearest(str(self.name), NAMES)
            )
        checks.number("WEIGHT_DECAY", self.weight_decay, minimum=0)
        for name in ("beta1", "beta2", "eps", "decay_rate"):
            checks.number(name, getattr(self, name), minimum=0)


def make(config: OptimizerConfig, schedule: Callable) -> optax.GradientTransformation:
    """The optimiser, with its rate following `schedule`.

    Its state and its arithmetic are float32, whatever the parameters are kept in.
    """
    if config.name == "adafactor":
        # Its factors, clipping and step sizes are a tensor's own, so a stack is N tensors.
        return _in_float32(
            layerwise.per_layer(
                optax.adafactor(
                    schedule,
                    decay_rate=config.decay_rate,
                    clipping_threshold=config.clipping_threshold,
                    multiply_by_parameter_scale=config.multiply_by_parameter_scale,
                )
            )
        )
    return _in_float32(
        optax.adamw(
            schedule,
            b1=config.beta1,
            b2=config.beta2,
            eps=config.eps,
            weight_decay=config.weight_decay,
        )
    )


def _in_float32(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner` over float32 copies of what it is given."""

    def cast(tree):
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)

    def update(gradients, state, params):
        return inner.update(cast(gradients), state, cast(params))

    return optax.GradientTransformation(lambda params: inner.init(cast(params)), update)
