"""Navigation: grids of different sizes with walls, holes, slip, goals and step costs.

A split owns layouts, not only draws: a hash of where every move leads decides which split a layout
belongs to, so that no task is ever seen in two of them, however small the grids.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from metaql.errors import ConfigError
from metaql.tasks.families.base import SPLITS, Family, split_key
from metaql.tasks.families.grid import neighbours, reachable
from metaql.tasks.finite import FiniteTask
from metaql.types import PRNGKey

FREE, WALL, HOLE, GOAL, LESSER_GOAL, START = range(6)
"""Kinds of cells."""
STEPS_PER_CELL = 4
"""Default episode: this many steps for every cell of the grid (100 for 5x5)."""
_LAST_BUCKET = {"train": 4, "validation": 5, "test": 7}
_NUM_BUCKETS = 8


class Layout(eqx.Module):
    """Where things are."""

    rows: Int[Array, ""]
    cols: Int[Array, ""]
    kind: Int[Array, " S"]
    """What each cell is, row by row; `FREE` beyond ``rows * cols``."""
    sends_back: Bool[Array, ""]
    """Holes put you back at the start instead of ending the episode."""


class Rules(eqx.Module):
    """What happens there (scalars)."""

    slip: Float[Array, ""]
    """Probability of moving to either side of the asked direction (half each)."""
    step_cost: Float[Array, ""]
    penalty: Float[Array, ""]
    """Paid on falling into a hole."""
    lesser: Float[Array, ""]
    """Reward of the lesser goal; the goal pays 1."""


class Navigation(Family):
    """Grid worlds that differ in everything; the goal can always be reached from the start."""

    name: ClassVar[str] = "navigation"
    summary: ClassVar[str] = "grids of many sizes: walls, holes, slip, goals and step costs differ"
    baselines: ClassVar[Mapping[str, float]] = {"random": 0.07, "optimum": 0.926}

    min_size: int = eqx.field(static=True)
    max_size: int = eqx.field(static=True)
    stay: bool = eqx.field(static=True)
    walls: float = eqx.field(static=True)
    holes: float = eqx.field(static=True)
    max_slip: float = eqx.field(static=True)
    max_step_cost: float = eqx.field(static=True)
    max_penalty: float = eqx.field(static=True)
    horizon: int | None = eqx.field(static=True)

    def __init__(
        self,
        min_size: int = 3,
        max_size: int = 5,
        *,
        stay: bool = True,
        walls: float = 0.3,
        holes: float = 0.3,
        max_slip: float = 2.0 / 3.0,
        max_step_cost: float = 0.05,
        max_penalty: float = 1.0,
        horizon: int | None = None,
    ) -> None:
        """Choose the ranges that tasks are drawn from.

        Args:
            min_size: fewest rows and columns, at least 2.
            max_size: most rows and columns, at least 3; tasks are padded to its square.
            stay: a fifth action that stays where it is.
            walls: largest share of walls; each task draws its own.
            holes: largest share of holes; each task draws its own; with walls at most 0.8.
            max_slip: largest probability of slipping to a side (2/3: as slippery as FrozenLake).
                Like costs and penalties it is drawn for half of the tasks and 0 for the others.
            max_step_cost: largest cost of a step.
            max_penalty: largest penalty for falling into a hole.
            horizon: steps per episode; default 4 for every cell of the task.

        Raises:
            ConfigError: an argument out of range.
        """
        if min_size < 2 or max_size < max(3, min_size) or (horizon is not None and horizon < 1):
            raise ConfigError(
                "`navigation` needs 2 <= min_size <= max_size, max_size >= 3 and horizon >= 1.",
                f"Got min_size={min_size}, max_size={max_size}, horizon={horizon}.",
            )
        if min(walls, holes, max_step_cost, max_penalty) < 0 or walls + holes > 0.8:
            raise ConfigError(
                "`navigation` needs shares and costs >= 0 and walls + holes <= 0.8.",
                f"Got walls={walls}, holes={holes}, max_step_cost={max_step_cost},"
                f" max_penalty={max_penalty}.",
            )
        if not 0 <= max_slip <= 1:
            raise ConfigError("`max_slip` is a probability in [0, 1].", f"Got {max_slip}.")
        self.min_size, self.max_size, self.stay = min_size, max_size, bool(stay)
        self.walls, self.holes, self.horizon = walls, holes, horizon
        self.max_slip, self.max_step_cost, self.max_penalty = max_slip, max_step_cost, max_penalty

    def sample(self, key: PRNGKey, split: str) -> FiniteTask:
        """Draw a layout of the split, then the rules."""
        key_layout, key_rules = jax.random.split(split_key(key, split))
        layout, rules = self.sample_layout(key_layout, split), self.draw_rules(key_rules)
        return grid_task(layout, rules, stay=self.stay, horizon=self.horizon)

    def sample_layout(self, key: PRNGKey, split: str) -> Layout:
        """Draw layouts until one belongs to the split and has a way to the goal."""

        def unfit(carry: tuple[PRNGKey, Layout]) -> Bool[Array, ""]:
            return ~(solvable(carry[1]) & in_split(carry[1], split))

        def redraw(carry: tuple[PRNGKey, Layout]) -> tuple[PRNGKey, Layout]:
            key_next, key_draw = jax.random.split(carry[0])
            return key_next, self.draw_layout(key_draw)

        zero = jnp.zeros((), jnp.int32)
        blank = Layout(zero, zero, jnp.zeros(self.max_size**2, jnp.int32), zero > 0)
        return jax.lax.while_loop(unfit, redraw, redraw((key, blank)))[1]

    def draw_layout(self, key: PRNGKey) -> Layout:
        """Draw a layout, solvable or not, of any split."""
        cells = self.max_size**2
        # One draw for everything: each call of the generator costs compile time.
        numbers = jax.random.uniform(key, (2 * cells + 6,))
        level, place, rest = jnp.split(numbers, [cells, 2 * cells])
        choices = self.max_size - self.min_size + 1
        rows, cols = self.min_size + jnp.floor(rest[:2] * choices).astype(jnp.int32)
        walls, holes = rest[2] * self.walls, rest[3] * self.holes
        has_lesser, sends_back = rest[4] < 0.5, rest[5] < 0.5
        real = jnp.arange(cells) < rows * cols
        kind = jnp.where(level < walls, WALL, jnp.where(level < walls + holes, HOLE, FREE))
        first = jax.lax.top_k(jnp.where(real, place, -1.0), 3)[1]
        third = jnp.where(has_lesser, LESSER_GOAL, kind[first[2]])
        kind = kind.at[first].set(jnp.stack([jnp.asarray(START), jnp.asarray(GOAL), third]))
        return Layout(rows, cols, jnp.where(real, kind, FREE).astype(jnp.int32), sends_back)

    def draw_rules(self, key: PRNGKey) -> Rules:
        """Draw what a step costs and where it leads."""
        numbers = jax.random.uniform(key, (7,))
        largest = jnp.asarray([self.max_slip, self.max_step_cost, self.max_penalty])
        slip, step_cost, penalty = jnp.where(numbers[3:6] < 0.5, largest * numbers[:3], 0.0)
        return Rules(slip, step_cost, penalty, lesser=0.1 + 0.5 * numbers[6])

    @classmethod
    def toy(cls) -> Navigation:
        """2x2 to 3x3 cells."""
        return cls(min_size=2, max_size=3)


def solvable(layout: Layout) -> Bool[Array, ""]:
    """Whether a way over free cells leads from the start to the goal."""
    kind = layout.kind
    adjacent = neighbours(layout.rows, layout.cols, kind.shape[0])
    passable = (kind == FREE) | (kind == START) | (kind == GOAL)
    # Beyond the grid adjacency means nothing; no real cell has a neighbour out there.
    passable = passable & (jnp.arange(kind.shape[0]) < layout.rows * layout.cols)
    start = jnp.argmax(kind == START)
    return jnp.any(reachable(adjacent, passable, start) & (kind == GOAL))


def in_split(layout: Layout, split: str) -> Bool[Array, ""]:
    """Whether the layout belongs to the split: 5/8 train, 1/8 validation, 2/8 test."""
    bucket = layout_hash(layout) % _NUM_BUCKETS
    earlier = SPLITS.index(split)
    first = 0 if earlier == 0 else _LAST_BUCKET[SPLITS[earlier - 1]] + 1
    return (bucket >= first) & (bucket <= _LAST_BUCKET[split])


def layout_hash(layout: Layout) -> UInt32[Array, ""]:
    """A number of where moves lead, where episodes start and end: whatever size it is padded to.

    Layouts whose moves lead to the same places get the same number even if they look different (a
    wall and a hole nobody can fall into), so that equal tasks are always of one split.
    """
    cells = layout.kind.shape[0]
    cell = jnp.arange(cells, dtype=jnp.uint32)[:, None]
    active, ends = _active(layout)[:, None], _terminal(layout)[:, None]
    stays = jnp.broadcast_to(cell, (cells, 4))
    landing = jnp.where(active, _landing(layout)[_targets(layout)], stays).astype(jnp.uint32)
    what = jnp.where(ends, 1, jnp.where((layout.kind == START)[:, None], 2, 0)).astype(jnp.uint32)
    place = 4 * cell + jnp.arange(4, dtype=jnp.uint32)
    item = _mix(_mix(_mix(place) + landing) + what)
    num_cells = (layout.rows * layout.cols).astype(jnp.uint32)
    return _mix(jnp.where(cell < num_cells, item, 0).sum(dtype=jnp.uint32) + _mix(num_cells))


def _mix(x: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """The finaliser of MurmurHash3 (A. Appleby, public domain)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def grid_task(layout: Layout, rules: Rules, *, stay: bool, horizon: int | None) -> FiniteTask:
    """The finite task of a layout and its rules.

    Walls are not entered (the move stays); goals and, unless they send back, holes end the episode.
    Cells in which nothing can happen (walls, goals, holes) are self-loops of reward 0.
    """
    kind, cells = layout.kind, layout.kind.shape[0]
    active, here = _active(layout)[:, None, None], jnp.eye(cells)
    touched = _touched(layout, rules.slip, stay)
    # A hole that sends back is touched (and paid for), but the arrival is at the start.
    landing = jax.nn.one_hot(_landing(layout), cells)
    gain = (kind == GOAL) + rules.lesser * (kind == LESSER_GOAL) - rules.penalty * (kind == HOLE)
    arrival = touched @ landing
    earned = (touched * gain) @ landing
    possible = active & (arrival > 0)
    reward = earned / jnp.where(arrival > 0, arrival, 1.0) - rules.step_cost
    steps = STEPS_PER_CELL * layout.rows * layout.cols if horizon is None else horizon
    return FiniteTask(
        transition=jnp.where(active, arrival, here[:, None, :]),
        reward=jnp.where(possible, reward, 0.0),
        termination=jnp.broadcast_to(_terminal(layout).astype(jnp.float32), arrival.shape),
        initial=(kind == START).astype(jnp.float32),
        horizon=jnp.asarray(steps, jnp.int32),
        reward_noise=jnp.zeros(()),
        reward_binary=jnp.asarray(False),
        state_mask=jnp.arange(cells) < layout.rows * layout.cols,
        action_mask=jnp.ones(5 if stay else 4, bool),
    )


def _touched(layout: Layout, slip: Float[Array, ""], stay: bool) -> Float[Array, "S A S"]:
    """Probability of touching each cell: the asked direction, or either side of it by slipping."""
    cells = layout.kind.shape[0]
    moves = jax.nn.one_hot(_targets(layout), cells)
    aside = (jnp.roll(moves, 1, axis=1) + jnp.roll(moves, -1, axis=1)) / 2.0
    touched = (1.0 - slip) * moves + slip * aside
    if not stay:
        return touched
    return jnp.concatenate([touched, jnp.eye(cells)[:, None, :]], axis=1)


def _targets(layout: Layout) -> Int[Array, "S 4"]:
    """The cell that each of the four moves touches; walls and edges keep you in place."""
    cells = layout.kind.shape[0]
    target = neighbours(layout.rows, layout.cols, cells)
    return jnp.where(layout.kind[target] == WALL, jnp.arange(cells)[:, None], target)


def _landing(layout: Layout) -> Int[Array, " S"]:
    """Where one arrives who touches a cell: there, or at the start where holes send back."""
    back = (layout.kind == HOLE) & layout.sends_back
    return jnp.where(back, jnp.argmax(layout.kind == START), jnp.arange(layout.kind.shape[0]))


def _terminal(layout: Layout) -> Bool[Array, " S"]:
    """Cells that end the episode."""
    fatal = (layout.kind == HOLE) & ~layout.sends_back
    return (layout.kind == GOAL) | (layout.kind == LESSER_GOAL) | fatal


def _active(layout: Layout) -> Bool[Array, " S"]:
    """Cells in which something can happen."""
    real = jnp.arange(layout.kind.shape[0]) < layout.rows * layout.cols
    return real & ((layout.kind == FREE) | (layout.kind == START))
