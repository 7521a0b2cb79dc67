"""RL2's own benchmarks through RecurrentQ: bandits and random MDPs, total reward beside what was published.

Protocol, that of Duan et al. 2016 (arXiv 1611.02779, sections 3.1 and 3.2): one agent is trained for every
number of arms and every n, as theirs were; total reward, noise included, mean over 1,000 tasks of the test
split, each lived once, with 95% bootstrap intervals, and what who knows these tasks would earn. Bandits: n
episodes of one pull. Random MDPs: 10 states, 5 actions, n episodes of 10 steps.

    python benchmarks/recurrent_finite.py --only bandit
    python benchmarks/recurrent_finite.py --only mdp
"""

from __future__ import annotations

import argparse
import time
from typing import Any, cast

import jax
from _bandits import PUBLISHED as BANDITS
from _common import emit, say
from _totals import interval
from random_mdps import BUDGETS, FAMILY
from random_mdps import PUBLISHED as MDPS

import metaql
from metaql.meta.lifetime import live
from metaql.tasks.exact import optimal_return
from metaql.tasks.families import Bandit

TRIALS = 1_000
BANDIT_STEPS = {10: 2_000_000, 100: 12_000_000, 500: 12_000_000}
MDP_STEPS = 12_000_000


def cases() -> dict[str, tuple[Any, int, float | None, dict[str, Any]]]:
    """Name -> family, episodes, RL2's published total, settings."""
    found: dict[str, tuple[Any, int, float | None, dict[str, Any]]] = {}
    for arms in (5, 10, 50):
        for place, n in enumerate(BANDIT_STEPS):
            settings = {
                "env_steps": BANDIT_STEPS[n],
                "segment_steps": min(n, 100),
                # One pull is an episode: only what is left of the lifetime counts.
                "discount": 0.99 if n == 100 else 0.98,
                "episode_discount": 1.0,
                # And a pull changes little of it.
                "action_gap": 0.9 if n == 100 else 0.0,
            }
            row = BANDITS[f"bernoulli, {arms} arms"]["RL2"][place]
            found[f"bandit {arms} arms, n={n}"] = (Bandit(arms, horizon=1), n, row, settings)
    for place, n in enumerate(BUDGETS):
        settings = {"env_steps": MDP_STEPS, "segment_steps": 100}
        found[f"mdp n={n}"] = (FAMILY, n, MDPS["RL2"][place], settings)
    return found


def measure(name: str, seed: int, more: dict[str, Any]) -> dict[str, Any]:
    """Train one agent, then live in the test tasks."""
    family, n, published, settings = cases()[name]
    start = time.perf_counter()
    settings = {**settings, **more}
    trained = metaql.meta_train(family, agent="recurrent", seed=seed, episodes=(n, n), **settings)
    agent = cast(metaql.RecurrentAgent, trained)
    seconds = round(time.perf_counter() - start, 1)
    tasks = family.tasks(jax.random.key(1_000), TRIALS, "test")
    keys = jax.random.split(jax.random.key(seed), TRIALS)
    total = interval(live(agent.learner, tasks, keys, episodes=n).returns.sum(1))
    say(f"{name}: {total}, RL2 {published}, {seconds} s")
    return {
        "total": total,
        "optimum": round(n * float(jax.jit(jax.vmap(optimal_return))(tasks).mean()), 1),
        "RL2": published,
        "seconds": seconds,
        "train": agent.card["train"],
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--env-steps", type=int, default=None, help="instead of a row's own")
    parser.add_argument("--only", default="", help="rows with this in their name")
    options = parser.parse_args()
    more = {} if options.env_steps is None else {"env_steps": options.env_steps}
    found = {}
    for name in cases():
        if options.only in name:
            jax.clear_caches()  # every program holds mappings of memory, and a process may have so many
            found[name] = measure(name, options.seed, more)
    emit("recurrent_finite", seed=options.seed, trials=TRIALS, rows=found)


if __name__ == "__main__":
    main()
