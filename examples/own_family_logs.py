"""A family of your own from logs alone: nobody may touch the valves, but what was done with them is known.

Every task is a plant whose valve works with another strength, half of them the wrong way round. Whoever left
the logs turned valves at random. RecurrentQ learns off-policy how to find out about a valve and then to hold
the level, without acting even once; then it adapts to plants that no log shows.

Run it: ``python examples/own_family_logs.py``
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

import metaql


class Valve(gymnasium.Env[Any, Any]):
    """A level that should stay at 0.5."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, gain: float) -> None:
        """Say what a turn of the valve does to the level."""
        self.gain, self.level = gain, 0.0

    def reset(
        self, *, seed: int | None = None, options: Any = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Any level."""
        super().reset(seed=seed)
        self.level = float(self.np_random.uniform(-0.5, 0.5))
        return self.seen(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Down, stay, up."""
        self.level = float(np.clip(self.level + self.gain * (int(action) - 1), -1.0, 1.0))
        return self.seen(), -abs(self.level - 0.5), False, False, {}

    def seen(self) -> np.ndarray:
        """The level, as an observation."""
        return np.array([self.level], np.float32)


def plant(gain: float) -> gymnasium.Env[Any, Any]:
    """Episodes of ten steps."""
    return TimeLimit(Valve(gain), 10)


def log(gain: float, episodes: int = 200) -> dict[str, np.ndarray]:
    """What was written down of one plant; yours comes from a file."""
    env, rng = plant(gain), np.random.default_rng(0)
    rows = []
    for episode in range(episodes):
        (seen, _), over = env.reset(seed=episode), False
        while not over:
            action = int(rng.integers(3))
            later, reward, terminated, over, _ = env.step(action)
            rows.append((seen, action, reward, later, terminated, over))
            seen = later
    names = ("observations", "actions", "rewards", "next_observations", "terminations")
    columns = map(np.array, zip(*rows, strict=True))
    return dict(zip((*names, "truncations"), columns, strict=True))


def main() -> None:
    """Read the logs, train for a moment, adapt to valves that no log shows."""
    logs = {gain: log(gain) for gain in (-0.3, -0.2, -0.15, 0.15, 0.2, 0.3)}
    family = metaql.LoggedFamily(logs, plant(0.2), name="valves")
    # Small and short, for it to end in a moment: leave the sizes out and take millions of steps for your own.
    agent = metaql.meta_train(
        family, seed=0, env_steps=300_000, episodes=(2, 2), hidden=32, width=32
    )
    rewards = np.concatenate([each["rewards"] for each in logs.values()])
    print(f"whoever left the logs: {10 * rewards.mean():.1f} an episode")
    for gain in (-0.25, 0.25):
        lives = [agent.adapt(plant(gain), seed=seed).returns for seed in range(10)]
        print(f"a valve of {gain:+}: returns {np.mean(lives, axis=0).round(1).tolist()}")


if __name__ == "__main__":
    main()
