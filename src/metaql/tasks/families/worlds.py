"""Worlds: grids of every kind, for agents that must not rely on any of it.

Size, slip, holes and what falling costs, walls, mud, step cost, the goal's reward and place and the time
limit vary from task to task; the unit of reward too, if wanted. This is part of the prior that the
shipped agent for any finite task was trained on; no published map is drawn from it, since start and goal
lie anywhere and rewards are continuous.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metaql.errors import ConfigError
from metaql.tasks.families.base import Family, split_key
from metaql.tasks.families.grid import neighbours, reachable
from metaql.tasks.finite import FiniteTask
from metaql.types import PRNGKey

_SIDES = ((0, 1, 3), (1, 2, 0), (2, 3, 1), (3, 0, 2))
"""Each direction (left, down, right, up) with the two beside it."""


class Worlds(Family):
    """Random grids up to ``size`` by ``size``; tasks are padded to ``size ** 2`` states."""

    name: ClassVar[str] = "worlds"
    summary: ClassVar[str] = "grids whose slip, holes, costs, goals and limits all vary"
    baselines: ClassVar[Mapping[str, float]] = {"random": -0.68, "optimum": 0.383}

    size: int = eqx.field(static=True)
    scaled: bool = eqx.field(static=True)

    def __init__(self, size: int = 6, *, scaled: bool = False) -> None:
        """Choose the largest side.

        Args:
            size: cells of the largest side.
            scaled: the unit of reward varies too, from 0.1 to 100.

        Raises:
            ConfigError: fewer than 3 cells a side.
        """
        if size < 3:
            raise ConfigError("`worlds` needs size >= 3.", f"Got {size}.")
        self.size, self.scaled = size, scaled

    def sample(self, key: PRNGKey, split: str) -> FiniteTask:
        """Draw one world; its rewards are continuous, so no two draws agree."""
        key_facts, key_cells, key_places = jax.random.split(split_key(key, split), 3)
        facts = jax.random.uniform(key_facts, (10,))
        cells = self.size**2
        side = 3 + jnp.floor(facts[0] * (self.size - 2)).astype(jnp.int32)
        exists = jnp.arange(cells) < side * side
        lots = jax.random.uniform(key_cells, (3, cells))
        places = jnp.where(exists, jax.random.uniform(key_places, (cells,)), 2.0)
        start = jnp.argmin(places)
        density = 0.3 * facts[1]
        free = (jnp.arange(cells) == start) | ~exists
        hole = (lots[0] < density) & ~free
        wall = (lots[1] < 0.2 * facts[2]) & ~free & ~hole
        adjacent = jnp.minimum(neighbours(side, side, cells), cells - 1)
        within = reachable(adjacent, exists & ~hole & ~wall, start)
        # The goal is a cell that can be reached, by lot; a world without one has none but its costs.
        goal = jnp.argmin(jnp.where(within & (jnp.arange(cells) != start), places, 3.0))
        slip = jnp.where(facts[3] < 0.4, 0.0, 0.7 * (facts[3] - 0.4) / 0.6)
        moves = _moves(adjacent, exists & ~wall, slip)
        unit = 10.0 ** (3.0 * facts[9] - 1.0) if self.scaled else 1.0
        cost = jnp.where(facts[4] < 0.5, 0.0, 0.3 * (facts[4] - 0.5))
        fall = jnp.where(facts[5] < 0.5, 0.0, facts[5])
        mud = 0.3 * (lots[2] < 0.15 * facts[6])
        prize = 0.3 + 0.7 * facts[7]
        at_goal = jnp.arange(cells) == goal
        landed = jnp.where(at_goal, prize, -cost - mud - fall * hole)
        ends = (at_goal | hole).astype(jnp.float32)
        real = jnp.broadcast_to(exists[:, None, None], (cells, 4, cells))
        horizon = jnp.exp(jnp.log(4.0 * side) + facts[8] * jnp.log(5.0))
        return FiniteTask(
            transition=moves,
            reward=jnp.where(real, unit * landed, 0.0),
            termination=jnp.where(real, ends, 0.0),
            initial=jax.nn.one_hot(start, cells),
            horizon=horizon.astype(jnp.int32),
            reward_noise=jnp.zeros(()),
            reward_binary=jnp.zeros((), bool),
            state_mask=exists,
            action_mask=jnp.ones(4, bool),
        )

    @classmethod
    def toy(cls) -> Worlds:
        """Up to 4 by 4."""
        return cls(size=4)


def _moves(adjacent: Array, open_cells: Array, slip: Float[Array, ""]) -> Float[Array, "S 4 S"]:
    """Where each move leads: ahead, or by ``slip`` in all to either side; walls keep in place."""
    cells = adjacent.shape[0]
    here = jnp.arange(cells)[:, None]
    onto = jnp.where(open_cells[adjacent], adjacent, here)
    target = jax.nn.one_hot(onto, cells)
    chances = jnp.stack([1.0 - slip, slip / 2, slip / 2])
    return jnp.einsum("k,sakz->saz", chances, target[:, jnp.asarray(_SIDES)])
