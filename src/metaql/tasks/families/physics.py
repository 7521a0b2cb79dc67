"""Classic control with hidden physics: what all of it has in common.

Each file holds the equations of one of Gymnasium's environments as pure functions of a task's own
constants, which the learner never sees. Splits own bands of one constant: between two bands of training
tasks lie one of validation and one of test tasks. ``beyond`` draws all tasks from outside the whole range
instead: extrapolation.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metaql.errors import ConfigError
from metaql.tasks.families.base import TaskFamily
from metaql.types import PRNGKey, TaskSpec

BANDS = {"train": (0, 1, 3, 4, 6, 7), "validation": (2,), "test": (5,)}
"""Eighths of the range of one constant that belong to each split."""
_NUM_BANDS = 8


class Range(NamedTuple):
    """Values that a constant has in training, and how far beyond them one may look."""

    low: float
    high: float
    lowest: float
    highest: float


def banded(key: PRNGKey, values: Range, split: str, beyond: bool) -> Float[Array, ""]:
    """Draw a constant from the bands of a split, or from outside the range, on either side."""
    if beyond:
        return outside(key, values)
    key_band, key_within = jax.random.split(key)
    band = jax.random.choice(key_band, jnp.asarray(BANDS[split]))
    share = (band + jax.random.uniform(key_within)) / _NUM_BANDS
    return values.low + share * (values.high - values.low)


def drawn(key: PRNGKey, values: Range, beyond: bool) -> Float[Array, ""]:
    """Draw a constant uniformly from its range, or from outside of it."""
    if beyond:
        return outside(key, values)
    return jax.random.uniform(key, minval=values.low, maxval=values.high)


def outside(key: PRNGKey, values: Range) -> Float[Array, ""]:
    """Draw uniformly from what lies outside the range."""
    below, above = values.low - values.lowest, values.highest - values.high
    at = jax.random.uniform(key) * (below + above)
    return jnp.where(at < below, values.lowest + at, values.high + at - below)


def sign(key: PRNGKey) -> Float[Array, ""]:
    """1 or -1."""
    return jnp.where(jax.random.bernoulli(key), 1.0, -1.0)


def spec_of(horizon: Int[Array, ""], actions: int, episodes: Int[Array, ""] | int) -> TaskSpec:
    """What a learner is told of a task whose observations are vectors."""
    return TaskSpec(
        state_mask=jnp.zeros(0, bool),
        action_mask=jnp.ones(actions, bool),
        horizon=horizon,
        episodes=jnp.asarray(episodes, jnp.int32),
    )


class PhysicsFamily(TaskFamily):
    """A family of such tasks; subclasses say how one is drawn.

    Raises:
        ConfigError: a horizon below 1.
    """

    horizon: int = eqx.field(static=True, default=200, kw_only=True)
    """Steps of an episode at most."""
    beyond: bool = eqx.field(static=True, default=False, kw_only=True)
    """Constants from outside their ranges: extrapolation."""

    def __check_init__(self) -> None:
        """Check the range, whatever the subclass."""
        if self.horizon < 1:
            raise ConfigError(f"`{self.name}` needs horizon >= 1.", f"Got {self.horizon}.")

    @classmethod
    def toy(cls) -> PhysicsFamily:
        """Short episodes."""
        return cls(horizon=20)
