"""A family of your own, in JAX arrays: ferries.

A ferry has a queue of up to four cars. Waiting costs one point per car and step; sailing costs
three points and empties the queue. How busy the road is differs from place to place: that is what a
learner has to find out anew on every ferry. The example looks at the family, meta-trains an agent
on it for a moment, and lets the agent live on ferries it never saw.

Run it: ``python examples/own_family_arrays.py``
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import metaql
from metaql.meta.lifetime import live
from metaql.tasks import exact
from metaql.tasks.families.custom import ArrayFamily
from metaql.tasks.finite import FiniteTask, finite_task
from metaql.types import PRNGKey

QUEUE = np.arange(5)
WAIT, SAIL = 0, 1

# What all ferries share. It is checked here, once; the probabilities are filled in for each ferry.
TEMPLATE = finite_task(
    transition=np.full((5, 2, 5), 0.2),
    reward=np.stack([-QUEUE, np.full(5, -3)], axis=-1),
    horizon=50,
)


def ferry(key: PRNGKey) -> FiniteTask:
    """Draw one ferry: with probability ``busy`` a car arrives in a step."""
    busy = jax.random.uniform(key, minval=0.05, maxval=0.95)
    stays, grows = jnp.eye(5), jnp.eye(5)[np.minimum(QUEUE + 1, 4)]
    waiting = (1 - busy) * stays + busy * grows
    sailing = jnp.broadcast_to(waiting[0], (5, 5))  # the queue is empty, then a car may arrive
    return TEMPLATE._replace(transition=jnp.stack([waiting, sailing], axis=1))


def look(family: ArrayFamily) -> None:
    """Sample ferries and solve them exactly."""
    tasks = family.tasks(jax.random.key(0), 6, split="train")
    print("transition", tasks.transition.shape, "= tasks, states, actions, next states")

    returns = jax.vmap(exact.optimal_return)(tasks)
    values = jax.vmap(lambda task: exact.optimal_q(task, 0.95))(tasks)
    sails_from = jnp.argmax(values[..., SAIL] > values[..., WAIT], axis=-1)
    print("\n  busy   best return of 50 steps   sails from a queue of")
    for busy, best, cars in zip(tasks.transition[:, 0, WAIT, 1], returns, sails_from, strict=True):
        print(f"  {busy:.2f}   {best:23.2f}   {cars:21d}")


def main() -> None:
    """Look at the family, train on it, adapt to ferries of the test split."""
    family = ArrayFamily(ferry, name="ferries", summary="how busy is the road?", shares_states=True)
    look(family)

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

    # Each of 64 test ferries is lived on for 5 episodes; the agent is told nothing of them.
    tasks = family.tasks(jax.random.key(1), 64, split="test")
    learner = agent.learner_for(num_states=5, num_actions=2)
    lives = live(learner, tasks, jax.random.split(jax.random.key(2), 64), episodes=5)
    print("\nmean return of episodes 1 to 5:", np.round(lives.returns.mean(axis=0), 2))

    # One rule for all ferries: the best that can be done without adapting.
    rule = exact.non_adaptive_policy(family.tasks(jax.random.key(3), 256, split="train"))
    fixed = jax.vmap(lambda task: exact.policy_return(task, rule))(tasks)
    best = jax.vmap(exact.optimal_return)(tasks)
    print(f"one rule for all: {fixed.mean():.2f}   each ferry's own optimum: {best.mean():.2f}")


if __name__ == "__main__":
    main()
