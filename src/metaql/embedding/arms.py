"""What the arms of a bandit are worth where they are the same arms in every task.

Treatments of patients, items shown to users: which is which is known, what each is worth to this one is not.
Means are jointly normal over tasks, so what one arm paid tells of the others (Gaussian conditioning, as in
Bayesian linear regression with one feature per arm).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

_TINY = 1e-6


class ArmsPrior(NamedTuple):
    """Joint prior of the arms' means, in units of reward."""

    mean: Float[Array, " A"]
    covariance: Float[Array, "A A"]
    noise: Float[Array, " A"]
    """Variance of one reward around the mean of its arm; above 0."""


def no_arms(number: int) -> ArmsPrior:
    """All zero: the shape of a prior of so many arms."""
    return ArmsPrior(jnp.zeros(number), jnp.zeros((number, number)), jnp.zeros(number))


def condition(
    prior: ArmsPrior, visits: Float[Array, " A"], total: Float[Array, " A"]
) -> tuple[Float[Array, " A"], Float[Array, " A"]]:
    """Posterior mean and variance of every arm's mean.

    With W the diagonal of visits over noise and R its root, the covariance is ``K - K R (1 + R K R)^-1 R K``
    (Rasmussen & Williams 2006, "Gaussian processes for machine learning", eq. 3.26 and algorithm 2.1): it
    needs neither the inverse of K nor a reward of every arm.

    Args:
        prior: of the means.
        visits: pulls of every arm.
        total: sum of their rewards.
    """
    root = jnp.sqrt(visits / prior.noise)
    gram = jnp.eye(len(root)) + root[:, None] * prior.covariance * root
    scaled = root[:, None] * prior.covariance
    gain = jnp.linalg.solve(gram, scaled)
    # In units of deviations of what was observed.
    surprise = jnp.where(visits > 0, root * (total / jnp.maximum(visits, 1.0) - prior.mean), 0.0)
    mean = prior.mean + gain.T @ surprise
    variance = jnp.diag(prior.covariance) - (scaled * gain).sum(0)
    # After very many pulls nothing but rounding is left of the difference: pulls alone leave no more.
    most = jnp.where(visits > 0, prior.noise / jnp.maximum(visits, 1.0), jnp.inf)
    return mean, jnp.clip(variance, jnp.minimum(_TINY * prior.noise, most), most)
