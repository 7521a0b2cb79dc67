"""Acrobot with hidden physics: the masses of its links, and which way a torque turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from metaql.tasks.families.base import split_key
from metaql.tasks.families.physics import PhysicsFamily, Range, banded, drawn, sign, spec_of
from metaql.types import Outcome, PRNGKey, TaskSpec

UPPER = Range(0.7, 1.3, 0.5, 1.6)
"""Mass of the upper link, in kilograms."""
LOWER = Range(0.7, 1.3, 0.5, 1.6)
"""Mass of the lower link; splits own bands of it."""
_GRAVITY, _SECONDS, _LENGTH, _CENTRE, _INERTIA = 9.8, 0.2, 1.0, 0.5, 1.0
_FASTEST = (4.0 * jnp.pi, 9.0 * jnp.pi)


class AcrobotTask(NamedTuple):
    """Two links, driven at the joint between them; Gymnasium's Acrobot-v1 (Sutton & Barto 1998, 11.3)."""

    lower: Float[Array, ""]
    upper: Float[Array, ""]
    direction: Float[Array, ""]
    """1, or -1: torques turn the other way."""
    horizon: Int[Array, ""]

    def spec(self, episodes: Int[Array, ""] | int) -> TaskSpec:
        """Three actions, torques of -1, 0 and 1; observations are vectors."""
        return spec_of(self.horizon, 3, episodes)

    def reset(self, key: PRNGKey) -> Float[Array, " 4"]:
        """Hanging nearly still: two angles, two angular speeds."""
        return jax.random.uniform(key, (4,), minval=-0.1, maxval=0.1)

    def step(self, key: PRNGKey, state: Float[Array, " 4"], action: Int[Array, ""]) -> Outcome:
        """One step of Runge and Kutta; -1 until the tip is a link's length above the joint."""
        del key
        torque = self.direction * (action - 1.0)

        def rates(at: Float[Array, " 4"]) -> Float[Array, " 4"]:
            return self._rates(at, torque)

        first = rates(state)
        second = rates(state + 0.5 * _SECONDS * first)
        third = rates(state + 0.5 * _SECONDS * second)
        fourth = rates(state + _SECONDS * third)
        moved = state + _SECONDS / 6.0 * (first + 2.0 * second + 2.0 * third + fourth)
        angles = jnp.mod(moved[:2] + jnp.pi, 2.0 * jnp.pi) - jnp.pi
        bounds = jnp.asarray(_FASTEST)
        after = jnp.concatenate([angles, jnp.clip(moved[2:], -bounds, bounds)])
        up = -jnp.cos(after[0]) - jnp.cos(after[0] + after[1]) > 1.0
        return Outcome(after, jnp.where(up, 0.0, -1.0), up)

    def _rates(self, state: Float[Array, " 4"], torque: Float[Array, ""]) -> Float[Array, " 4"]:
        """Equations of motion of the book: angular speeds and accelerations."""
        first, second, speed, bend = state
        m1, m2 = self.upper, self.lower
        cosine, sine = jnp.cos(second), jnp.sin(second)
        both = m2 * (_LENGTH**2 + _CENTRE**2 + 2.0 * _LENGTH * _CENTRE * cosine)
        d1 = m1 * _CENTRE**2 + both + 2.0 * _INERTIA
        d2 = m2 * (_CENTRE**2 + _LENGTH * _CENTRE * cosine) + _INERTIA
        phi2 = m2 * _CENTRE * _GRAVITY * jnp.cos(first + second - jnp.pi / 2.0)
        swing = m2 * _LENGTH * _CENTRE * sine
        fall = (m1 * _CENTRE + m2 * _LENGTH) * _GRAVITY * jnp.cos(first - jnp.pi / 2.0)
        phi1 = -swing * bend**2 - 2.0 * swing * bend * speed + fall + phi2
        over = m2 * _CENTRE**2 + _INERTIA - d2**2 / d1
        second_rate = (torque + d2 / d1 * phi1 - swing * speed**2 - phi2) / over
        first_rate = -(d2 * second_rate + phi1) / d1
        return jnp.stack([speed, bend, first_rate, second_rate])

    def observe(self, state: Float[Array, " 4"]) -> Float[Array, " 6"]:
        """Cosine and sine of both angles, and the speeds."""
        angles = (jnp.cos(state[0]), jnp.sin(state[0]), jnp.cos(state[1]), jnp.sin(state[1]))
        return jnp.stack([*angles, state[2], state[3]])


class Acrobot(PhysicsFamily):
    """Acrobots to be swung up, half of them with the torque the wrong way round."""

    name: ClassVar[str] = "acrobot"
    summary: ClassVar[str] = "Acrobot-v1 with links of hidden mass and hidden direction of torque"
    baselines: ClassVar[Mapping[str, float]] = {"random": -200.0}

    @property
    def environment(self) -> str:
        """Gymnasium's own."""
        return "Acrobot-v1"

    @property
    def suits(self) -> Mapping[str, Any]:
        """It pays only when the swing is over, after a hundred steps: nearer horizons see nothing."""
        return {"discount": 0.995, "episode_discount": 0.3}

    def sample(self, key: PRNGKey, split: str) -> AcrobotTask:
        """Draw one acrobot."""
        key_lower, key_upper, key_sign = jax.random.split(split_key(key, split), 3)
        return AcrobotTask(
            lower=banded(key_lower, LOWER, split, self.beyond),
            upper=drawn(key_upper, UPPER, self.beyond),
            direction=sign(key_sign),
            horizon=jnp.asarray(self.horizon, jnp.int32),
        )
