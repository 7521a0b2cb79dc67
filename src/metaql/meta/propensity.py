"""How likely logged experience is of the task at hand: weights for learning from other tasks' lifetimes.

A logistic regression tells embeddings met in the new task from those of the replay; the odds that it gives a
replayed step are how much more common such steps are in the new task (Fakoor et al. 2020, Meta-Q-Learning,
arXiv 1910.00125, eq. 10-13). How even the weights are is the effective sample size: the less of the replay
is alike, the nearer adapted weights should stay to what they were (eq. 17).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_RIDGE = 0.01
"""Penalty on the coefficients: with few steps of the new task, classes must not be told apart by chance."""
_NEWTON = 8
_MOST = 20.0
"""Largest weight."""


class Propensity(NamedTuple):
    """Weights of the replay."""

    weight: Float[Array, " M"]
    """Odds that a step is of the new task, times the ratio of the classes' sizes; 0 where none was lived."""
    effective: Float[Array, ""]
    """Effective sample size over the number of steps, in (0, 1], less where the replay has nothing alike."""


def propensity(
    new: Float[Array, "N F"],
    old: Float[Array, "M F"],
    alive: Float[Array, " N"],
    old_alive: Float[Array, " M"],
) -> Propensity:
    """Weights of old samples.

    Args:
        new: features of the new task.
        old: features of the replay.
        alive: which rows of ``new`` count, 1 or 0.
        old_alive: which rows of ``old`` count.
    """
    rows = jnp.concatenate([new, old])
    # Both classes count the same: odds are then ratios of densities.
    share = jnp.concatenate([each / jnp.maximum(each.sum(), 1.0) for each in (alive, old_alive)])
    middle = 0.5 * (share @ rows)
    spread = jnp.sqrt(0.5 * (share @ (rows - middle) ** 2)) + 1e-3
    scaled = jnp.concatenate([(rows - middle) / spread, jnp.ones((len(rows), 1))], 1)
    label = jnp.concatenate([jnp.ones(len(new)), jnp.zeros(len(old))])
    ridge = _RIDGE * jnp.ones(scaled.shape[1]).at[-1].set(0.0)

    def newton(beta: Array, _: None) -> tuple[Array, None]:
        chance = jax.nn.sigmoid(scaled @ beta)
        slope = scaled.T @ (share * (chance - label)) + ridge * beta
        bend = (scaled * (share * chance * (1.0 - chance))[:, None]).T @ scaled
        bend = bend + jnp.diag(ridge + 1e-6)
        return beta - jnp.linalg.solve(bend, slope), None

    beta, _ = jax.lax.scan(newton, jnp.zeros(scaled.shape[1]), None, length=_NEWTON)
    weight = old_alive * jnp.minimum(jnp.exp(scaled[len(new) :] @ beta), _MOST)
    # Ratios of densities have mean 1, unless there is nothing in the replay where the new task is.
    number = jnp.maximum(old_alive.sum(), 1.0)
    covered = jnp.minimum(weight.sum() / number, 1.0)
    effective = covered * weight.sum() ** 2 / jnp.maximum(number * (weight**2).sum(), 1e-30)
    effective = jnp.minimum(effective, 1.0)  # rounding
    return Propensity(weight, effective)
