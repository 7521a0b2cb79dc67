"""A family of your own, from a function that makes Gymnasium environments: lifts.

A lift stands on one of five floors; its rider wants to go to a floor that the display does not
show. Reaching it pays 1 and ends the ride. Which floor is wanted differs from lift to lift. The
environment publishes no table, so each task is estimated by exploring it. The example meta-trains an
agent on such lifts for a moment and then lets it ride one that was not among them.

Run it: ``python examples/own_family_gymnasium.py``
"""

from __future__ import annotations

from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

import metaql
from metaql.tasks import exact
from metaql.tasks.families.custom import environment_family

FLOORS = 5


class Lift(gymnasium.Env[Any, Any]):
    """Actions: 0 down, 1 up. The door jams one time in four, and the lift stays where it is."""

    def __init__(self, wanted: int, start: int) -> None:
        self.observation_space = spaces.Discrete(FLOORS)
        self.action_space = spaces.Discrete(2)
        self.wanted, self.start = wanted, start
        self.floor = start

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Begin a ride on the start floor."""
        super().reset(seed=seed)
        self.floor = self.start
        return self.floor, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Move one floor unless the door jams."""
        if self.np_random.random() >= 0.25:
            self.floor = int(np.clip(self.floor + (1 if action == 1 else -1), 0, FLOORS - 1))
        arrived = self.floor == self.wanted
        return self.floor, float(arrived), arrived, False, {}


def make_lift(seed: int) -> gymnasium.Env[Any, Any]:
    """Make the lift of one seed; rides end after six steps at the latest."""
    rng = np.random.default_rng(seed)
    wanted, start = rng.choice(FLOORS, size=2, replace=False)
    return TimeLimit(Lift(int(wanted), int(start)), max_episode_steps=6)


def main() -> None:
    """Sample lifts, solve them exactly, train on the family and ride a new lift."""
    family = environment_family(
        make_lift,
        num_tasks={"train": 16, "validation": 8, "test": 24},
        name="lifts",
        shares_states=True,
        estimate_steps=2_000,
    )
    for split, pool in family.pools.items():
        print(f"{split:10} {pool.initial.shape[0]:2d} lifts")

    tasks = family.tasks(jax.random.key(0), 4, split="test")
    best = jax.vmap(exact.optimal_return)(tasks)
    values = jax.vmap(lambda task: exact.plan_horizon(exact.model_of(task), task.horizon))(tasks)
    print("\nfour test lifts: start floor, best success rate, best actions by floor (0 down, 1 up)")
    for start, success, q in zip(tasks.initial.argmax(-1), best, values, strict=True):
        print(f"  {start}   {success:.3f}   {q.argmax(-1)}")

    # Far too short for a good agent; a real run leaves these settings at their defaults.
    agent = metaql.meta_train(
        family,
        seed=0,
        env_steps=16_384,
        lifetimes=64,
        generations=8,
        bank=64,
        agents=64,
        agent_steps=256,
    )

    lift = make_lift(1_000)  # an environment as any other: the agent sees floors and rewards only
    adapted = agent.adapt(lift, episodes=10, seed=0)
    print("\na new lift, return of each of 10 rides:", adapted.returns.astype(int))
    floor, _ = lift.reset(seed=1)
    ride, ended = [floor], False
    while not ended:
        action, _ = adapted.predict(floor)
        floor, _, terminated, truncated, _ = lift.step(action)
        ride.append(floor)
        ended = terminated or truncated
    print("one more ride:", " -> ".join(map(str, ride)))


if __name__ == "__main__":
    main()
