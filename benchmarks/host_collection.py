"""How much of a simulator's own step rate is left while RecurrentQ collects lifetimes from it.

Protocol: 128 CartPoles that never fall (a wrapper sets them up again), 200 steps each, RecurrentQ of the
default size deciding for all of them. Beside it Gymnasium's `SyncVectorEnv` of the same environments with
random actions drawn beforehand. The two take turns in one process; the best of several rounds counts, after
compilation.

    python benchmarks/host_collection.py
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import gymnasium
import jax
import numpy as np
from _common import emit, say

import metaql
from metaql.embedding.recurrent import Sight
from metaql.meta.host_lives import live_in_simulators
from metaql.policy.recurrentq import RecurrentQ, Sizes

STEPS = 200


class Upright(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A cart that is set up again where it would have fallen."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step."""
        seen, reward, terminated, truncated, more = self.env.step(action)
        if terminated:
            seen, _ = self.env.reset()
        return seen, reward, False, truncated, more


def cart(task: int) -> gymnasium.Env[Any, Any]:
    """One of many that are alike."""
    del task
    env = Upright(gymnasium.make("CartPole-v1", max_episode_steps=None).unwrapped)
    return gymnasium.wrappers.TimeLimit(env, STEPS)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lifetimes", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    count = options.lifetimes
    family = metaql.SimulatorFamily(cart, {"train": list(range(count))})
    half = count // 2
    parts = [list(range(half)), list(range(half, count))]
    budgets = tuple(np.ones(len(part), np.int32) for part in parts)
    learner = RecurrentQ(jax.random.key(0), sight=Sight(entries=4), actions=(2,), sizes=Sizes())
    vector = gymnasium.vector.SyncVectorEnv([lambda: cart(0) for _ in range(count)])
    actions = np.random.default_rng(0).integers(0, 2, (STEPS, count))
    rates: dict[str, list[float]] = {"simulator": [], "collecting": []}
    for number in range(options.rounds + 1):
        crowds = family.crowds("train", parts)
        start = time.perf_counter()
        live_in_simulators(learner, crowds, budgets, number, length=STEPS, every=STEPS)
        between = time.perf_counter()
        vector.reset(seed=0)
        for row in actions:
            vector.step(row)
        end = time.perf_counter()
        if number:  # the first compiles
            rates["collecting"].append(count * STEPS / (between - start))
            rates["simulator"].append(count * STEPS / (end - between))
            say(f"{ {name: round(rows[-1]) for name, rows in rates.items()} } steps a second")
    best = {name: round(max(rows)) for name, rows in rates.items()}
    share = round(best["collecting"] / best["simulator"], 2)
    emit("host_collection", lifetimes=count, steps_per_second=best, share=share)


if __name__ == "__main__":
    main()
