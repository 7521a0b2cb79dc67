"""A family of your own, in JAX arrays: ferries.

A ferry has a queue of up to four cars. Waiting costs one point per car and step; sailing costs
three points and empties the queue. How busy the road is differs from place to place: that is what a
learner has to find out anew on every ferry.

Run it: ``python examples/own_family_arrays.py``
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

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


def main() -> None:
    """Sample ferries, look at them and solve them exactly."""
    family = ArrayFamily(ferry, name="ferries", summary="how busy is the road?", shares_states=True)
    tasks = family.tasks(jax.random.key(0), 6, split="train")
    print("transition", tasks.transition.shape, "= tasks, states, actions, next states")

    returns = jax.vmap(exact.optimal_return)(tasks)
    values = jax.vmap(lambda task: exact.optimal_q(task, 0.95))(tasks)
    sails_from = jnp.argmax(values[..., SAIL] > values[..., WAIT], axis=-1)
    print("\n  busy   best return of 50 steps   sails from a queue of")
    for busy, best, cars in zip(tasks.transition[:, 0, WAIT, 1], returns, sails_from, strict=True):
        print(f"  {busy:.2f}   {best:23.2f}   {cars:21d}")

    # One rule for all ferries: the best that can be done without adapting.
    rule = exact.non_adaptive_policy(tasks)
    fixed = jax.vmap(lambda task: exact.policy_return(task, rule))(tasks)
    print(f"\none rule for all: {fixed.mean():.2f}   each ferry's own: {returns.mean():.2f}")


if __name__ == "__main__":
    main()
