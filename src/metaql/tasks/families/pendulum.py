"""Pendulum with hidden physics: gravity, mass, and which way a torque turns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metaql.tasks.families.base import split_key
from metaql.tasks.families.physics import PhysicsFamily, Range, banded, drawn, sign, spec_of
from metaql.types import Outcome, PRNGKey, TaskSpec

GRAVITY = Range(6.0, 14.0, 4.0, 16.0)
"""m/s^2; splits own bands of it."""
MASS = Range(0.6, 1.2, 0.4, 1.4)
"""Kilograms."""
SHARES = (-1.0, -0.5, 0.0, 0.5, 1.0)
"""What the actions mean, in shares of the greatest torque."""
_GREATEST = 2.0
_LENGTH, _SECONDS, _FASTEST = 1.0, 0.05, 8.0


class PendulumTask(NamedTuple):
    """One pendulum; equations of Gymnasium's Pendulum-v1, its torque in steps."""

    gravity: Float[Array, ""]
    mass: Float[Array, ""]
    direction: Float[Array, ""]
    """1, or -1: torques turn the other way."""
    horizon: Int[Array, ""]

    def spec(self, episodes: Int[Array, ""] | int) -> TaskSpec:
        """As many actions as `SHARES`; observations are vectors."""
        return spec_of(self.horizon, len(SHARES), episodes)

    def reset(self, key: PRNGKey) -> Float[Array, " 2"]:
        """Any angle from upright, and a speed up to 1 rad/s."""
        bounds = jnp.asarray([math.pi, 1.0])
        return jax.random.uniform(key, (2,), minval=-bounds, maxval=bounds)

    def step(self, key: PRNGKey, state: Float[Array, " 2"], action: Int[Array, ""]) -> Outcome:
        """One step; the reward is minus what angle, speed and torque cost."""
        del key
        angle, speed = state
        torque = self.direction * _GREATEST * jnp.asarray(SHARES)[action]
        folded = jnp.mod(angle + jnp.pi, 2.0 * jnp.pi) - jnp.pi
        cost = folded**2 + 0.1 * speed**2 + 0.001 * torque**2
        fall = 1.5 * self.gravity / _LENGTH * jnp.sin(angle)
        turn = 3.0 / (self.mass * _LENGTH**2) * torque
        later = jnp.clip(speed + (fall + turn) * _SECONDS, -_FASTEST, _FASTEST)
        return Outcome(jnp.stack([angle + later * _SECONDS, later]), -cost, jnp.zeros((), bool))

    def observe(self, state: Float[Array, " 2"]) -> Float[Array, " 3"]:
        """Cosine and sine of the angle, and the speed."""
        return jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]])


class Pendulum(PhysicsFamily):
    """Pendulums to be swung up and held, half of them with the torque the wrong way round."""

    name: ClassVar[str] = "pendulum"
    summary: ClassVar[str] = "Pendulum-v1 with hidden gravity, mass and direction of torque"
    baselines: ClassVar[Mapping[str, float]] = {"random": -1275.0}
    levels: ClassVar[tuple[float, ...] | None] = SHARES

    @property
    def environment(self) -> str:
        """Gymnasium's own."""
        return "Pendulum-v1"

    @property
    def suits(self) -> Mapping[str, Any]:
        """Gravity and mass show in what many small pushes change, together only."""
        return {"features": 16}

    def sample(self, key: PRNGKey, split: str) -> PendulumTask:
        """Draw one pendulum."""
        key_gravity, key_mass, key_sign = jax.random.split(split_key(key, split), 3)
        return PendulumTask(
            gravity=banded(key_gravity, GRAVITY, split, self.beyond),
            mass=drawn(key_mass, MASS, self.beyond),
            direction=sign(key_sign),
            horizon=jnp.asarray(self.horizon, jnp.int32),
        )
