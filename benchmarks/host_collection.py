"""How much of a simulator's own step rate is left while RecurrentQ collects lifetimes from it.

Protocol: 128 (the default), 256 and 512 environments that never end by themselves (a wrapper sets them up
again), stepped for one episode cut off by the clock, RecurrentQ of the default size deciding for all of them.
It explores only: setting up takes time too, and a cart pushed to one side falls sooner. Beside it Gymnasium's
`SyncVectorEnv` of the same environments with random actions drawn beforehand. The two take turns in one
process; the best of several rounds counts, after compilation. Reacher only where MuJoCo is installed.

    python benchmarks/host_collection.py
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import time
from typing import Any

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from _common import emit, say

import metaql
from metaql.embedding.recurrent import Sight
from metaql.meta.host_lives import live_in_simulators
from metaql.policy.network import Sizes
from metaql.policy.recurrentq import RecurrentQ

STEPS = {"CartPole-v1": 200, "Acrobot-v1": 100, "Reacher-v5": 50}
"""Simulators, and the steps of an episode."""


class Endless(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment that is set up again where it would have ended."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step."""
        seen, reward, terminated, truncated, more = self.env.step(action)
        if terminated:
            seen, _ = self.env.reset()
        return seen, reward, False, truncated, more


def simulator(name: str, task: int = 0) -> gymnasium.Env[Any, Any]:
    """One of many that are alike."""
    del task
    endless = Endless(gymnasium.make(name, max_episode_steps=None).unwrapped)
    return gymnasium.wrappers.TimeLimit(endless, STEPS[name])


class Collecting:
    """RecurrentQ living one episode in each of many simulators."""

    def __init__(self, name: str, count: int) -> None:
        make = functools.partial(simulator, name)
        self.family = metaql.SimulatorFamily(make, {"train": list(range(count))})
        self.parts = [part.tolist() for part in np.array_split(np.arange(count), 2)]
        self.steps = STEPS[name]
        host = self.family.crowd("train", [0]).hosts[0]
        sight, actions = Sight(entries=host.num_states), host.action.shape
        learner = RecurrentQ(jax.random.key(0), sight=sight, actions=actions, sizes=Sizes())
        self.learner = eqx.tree_at(lambda q: q.epsilon, learner, jnp.ones(()))

    def __call__(self, seed: int) -> None:
        """One round."""
        crowds = self.family.crowds("train", self.parts)
        budgets = tuple(np.ones(len(part), np.int32) for part in self.parts)
        lives = live_in_simulators(
            self.learner, crowds, budgets, seed, length=self.steps, every=self.steps
        )
        jax.block_until_ready(lives)


class Stepping:
    """Gymnasium's own stepping of as many, with nobody deciding."""

    def __init__(self, name: str, count: int) -> None:
        make = functools.partial(simulator, name)
        self.vector = gymnasium.vector.SyncVectorEnv([make] * count)
        self.vector.action_space.seed(0)
        self.actions = [self.vector.action_space.sample() for _ in range(STEPS[name])]

    def __call__(self, seed: int) -> None:
        """One round."""
        self.vector.reset(seed=seed)
        for row in self.actions:
            self.vector.step(row)


def measured(name: str, count: int, rounds: int) -> dict[str, Any]:
    """Best rates of so many of one simulator, and the share that is left."""
    ways = {"simulator": Stepping(name, count), "collecting": Collecting(name, count)}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, run in ways.items():
            start = time.perf_counter()
            run(number)
            if number:  # the first compiles
                rates[way].append(count * STEPS[name] / (time.perf_counter() - start))
        if number:
            last = {way: round(row[-1]) for way, row in rates.items()}
            say(f"{name}, {count}: {last} steps a second")
    best = {way: round(max(row)) for way, row in rates.items()}
    share = round(best["collecting"] / best["simulator"], 2)
    return {"steps_per_second": best, "share": share}


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lifetimes", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=STEPS, nargs="+", default=list(STEPS))
    options = parser.parse_args()
    names = list(options.only)
    if importlib.util.find_spec("mujoco") is None and "Reacher-v5" in names:
        names.remove("Reacher-v5")
    found = {
        name: {count: measured(name, count, options.rounds) for count in options.lifetimes}
        for name in names
    }
    emit("host_collection", simulators=found)


if __name__ == "__main__":
    main()
