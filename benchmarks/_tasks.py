"""The tasks of the published tables, as `FiniteTask`: one task, or a batch ``[N, ...]`` of them.

Each function names the source of its rules and what this module had to decide itself.
"""

from __future__ import annotations

import importlib
import itertools
import math
from typing import Any

import numpy as np
from _hazards import HAZARDS, hazard_grid, hazard_grids
from _maps import Ground, map_task
from _variants import (
    Levels,
    levels,
    oracle_variance,
    relabelled,
    rescaled,
    stack,
    with_horizon,
    without_end,
)

from metaql.tasks.families.frozen_lake import DEFAULT_MAPS
from metaql.tasks.finite import FiniteTask, finite_task

__all__ = [
    "HAZARDS",
    "Levels",
    "any_mdp",
    "any_mdps",
    "dark_room",
    "dark_rooms",
    "garnet",
    "garnets",
    "hazard_grid",
    "hazard_grids",
    "levels",
    "omnirl_cliff",
    "omnirl_lake",
    "relabelled",
    "rescaled",
    "slippery_lake",
    "stack",
    "walled_grid",
    "with_horizon",
    "without_end",
]

EPISODE_STEPS = 50
"""Episodes of arXiv 2606.18812."""
OMNIRL_STEPS = 200
"""``max_steps`` in OmniRL's published configuration."""
FIRST_SEED = 1_000_000
"""Seeds of evaluated AnyMDP and Garnet tasks begin here, away from anybody's training tasks."""
SEEDS_APART = 10_000
"""Seeds between two batches."""
ERRATIC = 0.3
"""OmniRL's largest variance of the oracle's normalised return."""


def walled_grid(size: int) -> FiniteTask:
    """Deterministic ``size x size`` grid from corner to corner (arXiv 2606.18812).

    Each step costs 1; the step into the goal earns +10 *instead* and ends the episode, so the
    optimum is ``10 - (2 * size - 3)``: 7 at 3x3, 3 at 5x5. Edges keep in place. 50 steps.
    """
    rows = ["S" + " " * (size - 1), *[" " * size] * (size - 2), " " * (size - 1) + "G"]
    ground = Ground(reward={"S": -1.0, " ": -1.0, "G": 10.0}, ends="G")
    return map_task(rows, ground, horizon=EPISODE_STEPS)


def slippery_lake(slip: float = 0.2, horizon: int = EPISODE_STEPS) -> FiniteTask:
    """Gymnasium's 4x4 map; ``slip`` in total to either side; hole -1, goal +1 (arXiv 2606.18812)."""
    ground = Ground(reward={"H": -1.0, "G": 1.0}, ends="HG", slip=dict.fromkeys("SF", slip))
    return map_task(DEFAULT_MAPS[4], ground, horizon=horizon)


def omnirl_lake(slippery: bool) -> FiniteTask:
    """``FrozenLake-v1`` 4x4 with OmniRL's rewards: goal +1, hole -1, -0.05 a step without slip.

    Slippery as in Gymnasium (2/3 to either side). 200 steps, as OmniRL's configuration has it
    (Gymnasium's own limit is 100).
    """
    if slippery:
        return slippery_lake(2.0 / 3.0, OMNIRL_STEPS)
    reward = {"S": -0.05, "F": -0.05, "H": -1.0, "G": 1.0}
    return map_task(DEFAULT_MAPS[4], Ground(reward=reward, ends="HG"), horizon=OMNIRL_STEPS)


def omnirl_cliff(falls_end: bool = True) -> FiniteTask:
    """``CliffWalking`` with OmniRL's rewards: -0.03 a step, cliff -1, goal +1; 200 steps.

    In OmniRL's environment wrapper the fall ends the episode; with ``falls_end=False`` it leads back
    to the start and on, as in Gymnasium. The arrival of a fall is the start in both.
    """
    rows = [" " * 12] * 3 + ["S" + "C" * 10 + "G"]
    ground = Ground(reward={"S": -0.03, " ": -0.03, "C": -1.0, "G": 1.0}, ends="CG")
    task = map_task(rows, ground, horizon=OMNIRL_STEPS)
    transition, reward = np.array(task.transition), np.array(task.reward)
    termination = np.array(task.termination)
    start, cliff = 36, slice(37, 47)
    alive = np.ones(48, bool)
    alive[37:] = False
    for state in np.flatnonzero(alive):
        falls = transition[state, :, cliff].sum(-1) > 0
        transition[state, falls, cliff] = 0.0
        transition[state, falls, start] = 1.0
        reward[state, falls, start] = -1.0
        termination[state, falls, start] = float(falls_end)
    return finite_task(
        transition, reward, termination=termination, initial=np.eye(48)[start], horizon=OMNIRL_STEPS
    )


def dark_room(size: int, goal: int | None = None) -> FiniteTask:
    """DarkRoom as in OmniRL's code: four moves, +1 at the goal (the end), -0.01 for other steps.

    Episodes begin in a random cell but the goal. OmniRL's goal is the last cell (the default); the
    agents here do not know what a cell's number means, so that where it lies tells them nothing.
    200 steps.
    """
    cells = size * size
    goal = cells - 1 if goal is None else goal
    letters = [" "] * cells
    letters[goal] = "G"
    rows = ["".join(letters[at : at + size]) for at in range(0, cells, size)]
    start = np.full(cells, 1.0 / (cells - 1))
    start[goal] = 0.0
    ground = Ground(reward={" ": -0.01, "G": 1.0}, ends="G")
    return map_task(rows, ground, horizon=OMNIRL_STEPS, start=start)


def dark_rooms(size: int, num_tasks: int, seed: int = 0) -> FiniteTask:
    """DarkRooms with goals drawn uniformly, ``[N, ...]``."""
    goals = np.random.default_rng((FIRST_SEED, seed)).integers(size * size, size=num_tasks)
    return stack([dark_room(size, int(goal)) for goal in goals])


def garnet(num_states: int, num_actions: int = 5, branching: int = 2, seed: int = 0) -> FiniteTask:
    """Garnet(S, A, b) after Archibald, McKinnon and Thomas 1995, with xenoverse's numbers.

    Each pair leads to ``branching`` states drawn without replacement, with probabilities from
    uniform cuts of [0, 1]; rewards Normal(0, 0.1) for each triple, without noise; start in state 0;
    no end but the clock, after ``max(4 S, 100)`` to ``min(8 S, 500)`` steps, uniform.
    """
    rng = np.random.default_rng((FIRST_SEED, seed))
    shape = (num_states, num_actions)
    order = rng.random((*shape, num_states)).argsort(-1)[..., :branching]
    cuts = np.sort(rng.random((*shape, branching - 1)), axis=-1)
    edges = np.concatenate([np.zeros((*shape, 1)), cuts, np.ones((*shape, 1))], axis=-1)
    transition = np.zeros((*shape, num_states))
    np.put_along_axis(transition, order, np.diff(edges, axis=-1), axis=-1)
    reward = 0.1 * rng.normal(size=transition.shape)
    return finite_task(transition, reward, horizon=_any_horizon(num_states, rng))


def garnets(
    num_states: int, num_tasks: int, *, num_actions: int = 5, branching: int = 2, seed: int = 0
) -> FiniteTask:
    """Garnet tasks, ``[N, ...]``."""
    first = seed * SEEDS_APART
    seeds = range(first, first + num_tasks)
    return stack([garnet(num_states, num_actions, branching, each) for each in seeds])


def _any_horizon(num_states: int, rng: np.random.Generator) -> int:
    low = max(4.0 * num_states, 100.0)
    return math.ceil(rng.uniform(low, max(min(8.0 * num_states, 500.0), low + 1.0)))


def any_mdp(num_states: int, num_actions: int = 5, seed: int = 0) -> FiniteTask:
    """AnyMDP(S, A) from xenoverse's own sampler (a development dependency; arXiv 2502.02869).

    Its rewards have normal noise of a deviation for each triple; a `FiniteTask` has one for each
    pair, so it is their root mean square over next states. States are numbered as its environment
    observes them. Needs ``pip install 'metaql[tables]'``.
    """
    # By name: whoever checks types need not have it installed.
    sampler = importlib.import_module("xenoverse.anymdp").AnyMDPTaskSampler

    # The sampler seeds numpy's global generator; whoever else uses that must not notice.
    before = np.random.get_state()  # noqa: NPY002
    try:
        drawn = sampler(num_states, num_actions, seed=FIRST_SEED + seed)
    finally:
        np.random.set_state(before)  # noqa: NPY002
    return _from_xenoverse(drawn)


def _from_xenoverse(drawn: dict[str, Any]) -> FiniteTask:
    """The sampler's arrays, in inner numbers, as a task in the numbers its environment shows."""
    count = int(drawn["ns"])
    ends = np.zeros(count, bool)
    ends[np.asarray(drawn["s_e"], int)] = True
    initial = np.zeros(count)
    initial[np.asarray(drawn["s_0"], int)] = drawn["s_0_prob"]
    over = ends[:, None, None]
    transition = np.where(over, np.eye(count)[:, None], drawn["transition"])
    reward = np.where(over, 0.0, drawn["reward"])
    variance = (transition * np.square(drawn["reward_noise"])).sum(-1)
    termination = np.broadcast_to(ends.astype(float), transition.shape)
    shown = np.argsort(np.asarray(drawn["state_mapping"]))
    block = np.ix_(shown, np.arange(transition.shape[1]), shown)
    return finite_task(
        transition[block],
        reward[block],
        termination=termination[block],
        initial=initial[shown],
        horizon=math.ceil(drawn["max_steps"]),
        reward_noise=np.sqrt(np.where(ends[:, None], 0.0, variance))[shown],
    )


def any_mdps(num_states: int, num_tasks: int, *, num_actions: int = 5, seed: int = 0) -> FiniteTask:
    """AnyMDP tasks, ``[N, ...]``.

    As in OmniRL's evaluation, tasks are left out whose oracle is too erratic to score by: variance of
    its normalised return (exactly, of one episode) of `ERRATIC` or more.
    """
    found: list[FiniteTask] = []
    seeds = itertools.count(seed * SEEDS_APART)
    while len(found) < num_tasks:
        task = any_mdp(num_states, num_actions, next(seeds))
        random, optimum = levels(task)
        if float(oracle_variance(task)) < ERRATIC * (optimum - random) ** 2:
            found.append(task)
    return stack(found)
