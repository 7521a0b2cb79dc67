"""Time FiniteQ takes: of a step with 1,000 states met, and of one command from start to end.

Protocol, step: a random MDP of 1,000 states and 10 actions whose pairs have up to 3 successors;
episodes of 20 steps start in one state after the other. The loop is that of `adapt`. A step is the time
between two answers of the environment; those after all states were met (and the arrays had grown for
the last time) are measured. Protocol, command: ``metaql adapt FrozenLake-v1 --episodes 50`` in a new
process, import and compilation included. Seconds of processor time stand beside those on the clock:
where other work runs on the machine, only the first can be compared.

    python benchmarks/finite_latency.py --agent finite
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from typing import Any

import gymnasium
import numpy as np
from _common import emit, say
from gymnasium import spaces

import metaql


class Wide(gymnasium.Env):
    """A random MDP with few successors per pair; notes when each step was asked for."""

    def __init__(self, states: int, actions: int, successors: int, horizon: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.observation_space = spaces.Discrete(states)
        self.action_space = spaces.Discrete(actions)
        self.onto = rng.integers(states, size=(states, actions, successors))
        self.pay = rng.normal(size=(states, actions))
        self.horizon, self.start = horizon, -1
        self.met: set[int] = set()
        self.times: list[tuple[float, float, int]] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        """Start in the next state."""
        super().reset(seed=seed)
        self.start = (self.start + 1) % len(self.onto)
        self.state, self.clock = self.start, 0
        self.met.add(self.state)
        return self.state, {}

    def step(self, action: Any) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """One step."""
        self.times.append((time.perf_counter(), time.process_time(), len(self.met)))
        reward = float(self.pay[self.state, action])
        choices = self.onto[self.state, action]
        self.state = int(choices[self.np_random.integers(len(choices))])
        self.clock += 1
        self.met.add(self.state)
        return self.state, reward, False, self.clock >= self.horizon, {}


def steps(name: str, states: int, actions: int, measured: int, seed: int) -> dict[str, Any]:
    """Milliseconds per step when all states were met."""
    env = Wide(states, actions, successors=3, horizon=20, seed=seed)
    agent, start = metaql.load(name), time.perf_counter()
    # Each episode meets at least one state more.
    agent.adapt(env, episodes=states // 4 + measured // 20, seed=seed)
    say(f"{len(env.times)} steps in {time.perf_counter() - start:.1f} s, {len(env.met)} states met")
    rows = np.asarray(env.times)
    took = 1e3 * np.diff(rows[:, :2], axis=0)[-measured:]
    return {
        "states met at the start of the measurement": int(rows[-measured, 2]),
        "milliseconds": {
            "clock, median": round(float(np.median(took[:, 0])), 2),
            "clock, 10th percentile": round(float(np.quantile(took[:, 0], 0.1)), 2),
            "processor, median": round(float(np.median(took[:, 1])), 2),
            "processor, 10th percentile": round(float(np.quantile(took[:, 1], 0.1)), 2),
        },
    }


def command(name: str, repeats: int) -> dict[str, Any]:
    """Seconds of the whole command, the best of some."""
    words = ["adapt", "FrozenLake-v1", "--agent", name, "--episodes", "50", "--json", "-q"]
    clock, processor = [], []
    for _ in range(repeats):
        used, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "metaql", *words], check=True, stdout=subprocess.DEVNULL
        )
        clock.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        both = after.ru_utime - used.ru_utime + after.ru_stime - used.ru_stime
        processor.append(both)
        say(f"command: {clock[-1]:.2f} s on the clock, {both:.2f} s of processor")
    return {
        "seconds": {
            "clock, best": round(min(clock), 2),
            "processor, best": round(min(processor), 2),
        }
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", default="finite", help="folder or name of a shipped agent")
    parser.add_argument("--states", type=int, default=1000)
    parser.add_argument("--actions", type=int, default=10)
    parser.add_argument("--measured", type=int, default=1000, help="steps")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    size = (options.states, options.actions, options.measured)
    emit(
        "finite_latency",
        agent=options.agent,
        seed=options.seed,
        step={"states": options.states, "actions": options.actions}
        | steps(options.agent, *size, options.seed),
        command=command(options.agent, options.repeats),
    )
