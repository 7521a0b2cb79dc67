"""The whole way through in one file: train, adapt, act, save, load.

An agent is meta-trained on random 4x4 frozen lakes, then meets Gymnasium's own map, which no map of
the family equals. The training is cut short here so that the example ends within a minute.

Run it: ``python examples/frozen_lake.py``
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import gymnasium
import numpy as np

import metaql
from metaql.meta.adapt import FiniteAdaptation

SUCCESS = "episodes 1-5: {:.0f} of 5, episodes 6-20: {:.0f} of 15"


def play(adapted: FiniteAdaptation, episodes: int) -> float:
    """Share of episodes that reach the goal, without learning any more."""
    env = gymnasium.make("FrozenLake-v1")
    reached = 0.0
    for episode in range(episodes):
        cell, _ = env.reset(seed=episode)
        ended = False
        while not ended:
            action, _ = adapted.predict(cell, deterministic=True)  # as in Stable-Baselines3
            cell, reward, terminated, truncated, _ = env.step(action)
            reached += float(reward)
            ended = terminated or truncated
    return reached / episodes


def main() -> None:
    """Train, adapt, act, save and load."""
    family = metaql.families.frozen_lake(size=4)
    agent = metaql.meta_train(
        family,
        seed=0,
        env_steps=16_384,
        lifetimes=64,
        generations=8,
        bank=128,
        agents=128,
        agent_steps=512,
        on_progress=lambda stage, done, figures: (
            print(f"{stage}: {done:.0%}") if done == 1 else None
        ),
    )

    # Nothing is trained from here on: the agent only remembers what it sees.
    adapted = agent.adapt("FrozenLake-v1", episodes=20, seed=0)
    print(SUCCESS.format(adapted.returns[:5].sum(), adapted.returns[5:].sum()))
    print("best known actions (0 left, 1 down, 2 right, 3 up):")
    print(adapted.q_table().argmax(-1).reshape(4, 4))
    print(f"greedy afterwards, 50 episodes: {play(adapted, 50):.2f} (the optimum is 0.744)")

    with tempfile.TemporaryDirectory() as folder:
        agent.save(Path(folder) / "lake_agent")
        again = metaql.load(Path(folder) / "lake_agent")
    same = again.adapt("FrozenLake-v1", episodes=20, seed=0)
    print(
        "saved, loaded, adapted again: same returns", np.array_equal(same.returns, adapted.returns)
    )


if __name__ == "__main__":
    main()
