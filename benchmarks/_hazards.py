"""RL3's grids (arXiv 2306.15909), drawn by the rules of its published code."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from _maps import MOVES, Ground, map_task
from _variants import levels, stack, with_horizon

from metaql.tasks.finite import FiniteTask

FIRST_SEED = 1_000_000
"""Seeds of evaluated maps begin here."""
SEEDS_APART = 10_000
"""Seeds between two batches."""


class HazardRules(NamedTuple):
    """How RL3's grids are drawn (its code's constants)."""

    size: int = 13
    budget: int = 350
    """Steps of a whole lifetime, over as many episodes as they last."""
    wall_length: int = 3
    waters: int = 5
    dangers: int = 2
    goal_distance: int = 8
    """Least Manhattan distance from the start, in the middle."""
    slip: float = 0.2


HAZARDS = {
    "11x11": HazardRules(size=11, budget=250),
    "13x13": HazardRules(),
    "13x13 deterministic": HazardRules(slip=0.0),
    "13x13 dense": HazardRules(wall_length=4),
    "13x13 watery": HazardRules(waters=8),
    "13x13 dangerous": HazardRules(dangers=4),
    "13x13 corner": HazardRules(goal_distance=12),
}
"""The grids trained on, and the variations of the larger one."""
_WALLS, _WATER_LENGTH = 11, 2


def hazard_map(rules: HazardRules, rng: np.random.Generator) -> list[str]:
    """Draw a map: ``O`` wall, ``W`` water, ``!`` warning, ``X`` danger, ``S`` start, ``G`` goal."""
    size, middle = rules.size, rules.size // 2
    letters = np.full((size, size), " ")
    for _ in range(_WALLS):
        _draw_line(letters, rules.wall_length, "O", rng)
    for _ in range(rules.waters):
        _draw_line(letters, _WATER_LENGTH, "W", rng)
    letters[middle, middle] = "S"
    away = np.abs(np.indices(letters.shape) - middle).sum(0) >= rules.goal_distance
    letters[tuple(rng.permutation(np.argwhere(away))[0])] = "G"
    for _ in range(rules.dangers):
        _draw_danger(letters, rng)
    return ["".join(row) for row in letters]


def _draw_line(letters: np.ndarray, length: int, letter: str, rng: np.random.Generator) -> None:
    """A line from a random cell towards the middle, along a row or a column."""
    size, middle = len(letters), len(letters) // 2
    begin, other = (int(at) for at in rng.integers(size, size=2))
    upward = rng.random() < 0.5 if begin == middle else begin < middle
    low = begin if upward else begin - length + 1
    board = letters if rng.random() < 0.5 else letters.T
    board[low : low + length, other] = letter


def _draw_danger(letters: np.ndarray, rng: np.random.Generator) -> None:
    """A danger in a free inner cell with free cells or walls around it, which become warnings."""
    while True:
        row, col = (int(at) for at in rng.integers(1, len(letters) - 1, size=2))
        around = [(row + down, col + right) for down, right in MOVES]
        if letters[row, col] == " " and all(letters[at] in " O" for at in around):
            letters[row, col] = "X"
            for at in around:
                letters[at] = "!"
            return


def hazard_grid(rules: HazardRules, seed: int = 0) -> FiniteTask:
    """A grid of RL3: goal +100 and danger -100 end the episode, step -1, water -2, warning -10.

    Rewards are for arriving, staying in place included; from water one always slips to a side,
    elsewhere with ``slip``; the fifth action stays, without slipping. As in RL3's code maps are drawn
    again until the optimum earns 50 to 100 in one episode of 100 steps. The horizon is the budget.
    """
    rng = np.random.default_rng((FIRST_SEED, seed))
    slips = {**dict.fromkeys("S !", rules.slip), "W": 1.0}
    ground = Ground(
        reward={"S": -1.0, " ": -1.0, "G": 100.0, "W": -2.0, "!": -10.0, "X": -100.0},
        ends="GX",
        slip=slips,
        blocked="O",
    )
    while True:
        task = map_task(hazard_map(rules, rng), ground, horizon=rules.budget, stay=True)
        if 50.0 <= float(levels(with_horizon(task, 100)).optimum) <= 100.0:
            return task


def hazard_grids(kind: str, num_tasks: int, seed: int = 0) -> FiniteTask:
    """Grids of one of `HAZARDS`, ``[N, ...]``."""
    first = seed * SEEDS_APART
    return stack([hazard_grid(HAZARDS[kind], first + each) for each in range(num_tasks)])
