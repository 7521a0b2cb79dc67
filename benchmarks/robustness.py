"""Robustness (T5): one learner in tasks it was not made for, beside tuned baselines.

Protocol, fixed beforehand:

- *Hazard grids* of RL3 (arXiv 2306.15909), drawn by the rules of its published code (``_hazards.py``):
  11x11 with 250 steps in all, 13x13 with 350, and its variations of the larger one. A lifetime is that
  many steps over as many episodes as they last; an episode ends at the goal or in danger only. One map
  per lifetime. Learners are told how many steps there are.
- *Renamed and rescaled*: four bases (the lake with slip 0.2, the 5x5 grid, Garnet(16, 5, 2) and
  RiverSwim-like chains) as they are, with states and actions renamed at random, with rewards times 1000
  and times -1. 30 episodes.
- *Horizons* of 10, 30, 100, 300 and 1,000 steps on Garnet(16, 5, 2) and on the chains; 2,000 steps a
  lifetime, but at least 4 episodes.
- Score: ``100 * (reward - random) / (oracle - random)`` of all reward of all lifetimes, with exact
  expectations of the uniformly random policy and of the optimum for the same budgets; 95% bootstrap
  intervals over lifetimes. *Rank* is by the score; *first* says whether a learner is the first or
  within the interval of the first.

Every baseline is tuned for each row, on the very tasks with other seeds (``_tuned.py``): an advantage no
agent has.

    python benchmarks/robustness.py --agent finite
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from _common import emit, say
from _lives import Budget, Lived, learner_for, live_through
from _tasks import (
    HAZARDS,
    garnets,
    hazard_grids,
    levels,
    relabelled,
    rescaled,
    slippery_lake,
    stack,
    walled_grid,
    with_horizon,
    without_end,
)
from _tuned import tuned

import metaql
from metaql.evaluation.intervals import Interval, normalised_score
from metaql.tasks.families import Chain
from metaql.tasks.finite import FiniteTask
from metaql.types import Learner

EPISODES, STEPS, LEAST_EPISODES = 30, 2_000, 4
HORIZONS = (10, 30, 100, 300, 1_000)
TUNING_LIFETIMES = 4


class Case(NamedTuple):
    """One row: a task per lifetime, and what its budget is worth."""

    tasks: FiniteTask
    budget: Budget
    random: np.ndarray
    oracle: np.ndarray


def by_episodes(tasks: FiniteTask, episodes: int) -> Case:
    """A lifetime of so many episodes."""
    random, optimum = levels(tasks)
    return Case(tasks, Budget(episodes), episodes * random, episodes * optimum)


def hazards(kind: str, lifetimes: int, seed: int) -> Case:
    """A lifetime of so many steps in one of RL3's grids."""
    rules = HAZARDS[kind]
    tasks = hazard_grids(kind, lifetimes, seed)
    random, oracle = levels(jax.vmap(lambda task: without_end(task, rules.budget))(tasks))
    return Case(tasks, Budget(rules.budget, "steps"), random, oracle)


def base(name: str, lifetimes: int, seed: int) -> FiniteTask:
    """The tasks that are renamed, rescaled and lengthened, ``[N, ...]``."""
    if name == "Garnet(16, 5, 2)":
        return with_horizon(garnets(16, lifetimes, seed=seed), 100)
    if name == "chains":
        return Chain().tasks(jax.random.key(seed), lifetimes, "test")
    return stack([slippery_lake() if name == "lake" else walled_grid(5)] * lifetimes)


def renamed(tasks: FiniteTask, seed: int) -> FiniteTask:
    """Every task with names of its own."""
    keys = jax.random.split(jax.random.key(seed), len(tasks.initial))
    return jax.vmap(relabelled)(tasks, keys)


def lengthened(tasks: FiniteTask, horizon: int) -> Case:
    """The same tasks with another horizon, as many episodes as the steps allow."""
    episodes = max(LEAST_EPISODES, math.ceil(STEPS / horizon))
    return by_episodes(with_horizon(tasks, horizon), episodes)


CHANGES: dict[str, Callable[[FiniteTask, int], FiniteTask]] = {
    "as it is": lambda tasks, _: tasks,
    "renamed": renamed,
    "rewards x 1000": lambda tasks, _: rescaled(tasks, 1000.0),
    "rewards x -1": lambda tasks, _: rescaled(tasks, -1.0),
}


def rows() -> dict[str, Callable[[int, int], Case]]:
    """Every row, built from the number of lifetimes and a seed when it is its turn."""
    found: dict[str, Callable[[int, int], Case]] = {}
    for kind in HAZARDS:
        found[f"hazard grid {kind}"] = lambda n, seed, kind=kind: hazards(kind, n, seed)
    for name in ("lake", "grid 5x5", "Garnet(16, 5, 2)", "chains"):
        for what, change in CHANGES.items():
            found[f"{name}, {what}"] = lambda n, seed, name=name, change=change: by_episodes(
                change(base(name, n, seed), seed), EPISODES
            )
    for name in ("Garnet(16, 5, 2)", "chains"):
        for horizon in HORIZONS:
            found[f"{name}, horizon {horizon}"] = lambda n, seed, name=name, horizon=horizon: (
                lengthened(base(name, n, seed), horizon)
            )
    return found


def score(lived: Lived, case: Case) -> Interval:
    """Share of what there was to gain over acting at random, in %."""
    found = normalised_score(lived.total, case.random, case.oracle)
    return Interval(*(100.0 * limit for limit in found))


def learners(
    case: Callable[[int, int], Case], tasks: FiniteTask, options: argparse.Namespace
) -> dict[str, tuple[Any, Learner]]:
    """Agents under test, and baselines tuned for the row."""
    found: dict[str, tuple[Any, Learner]] = {
        agent: (None, learner_for(metaql.load(agent), tasks)) for agent in options.agent
    }
    if options.no_baselines:
        return found
    few = case(min(TUNING_LIFETIMES, options.lifetimes), options.seed)
    keys = jax.random.split(jax.random.key(options.seed + 1), len(few.random))
    optimum = levels(few.tasks).optimum
    best = tuned(few.tasks, keys, few.budget, optimum, lambda lived: lived.total.sum())
    return {**found, **best}


def ranked(means: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """With rank and whether the first one's interval reaches down to it."""
    order = sorted(means, key=lambda name: -means[name]["score"]["mean"])
    lowest = means[order[0]]["score"]["low"]
    return {
        name: {**means[name], "rank": rank, "first": means[name]["score"]["mean"] >= lowest}
        for rank, name in enumerate(order, 1)
    }


def measure(name: str, make: Callable[[int, int], Case], options: argparse.Namespace) -> Any:
    """One row of the table."""
    jax.clear_caches()  # every program holds mappings of memory, and a process may have so many
    case = make(options.lifetimes, options.seed)
    num_states, num_actions = case.tasks.transition.shape[-3:-1]
    found = {}
    for who, (setting, learner) in learners(make, case.tasks, options).items():
        start = time.perf_counter()
        keys = jax.random.split(jax.random.key(options.seed), options.lifetimes)
        lived = live_through(learner, case.tasks, keys, case.budget)
        interval = score(lived, case)
        found[who] = {
            "score": {key: round(value, 2) for key, value in interval._asdict().items()},
            "reward": float(f"{lived.total.mean():.6g}"),
            "setting": setting,
            "seconds_with_compilation": round(time.perf_counter() - start, 1),
        }
        say(f"{name}, {who}: {found[who]}")
    return {
        "states": num_states,
        "actions": num_actions,
        "budget": case.budget._asdict(),
        "random": float(f"{case.random.mean():.6g}"),
        "oracle": float(f"{case.oracle.mean():.6g}"),
        "rows": ranked(found),
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", action="append", default=[], help="folder or name (repeatable)")
    parser.add_argument("--lifetimes", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="rows with this in their name")
    parser.add_argument("--no-baselines", action="store_true")
    options = parser.parse_args()
    table = {
        name: measure(name, make, options) for name, make in rows().items() if options.only in name
    }
    emit("robustness", seed=options.seed, lifetimes=options.lifetimes, rows=table)


if __name__ == "__main__":
    main()
