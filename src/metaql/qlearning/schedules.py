"""Step sizes and exploration rates as functions of a count, and how an action is drawn.

A schedule is a callable module whose constants are arrays, so that learners can be vmapped over
them.
"""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metaql.tasks.exact import NEVER
from metaql.types import PRNGKey


def as_float(value: Any) -> Float[Array, "..."]:
    """A hyper-parameter as a float32 array: a leaf to vmap over, not a reason to compile again."""
    return jnp.asarray(value, jnp.float32)


class Schedule(eqx.Module):
    """A number that depends on how often something has happened."""

    @abc.abstractmethod
    def __call__(self, count: Int[Array, ""]) -> Float[Array, ""]:
        """The value at ``count``."""


class Constant(Schedule):
    """Always ``value``."""

    value: Float[Array, ""] = eqx.field(converter=as_float)

    def __call__(self, count: Int[Array, ""]) -> Float[Array, ""]:
        """``value``."""
        return self.value


class Harmonic(Schedule):
    """``(H + 1) / (H + n)`` for the n-th visit, n >= 1.

    ``H = 0`` is the sample average 1/n. With the episode's horizon as H it is the step size of
    Jin et al. 2018 (Is Q-learning provably efficient?, arXiv 1807.03765), which forgets what was
    learned from values that were still wrong.
    """

    horizon: Float[Array, ""] = eqx.field(converter=as_float, default=0.0)

    def __call__(self, count: Int[Array, ""]) -> Float[Array, ""]:
        """``(H + 1) / (H + count)``."""
        return (self.horizon + 1.0) / (self.horizon + jnp.maximum(count, 1))


class Decay(Schedule):
    """``start`` falling hyperbolically to ``end``: half of the way is done after ``half_life``."""

    start: Float[Array, ""] = eqx.field(converter=as_float, default=1.0)
    end: Float[Array, ""] = eqx.field(converter=as_float, default=0.0)
    half_life: Float[Array, ""] = eqx.field(converter=as_float, default=10.0)
    """Visits or episodes, whichever the learner counts."""

    def __call__(self, count: Int[Array, ""]) -> Float[Array, ""]:
        """``end + (start - end) * half_life / (half_life + count)``."""
        return self.end + (self.start - self.end) * self.half_life / (self.half_life + count)


def epsilon_greedy(
    key: PRNGKey,
    values: Float[Array, "*K A"],
    action_mask: Bool[Array, "*K A"],
    epsilon: Float[Array, ""] | float = 0.0,
) -> Int[Array, "*K"]:
    """Any existing action with probability ``epsilon``, else a best one; equals are drawn fairly.

    Every part of an action by itself. One vector of uniforms serves both: what is eligible differs, the draw
    among them does not.
    """
    *parts, num_actions = values.shape
    u = jax.random.uniform(key, (*parts, num_actions + 1))
    masked = jnp.where(action_mask, values, NEVER)
    explore = u[..., num_actions:] < epsilon
    eligible = action_mask & (explore | (masked >= masked.max(-1, keepdims=True)))
    return jnp.where(eligible, u[..., :num_actions], -1.0).argmax(-1).astype(jnp.int32)
