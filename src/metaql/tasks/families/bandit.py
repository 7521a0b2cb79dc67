"""Bandits: one state, several arms, nothing to plan and everything to explore."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp

from metaql.errors import ConfigError, unknown_name
from metaql.tasks.families.base import Family, split_key
from metaql.tasks.finite import FiniteTask
from metaql.types import PRNGKey

KINDS = ("bernoulli", "normal")


class Bandit(Family):
    """Arms that pay 1 with a probability uniform in [0, 1], or normal rewards of unit noise.

    An episode is ``horizon`` pulls. The Bernoulli bandit is the one of RL2 (Duan et al. 2016,
    arXiv 1611.02779, section 3.1).
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
        kind: Literal["bernoulli", "normal"] = "bernoulli",
    ) -> None:
        """Choose the arms.

        Args:
            arms: number of actions, at least 2.
            horizon: pulls per episode.
            kind: ``"bernoulli"`` (success probability uniform in [0, 1]) or ``"normal"``
                (means Normal(0, 1), noise of standard deviation 1).

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
        binary = self.kind == "bernoulli"
        draw = jax.random.uniform if binary else jax.random.normal
        shape = (1, self.arms, 1)
        return FiniteTask(
            transition=jnp.ones(shape),
            reward=draw(key, shape),
            termination=jnp.zeros(shape),
            initial=jnp.ones(1),
            horizon=jnp.asarray(self.horizon, jnp.int32),
            reward_noise=jnp.asarray(0.0 if binary else 1.0, jnp.float32),
            reward_binary=jnp.asarray(binary),
            state_mask=jnp.ones(1, bool),
            action_mask=jnp.ones(self.arms, bool),
        )

    @classmethod
    def toy(cls) -> Bandit:
        """Two arms, five pulls."""
        return cls(arms=2, horizon=5)
