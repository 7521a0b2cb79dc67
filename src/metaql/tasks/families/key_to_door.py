"""Dark Key-to-Door: first find a key that cannot be seen, then a door that cannot be seen either.

The task of Algorithm Distillation (Laskin et al. 2022, arXiv 2210.14215, appendix A). The agent sees its
cell and nothing else: whether it holds the key only the reward has told.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metaql.errors import ConfigError
from metaql.tasks.families.base import TaskFamily, split_key
from metaql.tasks.families.grid import neighbours
from metaql.types import Outcome, PRNGKey, TaskSpec

_SHARES = {"train": 0.75, "validation": 0.125, "test": 0.125}
"""Share of all pairs of key and door that belong to each split."""


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


@functools.cache
def _pairs(cells: int) -> Mapping[str, Int[np.ndarray, " P"]]:
    """Pairs ``key * (cells - 1) + way`` of every split, by a shuffle that never changes.

    Any rule that can be seen (a direction, a distance) would be learned: where no door ever was nobody looks.
    """
    count = cells * (cells - 1)
    order = np.random.default_rng(0).permutation(count).astype(np.int32)
    bounds = np.cumsum([round(share * count) for share in _SHARES.values()])
    return dict(zip(_SHARES, np.split(order, bounds[:-1]), strict=True))


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
    def suits(self) -> Mapping[str, Any]:
        """Chosen on validation rooms, where the usual ones had 0.54 for 0.68 of 2 (without a chart)."""
        return {"episode_discount": 0.3, "epsilon": 0.05}

    @property
    def columns(self) -> int:
        """States are cells."""
        return self.size

    def sample(self, key: PRNGKey, split: str) -> KeyToDoorTask:
        """Draw a cell for the key and another one for the door; a split owns such pairs."""
        cells = self.size**2
        pairs = jnp.asarray(_pairs(cells)[split])
        place, away = jnp.divmod(jax.random.choice(split_key(key, split), pairs), cells - 1)
        return KeyToDoorTask(
            key=place,
            door=(place + away + 1) % cells,
            moves=neighbours(self.size, self.size),
            horizon=jnp.asarray(self.horizon, jnp.int32),
        )

    @classmethod
    def toy(cls) -> KeyToDoor:
        """4 by 4."""
        return cls(size=4, horizon=20)
