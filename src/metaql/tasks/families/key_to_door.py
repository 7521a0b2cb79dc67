"""Dark Key-to-Door: first find a key that cannot be seen, then a door that cannot be seen either.

The task of Algorithm Distillation (Laskin et al. 2022, arXiv 2210.14215, appendix A). The agent sees its
cell and nothing else: whether it holds the key only the reward has told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metaql.errors import ConfigError
from metaql.tasks.families.base import TaskFamily, split_key
from metaql.tasks.families.grid import neighbours
from metaql.types import Outcome, PRNGKey, TaskSpec

_PARTS = {"train": (0, 1, 2, 3, 4, 5), "validation": (6,), "test": (7,)}
"""Ways from key to door that belong to each split: the difference of their numbers, less 1, modulo 8."""
_NUM_PARTS = 8


class Walker(NamedTuple):
    """Where an episode stands."""

    cell: Int[Array, ""]
    has_key: Bool[Array, ""]


class KeyToDoorTask(NamedTuple):
    """One room with its key and its door."""

    key: Int[Array, ""]
    """Cell, numbered row by row."""
    door: Int[Array, ""]
    moves: Int[Array, "S 4"]
    """Cell after left, down, right, up; action 4 stays."""
    horizon: Int[Array, ""]

    def spec(self, episodes: Int[Array, ""] | int) -> TaskSpec:
        """Numbered cells, five actions."""
        return TaskSpec(
            state_mask=jnp.ones(self.moves.shape[-2], bool),
            action_mask=jnp.ones(5, bool),
            horizon=self.horizon,
            episodes=jnp.asarray(episodes, jnp.int32),
        )

    def reset(self, key: PRNGKey) -> Walker:
        """Any cell, without the key."""
        cell = jax.random.randint(key, (), 0, self.moves.shape[-2])
        return Walker(cell.astype(jnp.int32), jnp.zeros((), bool))

    def step(self, key: PRNGKey, state: Walker, action: Int[Array, ""]) -> Outcome:
        """1 for the key, once; 1 for the door with the key, which ends the episode."""
        del key
        ahead = jnp.append(self.moves[state.cell], state.cell)
        cell = ahead[action].astype(jnp.int32)
        found = (cell == self.key) & ~state.has_key
        opened = (cell == self.door) & state.has_key
        reward: Float[Array, ""] = (found | opened).astype(jnp.float32)
        return Outcome(Walker(cell, state.has_key | found), reward, opened)

    def observe(self, state: Walker) -> Int[Array, ""]:
        """The cell alone."""
        return state.cell


class KeyToDoor(TaskFamily):
    """Rooms that differ in where key and door are; both pay 1, so 2 is the most an episode can return."""

    name: ClassVar[str] = "key_to_door"
    summary: ClassVar[str] = "9x9 room with a hidden key and a hidden door"
    baselines: ClassVar[Mapping[str, float]] = {"random": 0.27, "optimum": 2.0}

    size: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)

    def __init__(self, size: int = 9, *, horizon: int = 50) -> None:
        """Choose the room.

        Args:
            size: cells of a side.
            horizon: steps of an episode.

        Raises:
            ConfigError: an argument out of range.
        """
        if size < 3 or horizon < 1:
            raise ConfigError(
                "`key_to_door` needs size >= 3 and horizon >= 1.",
                f"Got size={size}, horizon={horizon}.",
            )
        self.size, self.horizon = size, horizon

    @property
    def columns(self) -> int:
        """States are cells."""
        return self.size

    def sample(self, key: PRNGKey, split: str) -> KeyToDoorTask:
        """Draw a key and another cell for the door; a split owns ways from one to the other."""
        cells = self.size**2
        key_part, key_place, key_door = jax.random.split(split_key(key, split), 3)
        part = jax.random.choice(key_part, jnp.asarray(_PARTS[split]))
        place = jax.random.randint(key_place, (), 0, cells)
        # Doors at distance part + 1, part + 9, ... (cells, row by row) from the key.
        rounds = (cells - 2 - part) // _NUM_PARTS + 1
        turn = jnp.floor(jax.random.uniform(key_door) * rounds).astype(jnp.int32)
        away = part + 1 + _NUM_PARTS * jnp.minimum(turn, rounds - 1)
        return KeyToDoorTask(
            key=place.astype(jnp.int32),
            door=((place + away) % cells).astype(jnp.int32),
            moves=neighbours(self.size, self.size),
            horizon=jnp.asarray(self.horizon, jnp.int32),
        )

    @classmethod
    def toy(cls) -> KeyToDoor:
        """4 by 4."""
        return cls(size=4, horizon=20)
