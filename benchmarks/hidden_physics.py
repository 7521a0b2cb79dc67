"""Hidden physics: how much of what can be had by knowing it is had by finding out.

Protocol, fixed beforehand: CartPole, Acrobot and Pendulum with hidden physics (`metaql.families`), 3 episodes
of 200 steps, 256 held-out tasks and as many beyond the training range. Score of episodes 2 and 3:
(adapted - best non-adaptive) / (oracle - best non-adaptive), with a 95% interval over tasks (paired bootstrap
of the ratio).

- *adapted*: RecurrentQ.
- *best non-adaptive*: the same without an embedding, trained on the same steps.
- *oracle*: the same as the second, but the constants of the task are part of its observations; for tasks
  beyond the range it is trained beyond the range. CartPole's is 200, the most there is.

    python benchmarks/hidden_physics.py
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import numpy as np
from _common import emit, say, telling
from _told import Told
from jaxtyping import Float

import metaql
from metaql.meta.lifetime import live
from metaql.meta.recurrent_agent import RecurrentAgent
from metaql.tasks.families import Acrobot, CartPole, Pendulum
from metaql.tasks.families.base import TaskFamily
from metaql.tasks.families.physics import PhysicsFamily

EPISODES, TASKS = 3, 256
FAMILIES: dict[str, type[PhysicsFamily]] = {
    "cart_pole": CartPole,
    "acrobot": Acrobot,
    "pendulum": Pendulum,
}
MOST = {"cart_pole": 200.0}


def trained(family: TaskFamily, options: argparse.Namespace, **more: Any) -> RecurrentAgent:
    """A RecurrentQ, or what is left of it."""
    start = time.perf_counter()
    agent = metaql.meta_train(
        family,
        agent="recurrent",
        seed=options.seed,
        env_steps=options.env_steps,
        segment_steps=100,
        episodes=(EPISODES, EPISODES),
        on_progress=telling(),
        **more,
    )
    say(f"{family.name} {more}: {time.perf_counter() - start:.0f} s")
    return agent


def lived(agent: RecurrentAgent, family: TaskFamily, seed: int) -> Float[np.ndarray, "N E"]:
    """Return of every episode in every test task."""
    tasks = family.tasks(jax.random.key(1_000), TASKS, "test")
    keys = jax.random.split(jax.random.key(seed), TASKS)
    return live(agent.learner, tasks, keys, episodes=EPISODES).returns


def scored(
    adapted: Float[np.ndarray, "N E"],
    usual: Float[np.ndarray, "N E"],
    oracle: Float[np.ndarray, "N E"],
) -> dict[str, Any]:
    """The score of the later episodes, and what it is made of."""
    rows = np.stack([each[:, 1:].mean(1) for each in (adapted, usual, oracle)])
    draws = np.random.default_rng(0).integers(0, rows.shape[1], (2000, rows.shape[1]))
    means = rows[:, draws].mean(-1)
    ratios = (means[0] - means[1]) / (means[2] - means[1])
    whole = rows.mean(1)
    low, high = np.quantile(ratios, (0.025, 0.975))
    score = (whole[0] - whole[1]) / (whole[2] - whole[1])
    return {
        "score": round(float(score), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
        "by_episode": {
            name: [round(float(value), 2) for value in each.mean(0)]
            for name, each in (("adapted", adapted), ("usual", usual), ("oracle", oracle))
        },
    }


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train who is compared, then compare within the range and beyond."""
    family = FAMILIES[name]
    adaptive, usual = trained(family(), options), trained(family(), options, context=False)
    found = {}
    for where, beyond in (("held out", False), ("beyond", True)):
        place = family(beyond=beyond)
        rows = [lived(agent, place, options.seed) for agent in (adaptive, usual)]
        if name in MOST:
            oracle = np.full_like(rows[0], MOST[name])
        else:
            told = Told(place)
            oracle = lived(trained(told, options, context=False), told, options.seed)
        found[where] = scored(rows[0], rows[1], oracle)
        say(f"{name}, {where}: {found[where]}")
    return found


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--env-steps", type=int, default=12_000_000)
    parser.add_argument("--only", default="", help="families with this in their name")
    options = parser.parse_args()
    found = {}
    for name in FAMILIES:
        if options.only in name:
            jax.clear_caches()  # every program holds mappings of memory, and a process may have so many
            found[name] = measure(name, options)
    emit("hidden_physics", seed=options.seed, env_steps=options.env_steps, rows=found)


if __name__ == "__main__":
    main()
