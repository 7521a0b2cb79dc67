"""What a prior of its own is worth to a family: ``meta_train(family, agent="finite")`` beside ``finite``.

Protocol, fixed beforehand: one training with the usual settings and seed 0 per family; both agents live in
the same validation tasks with the same keys. Totals of whole lifetimes, and their difference with its
standard error. (Validation tasks, for the optimism was chosen on them: the closed form had 45 on chains.)
Coverage of 90% intervals as in ``finite_beliefs.py``, in 128 of these tasks at most, lifetimes as in the
table but of 960 steps at most: of what the agent with its own prior believes, with intervals that were fitted
on the family and with those of ``finite``.

    python benchmarks/family_priors.py --only bandit
"""

from __future__ import annotations

import argparse
import time
from typing import Any, cast

import jax
import numpy as np
from _common import emit, say
from jaxtyping import Float

import metaql
from metaql.meta.calibrate import verdicts
from metaql.meta.finite_agent import FiniteAgent
from metaql.meta.lifetime import live
from metaql.tasks.families import Bandit, Chain, FrozenLake, Navigation, RandomMDP, Worlds
from metaql.tasks.families.base import Family

FAMILIES: dict[str, tuple[Family, int, int]] = {
    "bandit, deceptive": (Bandit(10, horizon=100, kind="deceptive"), 1, 4_000),
    "bandit, tastes": (Bandit(10, horizon=20, kind="tastes"), 1, 4_000),
    "bandit, coins": (Bandit(10, horizon=100), 1, 4_000),
    "random_mdp": (RandomMDP(), 25, 256),
    "chain": (Chain(), 20, 128),
    "worlds": (Worlds(), 20, 64),
    "frozen_lake": (FrozenLake(), 20, 128),
    "navigation": (Navigation(), 20, 128),
}
"""Family, episodes of a lifetime, lifetimes."""
JUDGED, MOST_STEPS = 128, 960
"""Lifetimes and steps at most where beliefs are judged."""


def totals(agent: Any, tasks: Any, episodes: int, slots: int | None) -> Float[np.ndarray, " N"]:
    """What every lifetime returned."""
    states, actions = tasks.transition.shape[1:3]
    keys = jax.random.split(jax.random.split(jax.random.key(4_242))[1], len(tasks.horizon))
    learner = agent.learner_for(states, actions, slots=slots)
    return live(learner, tasks, keys, episodes=episodes).returns.sum(1).astype(np.float64)


def coverage(agent: FiniteAgent, intervals: FiniteAgent, tasks: Any, episodes: int) -> float:
    """How often the intervals of one hold Q* where the other lives."""
    tasks = jax.tree.map(lambda leaf: leaf[:JUDGED], tasks)
    states, actions = tasks.transition.shape[1:3]
    found = verdicts(
        agent.learner_for(states, actions, slots=agent.card.get("slots")),
        intervals.calibrations[intervals.kind_of(states)],
        tasks,
        jax.random.key(4_243),
        num_steps=min(episodes * int(tasks.horizon.max()), MOST_STEPS) // 16 * 16,
        episodes=episodes,
    )
    return round(found.coverage(), 3)


def measure(name: str) -> dict[str, Any]:
    """Train, then live with both."""
    family, episodes, lifetimes = FAMILIES[name]
    jax.clear_caches()  # or the time of a row would depend on those before
    start = time.perf_counter()
    own: FiniteAgent = metaql.meta_train(family, agent="finite")
    seconds = time.perf_counter() - start
    key_tasks = jax.random.split(jax.random.key(4_242))[0]
    tasks = family.tasks(key_tasks, lifetimes, "validation")
    slots, usual = own.card.get("slots"), cast(FiniteAgent, metaql.load("finite"))
    rows = [totals(agent, tasks, episodes, slots) for agent in (own, usual)]
    apart = rows[0] - rows[1]
    found = {
        "lifetimes": lifetimes,
        "own": round(float(rows[0].mean()), 3),
        "finite": round(float(rows[1].mean()), 3),
        "difference": round(float(apart.mean()), 3),
        "standard_error": round(float(apart.std() / np.sqrt(lifetimes)), 3),
        "coverage": coverage(own, own, tasks, episodes),
        "coverage_as_finite": coverage(own, usual, tasks, episodes),
        "seconds": round(seconds, 1),
    }
    say(f"{name}: {found}")
    return found


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="families with this in their name")
    options = parser.parse_args()
    emit("family_priors", rows={name: measure(name) for name in FAMILIES if options.only in name})


if __name__ == "__main__":
    main()
