"""A family of your own, from a function that makes Gymnasium environments: lifts.

A lift stands on one of five floors; its rider wants to go to a floor that the display does not
show. Reaching it pays 1 and ends the ride. Which floor is wanted differs from lift to lift. The
environment publishes no table, so each task is estimated by exploring it.

Run it: ``python examples/own_family_gymnasium.py``
"""

from __future__ import annotations

from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from metaql.tasks import exact
from metaql.tasks.families.custom import environment_family
from metaql.tasks.gymnasium import estimate_task, open_environment

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
    """Sample lifts, look at them, solve them exactly and ride one of them."""
    family = environment_family(
        make_lift,
        num_tasks={"train": 8, "validation": 12, "test": 24},
        name="lifts",
        shares_states=True,
        estimate_steps=2_000,
    )
    for split, pool in family.pools.items():
        # Lifts that an earlier split holds are left out: no test lift was seen in training.
        print(f"{split:10} {pool.initial.shape[0]:2d} lifts")

    tasks = family.tasks(jax.random.key(0), 4, split="test")
    best = jax.vmap(exact.optimal_return)(tasks)
    values = jax.vmap(lambda task: exact.plan_horizon(exact.model_of(task), task.horizon))(tasks)
    print("\nfour test lifts: start floor, best success rate, best actions by floor (0 down, 1 up)")
    for start, success, q in zip(tasks.initial.argmax(-1), best, values, strict=True):
        print(f"  {start}   {success:.3f}   {q.argmax(-1)}")

    lift = open_environment(make_lift(0))
    model = exact.model_of(estimate_task(lift, steps=2_000))
    policy = np.asarray(exact.plan_horizon(model, lift.horizon)).argmax(-1)
    state, floors, ended = lift.reset(seed=0), [], False
    while not ended:
        floors.append(state)
        state, _, terminated, truncated = lift.step(int(policy[state]))
        ended = terminated or truncated
    print("\none ride:", " -> ".join(map(str, [*floors, state])))


if __name__ == "__main__":
    main()
