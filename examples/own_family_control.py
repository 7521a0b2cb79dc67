"""Smart control: rooms whose heating, losses and outdoor temperature are never told.

A controller that does not know its room overheats it or lets it freeze. Here a Q-network with a recurrent
memory is trained on many rooms; in one it has never seen it finds out within hours what the valve does. Who
knows the room is 0.5 degrees off on average; this training, half a minute, does not get that far.

Run it: ``python examples/own_family_control.py``
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

import metaql
from metaql.meta.lifetime import live
from metaql.tasks.families import split_key
from metaql.tasks.families.physics import spec_of
from metaql.types import Outcome, PRNGKey, TaskSpec

WANTED = 21.0
"""Degrees Celsius."""
VALVE = (0.0, 0.25, 0.5, 0.75, 1.0)
"""What the actions mean."""
HOURS = 24


class Room(NamedTuple):
    """One room; its constants are what the agent must find out."""

    power: jax.Array
    """Degrees per hour with the valve fully open; negative: the valve is mounted the wrong way round."""
    loss: jax.Array
    """Share of the difference to outdoors that is lost per hour."""
    outdoors: jax.Array
    horizon: jax.Array

    def spec(self, episodes: jax.Array | int) -> TaskSpec:
        """What the agent is told: the number of actions, hours and episodes."""
        return spec_of(self.horizon, len(VALVE), episodes)

    def reset(self, key: PRNGKey) -> jax.Array:
        """A morning between 14 and 22 degrees."""
        return jax.random.uniform(key, (), minval=14.0, maxval=22.0)

    def step(self, key: PRNGKey, state: jax.Array, action: jax.Array) -> Outcome:
        """An hour later; what counts is how far the temperature is from the wanted one."""
        open_share = jnp.asarray(VALVE)[action]
        heat = jnp.abs(self.power) * jnp.where(self.power > 0, open_share, 1.0 - open_share)
        drift = 0.2 * jax.random.normal(key)
        after = state + heat - self.loss * (state - self.outdoors) + drift
        return Outcome(after, -jnp.abs(after - WANTED), jnp.zeros((), bool))

    def observe(self, state: jax.Array) -> jax.Array:
        """The thermometer."""
        return state[None]


class Rooms(metaql.TaskFamily):
    """Rooms of every kind; splits draw from one continuum by keys of their own."""

    name: ClassVar[str] = "rooms"
    summary: ClassVar[str] = "heating of rooms that nobody has measured"

    def sample(self, key: PRNGKey, split: str) -> Room:
        """Draw one room."""
        power, loss, outdoors, sign = jax.random.uniform(split_key(key, split), (4,))
        return Room(
            power=(4.0 + 4.0 * power) * jnp.where(sign < 0.5, -1.0, 1.0),
            loss=0.05 + 0.1 * loss,
            outdoors=-5.0 + 15.0 * outdoors,
            horizon=jnp.asarray(HOURS),
        )

    @classmethod
    def toy(cls) -> Rooms:
        """The same."""
        return cls()


def main() -> None:
    """Train on rooms, then live three days in rooms that were held out."""
    family = Rooms()
    agent = metaql.meta_train(
        family,
        agent="recurrent",
        env_steps=1_000_000,
        lifetimes=64,
        episodes=(3, 3),
        segment_steps=72,
    )
    rooms = family.tasks(jax.random.key(1), 200, "test")
    keys = jax.random.split(jax.random.key(2), 200)
    lives = live(agent.learner, rooms, keys, episodes=3)
    print("degrees from the wanted temperature, mean over 200 rooms never seen")
    for day, total in enumerate(-lives.returns.mean(0) / HOURS, 1):
        print(f"day {day}: {total:.2f}")


if __name__ == "__main__":
    main()
