"""Bandits: one state, several arms, nothing to plan and everything to explore."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metaql.errors import ConfigError, unknown_name
from metaql.tasks.families.base import Family, split_key
from metaql.tasks.finite import FiniteTask
from metaql.types import PRNGKey

KINDS = ("bernoulli", "normal", "deceptive", "tastes")
DECEPTIVE_REWARD = 0.5
"""What the first arm of a deceptive bandit always pays: more than most others do."""
DECEPTIVE_NOISE = math.sqrt(0.5)
"""Standard deviation of the noise on its other arms."""


class Bandit(Family):
    """Arms that pay 1 with a probability uniform in [0, 1], or normal rewards, or items for users.

    An episode is ``horizon`` pulls. The Bernoulli bandit is the one of RL2 (Duan et al. 2016,
    arXiv 1611.02779, section 3.1); the deceptive one that of First-Explore (Norman & Clune 2023,
    arXiv 2307.02276): a sure reward that is worth forgoing for a while.
    """

    name: ClassVar[str] = "bandit"
    summary: ClassVar[str] = "one state, several arms: exploration and nothing else"
    baselines: ClassVar[Mapping[str, float]] = {"random": 5.0, "optimum": 8.33}

    arms: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    kind: str = eqx.field(static=True)

    def __init__(
        self,
        arms: int = 5,
        *,
        horizon: int = 10,
        kind: Literal["bernoulli", "normal", "deceptive", "tastes"] = "bernoulli",
    ) -> None:
        """Choose the arms.

        Args:
            arms: number of actions, at least 2.
            horizon: pulls per episode.
            kind: ``"bernoulli"`` (success probability uniform in [0, 1]), ``"normal"`` (means
                Normal(0, 1), noise of standard deviation 1), ``"deceptive"`` (the same with
                noise of variance 1/2, but the first arm always pays 0.5) or ``"tastes"`` (as
                normal, but arms are items around a circle, and a task is a user with two tastes u ~
                Normal(0, 1): item k of K is worth ``u_1 cos(2 pi k / K) + u_2 sin(2 pi k / K)``; one
                item tells of its neighbours and of those across).

        Raises:
            UnknownNameError: no such kind.
            ConfigError: an argument out of range.
        """
        if kind not in KINDS:
            raise unknown_name("`kind`", kind, KINDS)
        if arms < 2 or horizon < 1:
            raise ConfigError(
                "`bandit` needs arms >= 2 and horizon >= 1.", f"Got arms={arms}, horizon={horizon}."
            )
        self.arms, self.horizon, self.kind = arms, horizon, kind

    def sample(self, key: PRNGKey, split: str) -> FiniteTask:
        """Draw the arms; their means are continuous, so no two draws agree."""
        key = split_key(key, split)
        shape = (1, self.arms, 1)
        binary = self.kind == "bernoulli"
        if self.kind == "tastes":
            means = (_items(self.arms) @ jax.random.normal(key, (2, 1)))[None]
        else:
            means = (jax.random.uniform if binary else jax.random.normal)(key, shape)
        noise = jnp.asarray(0.0 if binary else 1.0, jnp.float32)
        if self.kind == "deceptive":
            means = means.at[:, 0].set(DECEPTIVE_REWARD)
            noise = jnp.full((1, self.arms), DECEPTIVE_NOISE).at[:, 0].set(0.0)
        return FiniteTask(
            transition=jnp.ones(shape),
            reward=means,
            termination=jnp.zeros(shape),
            initial=jnp.ones(1),
            horizon=jnp.asarray(self.horizon, jnp.int32),
            reward_noise=noise,
            reward_binary=jnp.asarray(binary),
            state_mask=jnp.ones(1, bool),
            action_mask=jnp.ones(self.arms, bool),
        )

    @classmethod
    def toy(cls) -> Bandit:
        """Two arms, five pulls."""
        return cls(arms=2, horizon=5)


def _items(number: int) -> Float[Array, "A 2"]:
    """Where items lie on the circle, ``[A, 2]``."""
    angle = 2.0 * jnp.pi * jnp.arange(number) / number
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
