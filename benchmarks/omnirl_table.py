"""OmniRL's table (T4; arXiv 2502.02869): best return in % of the oracle over random, and how soon.

Protocol, fixed beforehand:

- Score of an episode: ``100 * (return - random) / (oracle - random)`` with the exact returns of the
  uniformly random policy and of the optimum of that very task; undiscounted, as it was lived,
  exploration included.
- A lifetime is as long as its bar allows (35 episodes, 2,000 steps, ...) and learners are told so. The
  score at the bar is the mean over lifetimes of the mean over the window that ends there; 95% intervals
  over lifetimes. *Best* is the best window on the way, *reached* the first one at or above the bar
  (compared after rounding to one decimal, as the bars are given).
- Lakes and the cliff are one task for all lifetimes; DarkRooms have a goal per lifetime, Garnet and
  AnyMDP tasks are drawn one per lifetime, with seeds no training uses.
- Nobody gave Garnet a budget: its rows have AnyMDP's.
- Rules as in OmniRL's published code (``airs-cuhk/airsoul``) where it has them; see ``_tasks.py``: lakes
  and the cliff end after 200 steps, a fall from the cliff ends the episode, DarkRooms have four moves,
  random starts and -0.01 a step.

Differences from OmniRL: it reports *unshaped* returns of a moving average of 30 episodes and leaves out
AnyMDP tasks whose oracle's score varies much; its DarkRoom goal is always the last cell. AnyMDP needs
``pip install -e '.[tables]'``.

Baselines are tuned on the very tasks with other seeds (``_tuned.py``).

    python benchmarks/omnirl_table.py --agent finite
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from _common import emit, say
from _lives import Budget, Lived, learner_for, live_through
from _tasks import any_mdps, dark_rooms, garnets, levels, omnirl_cliff, omnirl_lake
from _tuned import tuned

import metaql
from metaql.evaluation.intervals import mean_interval
from metaql.tasks.finite import FiniteTask
from metaql.types import Learner

TUNING_LIFETIMES = 4


class Row(NamedTuple):
    """One row of the table."""

    tasks: Callable[[int, int], FiniteTask]
    """From the number of lifetimes and a seed."""
    bar: float
    """Issue 3's bar for the score, in %."""
    budget: Budget
    window: int
    """Episodes (or steps) before the bar that are averaged."""
    lifetimes: int
    omnirl: float | None = None
    """OmniRL's own score, where issue 3 quotes it."""


def steps(amount: int) -> Budget:
    """A budget of steps."""
    return Budget(amount, "steps")


ROWS = {
    "FrozenLake 4x4, no slip": Row(lambda *_: omnirl_lake(False), 99.8, Budget(35), 5, 100),
    "FrozenLake 4x4, slippery": Row(lambda *_: omnirl_lake(True), 96.0, Budget(245), 30, 200, 79.5),
    "CliffWalking": Row(lambda *_: omnirl_cliff(), 100.0, Budget(35), 5, 100),
    "DarkRoom 6x6": Row(lambda n, seed: dark_rooms(6, n, seed), 95.2, Budget(40), 5, 100),
    "DarkRoom 8x8": Row(lambda n, seed: dark_rooms(8, n, seed), 93.8, Budget(40), 5, 100),
    "DarkRoom 10x10": Row(lambda n, seed: dark_rooms(10, n, seed), 92.3, Budget(100), 10, 64),
    "AnyMDP(16, 5)": Row(lambda n, seed: any_mdps(16, n, seed=seed), 95.3, steps(2_000), 500, 64),
    "AnyMDP(64, 5)": Row(lambda n, seed: any_mdps(64, n, seed=seed), 91.3, steps(7_700), 1_500, 32),
    "Garnet(16, 5, 2)": Row(lambda n, seed: garnets(16, n, seed=seed), 98.0, steps(2_000), 500, 64),
    "Garnet(64, 5, 2)": Row(
        lambda n, seed: garnets(64, n, seed=seed), 98.0, steps(7_700), 1_500, 32
    ),
}


class Case(NamedTuple):
    """A row with its tasks."""

    tasks: FiniteTask
    random: np.ndarray
    optimum: np.ndarray
    budget: Budget
    window: int


def case(row: Row, lifetimes: int, seed: int) -> Case:
    """Draw the tasks of a row."""
    tasks = row.tasks(lifetimes, seed)
    return Case(tasks, *levels(tasks), row.budget, row.window)


def scores(lived: Lived, about: Case) -> np.ndarray:
    """Score of every episode in %, ``[N, E]``."""
    random, optimum = (np.reshape(each, (-1, 1)) for each in (about.random, about.optimum))
    return 100.0 * (lived.returns - random) / (optimum - random)


def at(lived: Lived, about: Case, budget: float) -> np.ndarray:
    """Mean score of the window that ends at ``budget``, ``[N]``; NaN without an episode in it."""
    place = lived.ends
    if about.budget.unit == "episodes":
        place = np.where(np.isnan(place), np.nan, np.arange(1, place.shape[1] + 1))
    inside = (place > budget - about.window) & (place <= budget)
    count = inside.sum(1)
    total = np.where(inside, scores(lived, about), 0.0).sum(1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def summary(lived: Lived, about: Case, bar: float) -> dict[str, Any]:
    """What the table says of one learner."""
    grain = 1 if about.budget.unit == "episodes" else about.window // 5
    places = list(range(about.budget.amount, about.window - 1, -grain))[::-1]
    curve = [float(np.nanmean(at(lived, about, place))) for place in places]
    last = at(lived, about, about.budget.amount)
    interval = mean_interval(last[~np.isnan(last)])
    best = int(np.argmax(curve))
    reached = [place for place, mean in zip(places, curve, strict=True) if round(mean, 1) >= bar]
    return {
        "at_bar": {key: round(value, 2) for key, value in interval._asdict().items()},
        "best": round(curve[best], 2),
        "best_at": places[best],
        "reached_at": reached[0] if reached else None,
        "steps_lived": round(float(np.nanmean(np.nanmax(lived.ends, axis=1)))),
    }


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row of the table."""
    row = ROWS[name]
    lifetimes = options.lifetimes or row.lifetimes
    about = case(row, lifetimes, options.seed)
    num_states, num_actions = about.tasks.transition.shape[-3:-1]
    key_tune, key_report = jax.random.split(jax.random.key(options.seed))
    rows: dict[str, tuple[Any, Learner]] = {
        agent: (None, learner_for(metaql.load(agent), about.tasks)) for agent in options.agent
    }
    if not options.no_baselines:
        some = min(TUNING_LIFETIMES, lifetimes)
        few = case(row, some, options.seed)
        rows |= tuned(
            few.tasks,
            jax.random.split(key_tune, some),
            few.budget,
            few.optimum,
            lambda lived: float(np.nanmean(at(lived, few, few.budget.amount))),
        )
    found = {}
    for learner_name, (setting, learner) in rows.items():
        start = time.perf_counter()
        keys = jax.random.split(key_report, lifetimes)
        lived = live_through(learner, about.tasks, keys, about.budget)
        found[learner_name] = {
            **summary(lived, about, row.bar),
            "setting": setting,
            "seconds_with_compilation": round(time.perf_counter() - start, 1),
        }
        say(f"{name}, {learner_name}: {found[learner_name]}")
    return {
        "states": num_states,
        "actions": num_actions,
        "lifetimes": lifetimes,
        "budget": about.budget._asdict(),
        "window": about.window,
        "bar": row.bar,
        "omnirl": row.omnirl,
        "random": round(float(np.mean(about.random)), 4),
        "optimum": round(float(np.mean(about.optimum)), 4),
        "rows": found,
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", action="append", default=[], help="folder or name (repeatable)")
    parser.add_argument("--lifetimes", type=int, default=0, help="per row; 0: as in the table")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="rows with this in their name")
    parser.add_argument("--no-baselines", action="store_true")
    options = parser.parse_args()
    found = {name: measure(name, options) for name in ROWS if options.only in name}
    emit("omnirl_table", seed=options.seed, rows=found)


if __name__ == "__main__":
    main()
