"""Adaptation by gradient steps: off-policy, on the new task's lifetimes and on replayed ones that are alike.

Meta-Q-Learning (Fakoor et al. 2020, arXiv 1910.00125), its objective from the paper alone: the loss on the
new task, plus that on the replay weighted by `metaql.meta.propensity`, plus a proximal term that holds the
weights to those meta-trained, the more so the less of the replay is alike. The paper takes the two losses one
after the other; here every step has both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from metaql.errors import ConfigError
from metaql.meta.propensity import propensity
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.recurrent_step import split_learner
from metaql.meta.replay import Lifetimes, embeddings, replay_loss
from metaql.policy.recurrentq import RecurrentQ
from metaql.types import PRNGKey

_EVERY = 10
"""One step in so many enters the regression."""


@dataclass(frozen=True, kw_only=True)
class GradientSteps:
    """How to adapt weights to one task."""

    steps: int = 30
    """Gradient steps after every lifetime."""
    learning_rate: float = 3e-4
    """Of Adam."""
    batch: int = 8
    """Replayed lifetimes in every step, drawn by their weights; 0: none."""
    proximal: float = 1.0
    """Weight of the squared distance to the weights meta-trained, times 1 less the effective sample size."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ConfigError: a value out of range.
        """
        for name in ("steps", "batch", "proximal"):
            if getattr(self, name) < 0:
                raise ConfigError(f"`{name}` must not be negative.", f"Got {getattr(self, name)}.")
        if self.learning_rate <= 0:
            raise ConfigError("`learning_rate` must be above 0.", f"Got {self.learning_rate}.")


class Alike(NamedTuple):
    """How much of the replay is like the new task."""

    weight: Float[Array, " M"]
    """Of every replayed lifetime."""
    effective: Float[Array, ""]
    """Effective sample size over the number of steps; 0 without a replay."""


def alike(learner: RecurrentQ, own: Lifetimes, replay: Lifetimes) -> Alike:
    """Weigh replayed lifetimes by the embeddings that they and the new task's lead to."""

    def features(lives: Lifetimes) -> Float[Array, "N T/10 H"]:
        return jax.vmap(lambda life: embeddings(learner, life))(lives)[:, _EVERY - 1 :: _EVERY]

    new, old = features(own), features(replay)
    size = new.shape[-1]
    alive, lived = (
        lives.alive[:, _EVERY - 1 :: _EVERY].astype(jnp.float32) for lives in (own, replay)
    )
    rows = new.reshape(-1, size), old.reshape(-1, size)
    found = propensity(*rows, alive.reshape(-1), lived.reshape(-1))
    weight = found.weight.reshape(lived.shape).sum(1) / jnp.maximum(lived.sum(1), 1.0)
    return Alike(weight, found.effective)


def adapted_weights(
    learner: RecurrentQ,
    own: Lifetimes,
    replay: Lifetimes | None,
    key: PRNGKey,
    config: RecurrentConfig,
    how: GradientSteps,
) -> tuple[RecurrentQ, Float[Array, ""]]:
    """Weights after the gradient steps, and the effective sample size.

    Args:
        learner: as meta-trained.
        own: lifetimes of the new task, ``[m, ...]``.
        replay: lifetimes of training tasks, ``[M, ...]``; None: the new task's alone.
        key: of the replayed lifetimes drawn.
        config: discounts and trace of the returns.
        how: how many steps, and how far.
    """
    weights, rest = split_learner(learner)
    used = replay if how.batch else None
    weighed = None if used is None else alike(learner, own, used)
    effective = jnp.zeros(()) if weighed is None else weighed.effective
    pull, tool = how.proximal * (1.0 - effective), optax.adam(how.learning_rate)

    def loss_of(now: RecurrentQ, key: PRNGKey) -> Float[Array, ""]:
        whole = eqx.combine(now, rest)
        loss = replay_loss(whole, own, config)
        if used is not None and weighed is not None:
            chosen: Int[Array, " B"] = jax.random.categorical(
                key, jnp.log(weighed.weight + 1e-9), shape=(how.batch,)
            )
            loss = loss + replay_loss(whole, jax.tree.map(lambda x: x[chosen], used), config)
        apart = jax.tree.map(lambda a, b: ((a - b) ** 2).sum(), now, weights)
        return loss + 0.5 * pull * jax.tree.reduce(jnp.add, apart)

    def step(carry: tuple[Any, Any], key: PRNGKey) -> tuple[tuple[Any, Any], None]:
        now, state = carry
        change, state = tool.update(jax.grad(loss_of)(now, key), state, now)
        return (eqx.apply_updates(now, change), state), None

    begin = (weights, tool.init(cast(Any, weights)))
    (later, _), _ = jax.lax.scan(step, begin, jax.random.split(key, how.steps))
    return eqx.combine(later, rest), effective
