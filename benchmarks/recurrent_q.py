"""RecurrentQ on hidden goals and hidden physics: what it earns in each episode of a task it never saw.

Protocol, fixed beforehand:

- *GridNavi* (VariBAD, arXiv 1910.08348): 5x5, 4 episodes of 15 steps, trained and measured on the same 21
  goals, as published, each goal once. Bayes-optimal: 4.000, then 11.071 three times, 37.214 in all (a test
  proves it).
- *Dark Room* (arXiv 2210.14215): 9x9, 20 steps, from the centre, 10 episodes; 80 goals, 11 of them held out.
- *Dark Key-to-Door* (same paper): 9x9, 50 steps, from anywhere, 10 episodes; key 1, then door 1; 256 rooms of
  which no pair of key and door was trained on.
- *CartPole*, *Acrobot* and *Pendulum* with hidden physics, 3 episodes of 200 steps: 256 held-out tasks, as
  many beyond the range, and Gymnasium's own environment.

Every figure is a mean over meta-training seeds, with an interval over them (2000 bootstrap samples).

    python benchmarks/recurrent_q.py --only grid_navi --seeds 5
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from _common import emit, say, telling
from jaxtyping import Float

import metaql
from metaql.evaluation.intervals import mean_interval
from metaql.meta.lifetime import live
from metaql.meta.recurrent_agent import RecurrentAgent
from metaql.tasks.exact import optimal_return
from metaql.tasks.families import Acrobot, CartPole, DarkRoom, GridNavi, KeyToDoor, Pendulum
from metaql.tasks.families.base import TaskFamily
from metaql.tasks.families.hidden_goal import HiddenGoal


class Row(NamedTuple):
    """One family: what is trained, how long, and on what it is measured."""

    family: TaskFamily
    episodes: int
    train: dict[str, Any]
    measured: dict[str, Callable[[], Any]]
    """Name -> tasks, ``[N, ...]``."""
    gymnasium: str = ""


def every_goal(family: HiddenGoal) -> Any:
    """Each held-out goal once."""
    return jax.vmap(family.task)(jnp.asarray(family.goals["test"]))


def some(family: TaskFamily, number: int = 256) -> Any:
    """Held-out tasks."""
    return family.tasks(jax.random.key(1_000), number, "test")


NAVI, ROOM = GridNavi(shared=True), DarkRoom()
ROWS = {
    "grid_navi": Row(
        NAVI,
        4,
        {
            "env_steps": 19_900_000,
            "segment_steps": 60,
            "episodes": (4, 4),
            "epochs": 4,
            "explore": 0.7,
            "epsilon_spread": 4.0,
            # What a first search leaves for the second shows late and in little: see far and widen it.
            "action_gap": 0.9,
            "discount": 0.97,
            "episode_discount": 1.0,
        },
        {"all goals": lambda: every_goal(NAVI)},
    ),
    "dark_room": Row(
        ROOM,
        10,
        {"env_steps": 8_000_000, "segment_steps": 100, "episodes": (10, 10)},
        {"held-out goals": lambda: every_goal(ROOM)},
    ),
    "key_to_door": Row(
        KeyToDoor(),
        10,
        {"env_steps": 12_000_000, "segment_steps": 100, "episodes": (10, 10)},
        {"held-out rooms": lambda: some(KeyToDoor())},
    ),
    "cart_pole": Row(
        CartPole(),
        3,
        {"env_steps": 12_000_000, "segment_steps": 100, "episodes": (3, 3)},
        {"held out": lambda: some(CartPole()), "beyond": lambda: some(CartPole(beyond=True))},
        "CartPole-v1",
    ),
    "acrobot": Row(
        Acrobot(),
        3,
        {"env_steps": 12_000_000, "segment_steps": 100, "episodes": (3, 3)},
        {"held out": lambda: some(Acrobot()), "beyond": lambda: some(Acrobot(beyond=True))},
        "Acrobot-v1",
    ),
    "pendulum": Row(
        Pendulum(),
        3,
        {"env_steps": 12_000_000, "segment_steps": 100, "episodes": (3, 3)},
        {"held out": lambda: some(Pendulum()), "beyond": lambda: some(Pendulum(beyond=True))},
        "Pendulum-v1",
    ),
}


def by_episode(agent: RecurrentAgent, tasks: Any, row: Row, seed: int) -> Float[np.ndarray, " E"]:
    """Mean return of every episode over the tasks."""
    keys = jax.random.split(jax.random.key(seed), len(tasks.horizon))
    return live(agent.learner, tasks, keys, episodes=row.episodes).returns.mean(0)


def on_gymnasium(agent: RecurrentAgent, row: Row, lifetimes: int = 10) -> Float[np.ndarray, " E"]:
    """The same in Gymnasium's own code, cut to the family's horizon."""
    env = gymnasium.make(row.gymnasium, max_episode_steps=200)
    lives = [agent.adapt(env, episodes=row.episodes, seed=seed) for seed in range(lifetimes)]
    return np.mean([each.returns for each in lives], axis=0)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train with every seed, then measure everywhere."""
    row = ROWS[name]
    steps = {} if options.env_steps is None else {"env_steps": options.env_steps}
    settings = {**row.train, **steps}
    places: dict[str, list[np.ndarray]] = {}
    seconds, train = [], {}
    for seed in range(options.seed, options.seed + options.seeds):
        start = time.perf_counter()
        agent = metaql.meta_train(
            row.family,
            agent="recurrent",
            seed=seed,
            on_progress=telling(),
            **settings,
        )
        seconds.append(round(time.perf_counter() - start, 1))
        train = agent.card["train"]
        found = {
            where: by_episode(agent, make(), row, seed) for where, make in row.measured.items()
        }
        if row.gymnasium:
            found[row.gymnasium] = on_gymnasium(agent, row)
        for where, returns in found.items():
            places.setdefault(where, []).append(returns)
        say(f"{name}, seed {seed}: {found}, {seconds[-1]} s")
    return {
        "train": train,
        "seconds": seconds,
        "oracle": oracle(row),
        "returns": {where: _with_intervals(np.stack(rows)) for where, rows in places.items()},
    }


def oracle(row: Row) -> float | None:
    """Mean return of an episode that knows the goal; None where there is no exact one."""
    if not isinstance(row.family, HiddenGoal):
        return None
    return round(float(jax.vmap(optimal_return)(every_goal(row.family)).mean()), 4)


def _with_intervals(rows: Float[np.ndarray, "K E"]) -> dict[str, Any]:
    """By episode and in all, over meta-training seeds."""

    def cell(values: Float[np.ndarray, " K"]) -> dict[str, float]:
        found = mean_interval(values)._asdict() if len(values) > 1 else {"mean": values.mean()}
        return {key: round(float(value), 4) for key, value in found.items()}

    return {
        "by_episode": [cell(column) for column in rows.T],
        "total": cell(rows.sum(1)),
        "each_total": [round(float(total), 4) for total in rows.sum(1)],
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="meta-trainings per family")
    parser.add_argument("--seed", type=int, default=0, help="the first of them")
    parser.add_argument("--env-steps", type=int, default=None, help="instead of the row's own")
    parser.add_argument("--only", default="", help="families with this in their name")
    options = parser.parse_args()
    found = {}
    for name in ROWS:
        if options.only in name:
            jax.clear_caches()  # every program holds mappings of memory, and a process may have so many
            found[name] = measure(name, options)
    emit("recurrent_q", seeds=options.seeds, rows=found)


if __name__ == "__main__":
    main()
