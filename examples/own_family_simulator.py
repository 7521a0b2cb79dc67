"""A family of your own from Gymnasium simulators: CartPole with a motor of unknown direction and strength.

Where a task exists as a simulator only, give a function that makes an environment from what tells tasks
apart, and the tasks of each split. They are stepped side by side on the host; RecurrentQ learns from whole
lifetimes of two episodes. The example trains for a moment, adapts to a motor that was not among the training
tasks, and then lets gradient steps adapt the weights as well.

Run it: ``python examples/own_family_simulator.py``
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

import metaql


def cart(force: float) -> gymnasium.Env[Any, Any]:
    """A cart whose action 1 pushes by ``force`` newton: to the left, if it is negative."""
    env = gymnasium.make("CartPole-v1", max_episode_steps=100)
    env.unwrapped.force_mag = force  # pyright: ignore[reportAttributeAccessIssue]
    return env


def motors(rng: np.random.Generator, number: int) -> list[float]:
    """Forces of 5 to 15 newton, either way round."""
    return [float(rng.uniform(5.0, 15.0) * rng.choice([-1.0, 1.0])) for _ in range(number)]


def main() -> None:
    """Train for a moment, then adapt to a motor that was not among the training tasks."""
    rng = np.random.default_rng(0)
    family = metaql.SimulatorFamily(
        cart, {"train": motors(rng, 64), "test": motors(rng, 8)}, name="motors"
    )
    agent = metaql.meta_train(
        family, seed=0, episodes=(2, 2), lifetimes=32, minibatches=4, env_steps=200_000
    )
    env = family.open("test", 0)
    adapted = agent.adapt(env, seed=1)
    print("in context:       ", adapted.returns.tolist())
    by_gradient = agent.adapt_by_gradient(env, lifetimes=3, seed=1)
    print("and by gradient:  ", by_gradient.returns.tolist())
    action, _ = by_gradient.predict(np.zeros(4, np.float32))
    print("action when upright and at rest:", action)


if __name__ == "__main__":
    main()
