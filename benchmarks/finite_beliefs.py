"""Is what `finite` believes true, and is it about this task? Intervals, odds, and the placebo.

Protocol, fixed beforehand:

- Families the agent was not trained on (lakes, navigation, Garnet) and test splits of those it was.
- *Coverage*: share of pairs (s, a) whose 90% interval holds Q*(s, a), over all pairs of states met, after
  1/16, 1/8, 1/4, 1/2 and all of a lifetime's steps (`metaql.meta.calibrate.verdicts`). The bar is 85 to
  95%.
- *Best*: mean probability that the greedy action of a state met is the best one, as believed, and how
  often it is.
- *Placebo*: normalised score of lifetimes, 0 the random policy and 1 the optimum, and the score of the
  same lifetimes when each acts on the memory of its neighbour, who lives in another task. Where the
  neighbour knows as much about this task as about its own, the two are equal.

    python benchmarks/finite_beliefs.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _common import emit, say
from _lives import with_room
from _tasks import garnets, levels, with_horizon

import metaql
from metaql.evaluation.intervals import mean_interval
from metaql.meta.calibrate import verdicts
from metaql.meta.finite_agent import FiniteAgent
from metaql.meta.lifetime import live
from metaql.tasks.families import Bandit, Chain, FrozenLake, Navigation, RandomMDP, Worlds
from metaql.tasks.families.base import Family
from metaql.tasks.finite import FiniteTask


class Row(NamedTuple):
    """Lifetimes in one kind of task."""

    tasks: Callable[[int, int], FiniteTask]
    """From how many and a seed."""
    episodes: int
    steps: int
    """Steps after which beliefs are judged for the last time, a multiple of 16."""
    trained: bool = True
    """Whether the agent was trained on the family (on its train split)."""


def of_family(family: Family) -> Callable[[int, int], FiniteTask]:
    """Tasks of its test split."""
    return lambda number, seed: family.tasks(jax.random.key(seed), number, "test")


def some_garnets(number: int, seed: int) -> FiniteTask:
    """Garnet(16, 5, 2) with 100 steps an episode."""
    return with_horizon(garnets(16, number, seed=seed), 100)


ROWS = {
    "frozen_lake": Row(of_family(FrozenLake()), 20, 640, trained=False),
    "navigation": Row(of_family(Navigation()), 10, 320, trained=False),
    "Garnet(16, 5, 2)": Row(some_garnets, 10, 960, trained=False),
    "worlds": Row(of_family(Worlds(6, scaled=True)), 12, 480),
    "random_mdp": Row(of_family(RandomMDP()), 32, 320),
    "random_mdp, sparse": Row(of_family(RandomMDP(16, kind="sparse", horizon=40)), 16, 640),
    "chain": Row(of_family(Chain()), 20, 640),
    "bandit": Row(of_family(Bandit(10, horizon=96)), 1, 96),
    "bandit, deceptive": Row(of_family(Bandit(10, horizon=96, kind="deceptive")), 1, 96),
}


def beliefs(agent: FiniteAgent, row: Row, lifetimes: int, seed: int) -> dict[str, Any]:
    """Coverage and odds."""
    tasks = row.tasks(lifetimes, seed)
    found = verdicts(
        with_room(agent, tasks),
        agent.calibrations[agent.kind_of(tasks.transition.shape[-1])],
        tasks,
        jax.random.key(seed + 1),
        num_steps=row.steps,
        episodes=row.episodes,
    )
    return {
        "coverage": round(found.coverage(), 3),
        "promised_best": round(float(found.promised.mean()), 3),
        "greedy_is_best": round(float(found.right.mean()), 3),
    }


def placebo(agent: FiniteAgent, row: Row, lifetimes: int, seed: int) -> dict[str, Any]:
    """Score with one's own memory and with that of the neighbour."""
    tasks = row.tasks(lifetimes, seed)
    random, optimum = levels(tasks)
    apart = np.maximum(np.asarray(optimum - random), 1e-6)
    usable = apart > 0.02 * np.maximum(np.abs(optimum), np.abs(random))
    tasks = jax.tree.map(lambda x: x[jnp.asarray(np.flatnonzero(usable))], tasks)
    keys = jax.random.split(jax.random.key(seed + 2), int(usable.sum()))
    scores = {}
    for name, shuffle in (("own memory", False), ("neighbour's memory", True)):
        lives = live(with_room(agent, tasks), tasks, keys, episodes=row.episodes, shuffle=shuffle)
        gained = lives.returns.mean(1) - np.asarray(random)[usable]
        scores[name] = mean_interval(gained / apart[usable])._asdict()
    return scores


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", default="finite", help="folder or name")
    parser.add_argument("--lifetimes", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="rows with this in their name")
    options = parser.parse_args()
    agent = metaql.load(options.agent)
    if not isinstance(agent, FiniteAgent):
        parser.error(f"{options.agent} is no agent for any finite task.")
    found = {}
    for name, row in ROWS.items():
        if options.only not in name:
            continue
        jax.clear_caches()  # every program holds mappings of memory, and a process may have so many
        facts = (agent, row, options.lifetimes, options.seed)
        found[name] = {"trained_on": row.trained, **beliefs(*facts), "placebo": placebo(*facts)}
        say(f"{name}: {found[name]}")
    emit("finite_beliefs", lifetimes=options.lifetimes, seed=options.seed, rows=found)


if __name__ == "__main__":
    main()
