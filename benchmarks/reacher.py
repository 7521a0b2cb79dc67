"""RecurrentQ on a simulated arm: Gymnasium's Reacher-v5 with a hidden goal and motors of hidden polarity.

Protocol, fixed beforehand: the goal stays the same in a task and is not seen (entries 4:6 and 8:10 of the
observation are zero); each of the two motors may be wired the other way round (``actuator_gear`` times -1).
Training goals lie in 6 of 8 angular sectors, held-out ones in the two others; polarities are free.
3 episodes of 50 steps; 7 levels of torque per joint. Beside it stands no torque at all. Mean return of each
episode over held-out tasks; needs ``gymnasium[mujoco]`` and ``mujoco < 4``.

    python benchmarks/reacher.py
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import gymnasium
import jax
import numpy as np
from _common import emit, telling
from _simulated import returns

import metaql

LEVELS = (-1.0, -0.3, -0.1, 0.0, 0.1, 0.3, 1.0)
SECTORS = {"train": (0, 1, 3, 4, 5, 7), "test": (2, 6)}
EPISODES, STEPS = 3, 50
Task = tuple[float, float, int, int]
"""Goal (x, y) in metres, and the direction of each motor."""


class HiddenReacher(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The arm of one task."""

    def __init__(self, task: Task) -> None:
        super().__init__(gymnasium.make("Reacher-v5"))
        self.goal = np.asarray(task[:2])
        arm: Any = self.env.unwrapped
        arm.model.actuator_gear[:, 0] *= task[2:]

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Start with the goal of the task."""
        self.env.reset(**options)
        arm: Any = self.env.unwrapped
        position = np.array(arm.data.qpos)
        position[2:] = arm.goal = self.goal
        arm.set_state(position, np.array(arm.data.qvel))
        return self._hidden(arm._get_obs()), {}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step; the goal and the way to it are not seen."""
        seen, reward, terminated, truncated, more = self.env.step(action)
        return self._hidden(seen), reward, terminated, truncated, more

    def _hidden(self, seen: np.ndarray) -> np.ndarray:
        seen[4:6] = seen[8:10] = 0.0
        return seen


def draw(rng: np.random.Generator, split: str) -> Task:
    """A goal in a sector of the split, and two polarities."""
    angle = (rng.choice(SECTORS[split]) + rng.random()) * math.tau / 8
    reach = 0.2 * math.sqrt(rng.uniform(0.05, 1.0))
    signs = rng.choice([-1, 1], 2)
    return reach * math.cos(angle), reach * math.sin(angle), int(signs[0]), int(signs[1])


def family(tasks: int, held_out: int) -> metaql.SimulatorFamily:
    """So many arms of each split."""
    pools = {"train": tasks, "test": held_out}
    drawn = {}
    for number, (split, count) in enumerate(pools.items()):
        rng = np.random.default_rng((0, number))
        drawn[split] = [draw(rng, split) for _ in range(count)]
    return metaql.SimulatorFamily(HiddenReacher, drawn, name="reacher", levels=LEVELS)


def idle(arms: metaql.SimulatorFamily) -> float:
    """Mean return of no torque at all."""
    count = len(arms.tasks["test"])
    crowd, everyone = arms.crowd("test", range(count)), np.ones(count, bool)
    crowd.reset(everyone, list(range(count)))
    still = np.full((count, 2), LEVELS.index(0.0))
    return float(sum(crowd.step(still, everyone).reward.mean() for _ in range(STEPS)))


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--env-steps", type=int, default=3_000_000)
    parser.add_argument("--tasks", type=int, default=2_048, help="training tasks")
    parser.add_argument("--held-out", type=int, default=256)
    options = parser.parse_args()
    arms, start = family(options.tasks, options.held_out), time.perf_counter()
    agent = metaql.meta_train(
        arms,
        seed=options.seed,
        env_steps=options.env_steps,
        episodes=(EPISODES, EPISODES),
        segment_steps=STEPS,
        lifetimes=64,
        epochs=6,
        hidden=128,
        width=256,
        features=32,
        on_progress=telling(),
    )
    seconds = round(time.perf_counter() - start, 1)
    found = returns(agent, arms, EPISODES)
    jax.clear_caches()
    emit(
        "reacher",
        seed=options.seed,
        env_steps=agent.card["env_steps"],
        seconds=seconds,
        settings=agent.card["train"],
        returns=found,
        no_torque=round(idle(arms), 2),
    )


if __name__ == "__main__":
    main()
