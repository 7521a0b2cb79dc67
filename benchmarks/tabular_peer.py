"""Updates per second of tabular Q-learning elsewhere, on FrozenLake-v1's map (one agent).

Needs Gymnasium only, neither jax nor metaql, so that it runs in an environment of its own; measures

- a plain Python loop over the Gymnasium environment, written here, and
- MushroomRL's ``QLearning`` in its own ``Core`` loop on its own ``FiniteMDP`` with the same table (its
  adapter is for the old Gym), if it is installed; otherwise said to stderr.

    pip install mushroom-rl gymnasium && python benchmarks/tabular_peer.py
    python benchmarks/tabular_throughput.py --peer-python PATH/TO/THAT/python
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

ENVIRONMENT = "FrozenLake-v1"
GAMMA, STEP_SIZE, EPSILON = 0.99, 0.1, 0.1


def plain_loop(steps: int) -> None:
    """Epsilon-greedy Q-learning, one environment, NumPy table."""
    env = gymnasium.make(ENVIRONMENT)
    rng = np.random.default_rng(0)
    q = np.zeros((16, 4))
    state, _ = env.reset(seed=0)
    for _ in range(steps):
        explore = rng.random() < EPSILON
        action = int(rng.integers(4)) if explore else int(q[state].argmax())
        after, reward, terminated, truncated, _ = env.step(action)
        target = reward + GAMMA * (1.0 - terminated) * q[after].max()
        q[state, action] += STEP_SIZE * (target - q[state, action])
        state = after if not (terminated or truncated) else env.reset()[0]


def published_table() -> tuple[np.ndarray, np.ndarray]:
    """Transition probabilities and rewards ``[S, A, S]``; rows of states that end are zero."""
    table: dict[int, Any] = getattr(gymnasium.make(ENVIRONMENT).unwrapped, "P")  # noqa: B009
    p, reward = np.zeros((2, len(table), 4, len(table)))
    entries = [(s, a, each) for s in table for a in table[s] for each in table[s][a]]
    over = {after for _, _, (_, after, _, ended) in entries if ended}
    for s, a, (share, after, gain, _) in entries:
        p[s, a, after] += 0.0 if s in over else share
        reward[s, a, after] = max(gain, reward[s, a, after])
    return p, reward


def mushroom_loop() -> Callable[[int], None]:
    """MushroomRL's own agent, environment adapter and loop.

    Raises:
        ImportError: it is not installed.
    """
    value = importlib.import_module("mushroom_rl.algorithms.value")
    core = importlib.import_module("mushroom_rl.core")
    environments = importlib.import_module("mushroom_rl.environments")
    policies = importlib.import_module("mushroom_rl.policy")
    parameters = importlib.import_module("mushroom_rl.utils.parameters")

    def loop(steps: int) -> None:
        p, reward = published_table()
        start = np.eye(len(p))[0]
        mdp = environments.FiniteMDP(p, reward, mu=start, gamma=GAMMA, horizon=100)
        policy = policies.EpsGreedy(epsilon=parameters.Parameter(EPSILON))
        rate = parameters.Parameter(STEP_SIZE)
        agent = value.QLearning(mdp.info, policy, learning_rate=rate)
        core.Core(agent, mdp).learn(n_steps=steps, n_steps_per_fit=1, quiet=True)

    return loop


def measure(loop: Callable[[int], None], steps: int, repeats: int) -> dict[str, float]:
    """Best of several."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        loop(steps)
        seconds.append(time.perf_counter() - start)
    return {"steps": steps, "updates_per_second": round(steps / min(seconds))}


def main() -> None:
    """Measure what is installed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    found = {"plain Python loop": measure(plain_loop, options.steps, options.repeats)}
    try:
        loop = mushroom_loop()
    except ImportError as error:
        print(f"MushroomRL is left out: {error}", file=sys.stderr)
    else:
        version = importlib.metadata.version("mushroom-rl")
        found[f"MushroomRL {version}"] = measure(loop, options.steps, options.repeats)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
