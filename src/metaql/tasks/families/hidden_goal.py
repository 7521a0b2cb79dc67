"""Grids that differ in nothing but a goal that cannot be seen: exploration, then going straight there.

`GridNavi` is the task of VariBAD (Zintgraf et al. 2020, arXiv 1910.08348, section 5.1), `DarkRoom` that of
Algorithm Distillation (Laskin et al. 2022, arXiv 2210.14215, appendix A). A split owns goals; the published
protocol of GridNavi trains and tests on the same 21, which is what ``shared`` is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from metaql.errors import ConfigError
from metaql.tasks.families.base import SPLITS, Family, split_key
from metaql.tasks.families.grid import neighbours
from metaql.tasks.finite import FiniteTask
from metaql.types import PRNGKey

_HELD_OUT = 7
"""One goal in so many is a validation goal, and another one a test goal."""


class HiddenGoal(Family):
    """A square grid with actions left, down, right, up and stay; being on the goal pays 1 a step."""

    shares_states: ClassVar[bool] = True

    size: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    shared: bool = eqx.field(static=True)
    start: int = eqx.field(static=True)
    step_cost: float = eqx.field(static=True)
    goals: Mapping[str, tuple[int, ...]] = eqx.field(static=True)
    """Goal cells of each split, numbered row by row."""

    def _set(self, size: int, horizon: int, shared: bool) -> None:
        if size < 3 or horizon < 1:
            raise ConfigError(
                f"`{self.name}` needs size >= 3 and horizon >= 1.",
                f"Got size={size}, horizon={horizon}.",
            )
        self.size, self.horizon, self.shared = size, horizon, shared

    @property
    def columns(self) -> int:
        """States are cells; with all goals in training there is nothing to carry over from cell to cell."""
        return 0 if self.shared else self.size

    def sample(self, key: PRNGKey, split: str) -> FiniteTask:
        """Draw one goal of the split."""
        key = split_key(key, split)
        goals = jnp.asarray(self.goals[split], jnp.int32)
        return self.task(goals[jax.random.randint(key, (), 0, len(goals))])

    def task(self, goal: Int[Array, ""] | int) -> FiniteTask:
        """The task with its goal in this cell."""
        cells = self.size**2
        stay = jnp.arange(cells)[:, None]
        target = jnp.concatenate([neighbours(self.size, self.size), stay], axis=1)
        arrival = jax.nn.one_hot(target, cells)
        pays = jnp.where(jnp.arange(cells) == goal, 1.0, -self.step_cost)
        return FiniteTask(
            transition=arrival,
            reward=jnp.broadcast_to(pays, arrival.shape),
            termination=jnp.zeros(arrival.shape),
            initial=jax.nn.one_hot(self.start, cells),
            horizon=jnp.asarray(self.horizon, jnp.int32),
            reward_noise=jnp.zeros(()),
            reward_binary=jnp.zeros((), bool),
            state_mask=jnp.ones(cells, bool),
            action_mask=jnp.ones(5, bool),
        )


class GridNavi(HiddenGoal):
    """VariBAD's grid: from a corner, not knowing which of 21 cells is the goal; -0.1 a step elsewhere."""

    name: ClassVar[str] = "grid_navi"
    summary: ClassVar[str] = "5x5 grid with a hidden goal: search, then go straight there"
    baselines: ClassVar[Mapping[str, float]] = {
        "random": -1.357,
        "non_adaptive": -1.357,
        "optimum": 10.233,
    }

    def __init__(self, size: int = 5, *, horizon: int = 15, shared: bool = False) -> None:
        """Choose the grid.

        Args:
            size: cells of a side.
            horizon: steps of an episode.
            shared: all splits draw from all goals, as published; else each has goals of its own.

        Raises:
            ConfigError: an argument out of range.
        """
        self._set(size, horizon, shared)
        self.start, self.step_cost = 0, 0.1
        near = (0, 1, size, size + 1)
        self.goals = _split([cell for cell in range(size**2) if cell not in near], shared)

    @classmethod
    def toy(cls) -> GridNavi:
        """Short episodes in 25 cells."""
        return cls(size=5, horizon=8)


class DarkRoom(HiddenGoal):
    """From the centre of a dark room, not knowing where the goal is; nothing is paid elsewhere."""

    name: ClassVar[str] = "dark_room"
    summary: ClassVar[str] = "9x9 room with a hidden goal, from its centre"
    baselines: ClassVar[Mapping[str, float]] = {
        "random": 0.170,
        "non_adaptive": 0.170,
        "optimum": 16.455,
    }

    def __init__(self, size: int = 9, *, horizon: int = 20, shared: bool = False) -> None:
        """Choose the room.

        Args:
            size: cells of a side.
            horizon: steps of an episode.
            shared: all splits draw from all goals; else each has goals of its own.

        Raises:
            ConfigError: an argument out of range.
        """
        self._set(size, horizon, shared)
        self.start, self.step_cost = (size // 2) * (size + 1), 0.0
        self.goals = _split([cell for cell in range(size**2) if cell != self.start], shared)

    @classmethod
    def toy(cls) -> DarkRoom:
        """Short episodes in 25 cells."""
        return cls(size=5, horizon=8)


def _split(cells: list[int], shared: bool) -> Mapping[str, tuple[int, ...]]:
    """Goals of each split, by a shuffle that never changes."""
    if shared:
        return dict.fromkeys(SPLITS, tuple(cells))
    order = np.random.default_rng(0).permutation(cells).tolist()
    few = max(len(order) // _HELD_OUT, 1)
    parts = (order[2 * few :], order[few : 2 * few], order[:few])
    return {split: tuple(sorted(part)) for split, part in zip(SPLITS, parts, strict=True)}
