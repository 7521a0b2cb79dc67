"""CartPole with hidden physics: the pole, and how strongly and which way an action pushes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metaql.tasks.families.base import split_key
from metaql.tasks.families.physics import PhysicsFamily, Range, banded, drawn, sign, spec_of
from metaql.types import Outcome, PRNGKey, TaskSpec

FORCE = Range(5.0, 15.0, 3.0, 20.0)
"""Newton; splits own bands of it."""
HALF_LENGTH = Range(0.25, 1.0, 0.15, 1.5)
"""Of the pole, in metres."""
MASS = Range(0.05, 0.5, 0.02, 0.8)
"""Of the pole, in kilograms."""
_GRAVITY, _CART_MASS, _SECONDS = 9.8, 1.0, 0.02
_FARTHEST, _STEEPEST = 2.4, math.radians(12.0)


class CartPoleTask(NamedTuple):
    """One cart with its pole; equations of Gymnasium's CartPole-v1 (Barto, Sutton & Anderson 1983)."""

    force: Float[Array, ""]
    """Newton by which action 1 pushes to the right; negative: to the left."""
    half_length: Float[Array, ""]
    mass: Float[Array, ""]
    horizon: Int[Array, ""]

    def spec(self, episodes: Int[Array, ""] | int) -> TaskSpec:
        """Two actions; observations are vectors."""
        return spec_of(self.horizon, 2, episodes)

    def reset(self, key: PRNGKey) -> Float[Array, " 4"]:
        """Nearly upright and at rest: position, speed, angle, angular speed."""
        return jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)

    def step(self, key: PRNGKey, state: Float[Array, " 4"], action: Int[Array, ""]) -> Outcome:
        """One Euler step; 1 for every step, the last one included."""
        del key
        _, speed, angle, turning = state
        push = jnp.where(action == 1, self.force, -self.force)
        total, lever = self.mass + _CART_MASS, self.mass * self.half_length
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        pull = (push + lever * turning**2 * sine) / total
        inertia = self.half_length * (4.0 / 3.0 - self.mass * cosine**2 / total)
        bend = (_GRAVITY * sine - cosine * pull) / inertia
        thrust = pull - lever * bend * cosine / total
        rates = jnp.stack([speed, thrust, turning, bend])
        after = state + _SECONDS * rates
        fallen = (jnp.abs(after[0]) > _FARTHEST) | (jnp.abs(after[2]) > _STEEPEST)
        return Outcome(after, jnp.ones(()), fallen)

    def observe(self, state: Float[Array, " 4"]) -> Float[Array, " 4"]:
        """All but the physics is seen."""
        return state


class CartPole(PhysicsFamily):
    """Carts that are pushed by 5 to 15 N, half of them the wrong way round, under poles of 0.5 to 2 m."""

    name: ClassVar[str] = "cart_pole"
    summary: ClassVar[str] = "CartPole-v1 with hidden pole, and force of hidden size and sign"
    baselines: ClassVar[Mapping[str, float]] = {"random": 22.9}

    @property
    def environment(self) -> str:
        """Gymnasium's own."""
        return "CartPole-v1"

    def sample(self, key: PRNGKey, split: str) -> CartPoleTask:
        """Draw one cart."""
        key_force, key_sign, key_length, key_mass = jax.random.split(split_key(key, split), 4)
        return CartPoleTask(
            force=sign(key_sign) * banded(key_force, FORCE, split, self.beyond),
            half_length=drawn(key_length, HALF_LENGTH, self.beyond),
            mass=drawn(key_mass, MASS, self.beyond),
            horizon=jnp.asarray(self.horizon, jnp.int32),
        )
