"""RecurrentQ on HalfCheetah-vel: a simulated runner that must keep a speed nobody tells it.

Protocol, as PEARL (Rakelly et al. 2019, arXiv 1903.08254) and MQL (arXiv 1910.00125) report it: 100 training
and 30 test speeds, uniform from 0 to 3 m/s, episodes of 200 steps; the reward is minus the distance
to the target speed, less 0.05 times the squared action. Gymnasium's HalfCheetah-v5 (theirs was an older model
of the body). 2 episodes to a lifetime; 3 levels of torque for each of 6 joints, each with a value of its own.
Mean return of each episode over held-out tasks; needs ``gymnasium[mujoco]`` and ``mujoco < 4``.

    python benchmarks/half_cheetah_vel.py
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from _common import emit, telling
from _simulated import returns

import metaql

LEVELS = (-1.0, 0.0, 1.0)
EPISODES, STEPS = 2, 200


class Paced(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A runner with a target speed in m/s."""

    def __init__(self, speed: float) -> None:
        super().__init__(gymnasium.make("HalfCheetah-v5", max_episode_steps=STEPS))
        self.speed = speed

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step; the reward is that of the target speed."""
        seen, _, terminated, truncated, more = self.env.step(action)
        reward = -abs(more["x_velocity"] - self.speed) - 0.05 * float(np.square(action).sum())
        return seen, reward, terminated, truncated, more


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--env-steps", type=int, default=6_000_000)
    parser.add_argument(
        "--run", type=Path, help="folder of the training, which goes on where it stopped"
    )
    options = parser.parse_args()
    speeds = np.random.default_rng(0).uniform(0.0, 3.0, 130).tolist()
    tasks = {"train": speeds[:100], "test": speeds[100:]}
    runners = metaql.SimulatorFamily(Paced, tasks, name="half_cheetah_vel", levels=LEVELS)
    start = time.perf_counter()
    agent = metaql.meta_train(
        runners,
        seed=options.seed,
        env_steps=options.env_steps,
        run=options.run,
        resume=options.run is not None and options.run.exists(),
        episodes=(EPISODES, EPISODES),
        segment_steps=50,
        lifetimes=24,
        minibatches=8,
        epochs=16,
        action_gap=0.9,
        hidden=128,
        width=256,
        on_progress=telling(),
    )
    seconds = round(time.perf_counter() - start, 1)
    emit(
        "half_cheetah_vel",
        seed=options.seed,
        env_steps=agent.card["env_steps"],
        seconds=seconds,
        settings=agent.card["train"],
        returns=returns(agent, runners, EPISODES),
    )


if __name__ == "__main__":
    main()
