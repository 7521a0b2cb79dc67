"""Time of one step of an agent that adapts to Gymnasium's FrozenLake-v1, after compilation.

Protocol: the loop of `Agent.adapt` itself: the first call compiles, the others are measured. A
wrapper times the environment's own ``step`` and ``reset``; the agent's part is the difference.
Figures are of whole lifetimes divided by their steps.

    python benchmarks/acting_latency.py --agent frozen_lake
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import gymnasium
import numpy as np
from _common import emit, say

import metaql


class Stopwatch(gymnasium.Wrapper):
    """Counts steps and the seconds spent inside the environment."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.seconds, self.steps = 0.0, 0

    def step(self, action: Any) -> Any:
        """One step, timed."""
        start = time.perf_counter()
        answer = self.env.step(action)
        self.seconds += time.perf_counter() - start
        self.steps += 1
        return answer

    def reset(self, **options: Any) -> Any:
        """One reset, timed."""
        start = time.perf_counter()
        answer = self.env.reset(**options)
        self.seconds += time.perf_counter() - start
        return answer


def measure(name: str, episodes: int, repeats: int, seed: int) -> dict[str, object]:
    """Seconds per step of several lifetimes, the first of which compiles."""
    agent = metaql.load(name)
    total, inside, lived = [], [], []
    for repeat in range(repeats + 1):
        env = Stopwatch(gymnasium.make("FrozenLake-v1"))
        start = time.perf_counter()
        agent.adapt(env, episodes=episodes, seed=seed + repeat)
        seconds = time.perf_counter() - start
        total.append(seconds if repeat == 0 else seconds / env.steps)
        inside.append(env.seconds / env.steps)
        lived.append(env.steps)
        say(f"lifetime {repeat}: {env.steps} steps in {seconds:.3f} s")
    ours = np.asarray(total[1:]) - np.asarray(inside[1:])
    return {
        "agent": name,
        "episodes": episodes,
        "steps": lived[1:],
        "milliseconds_per_step": {
            "total, best": round(1e3 * min(total[1:]), 3),
            "total, median": round(1e3 * float(np.median(total[1:])), 3),
            "agent, best": round(1e3 * float(ours.min()), 3),
            "agent, median": round(1e3 * float(np.median(ours)), 3),
            "environment, median": round(1e3 * float(np.median(inside[1:])), 3),
        },
        "first_lifetime_seconds": round(total[0], 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", default="frozen_lake", help="folder or name of a shipped agent")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = measure(options.agent, options.episodes, options.repeats, options.seed)
    emit("acting_latency", seed=options.seed, **found)
