"""What a pair adds to the reward of where it leads.

Where rewards belong to the state arrived in they need not do so wholly: an action has its price, a potential
is left behind. Arrivals then foretell the reward of a pair, and the pair's own rewards correct that, the
more the more there are of them.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from metaql.embedding import successors as after
from metaql.embedding.evidence import Added, Evidence
from metaql.embedding.hyperprior import Hyperprior
from metaql.embedding.rewards import arrival_means, reward_prior_of, reward_scale, squares_of_both

_TINY = 1e-6


def added(seen: Evidence, prior: Hyperprior) -> Added:
    """Normal-normal, the variances estimated along (empirical Bayes); nothing while rewards have two values.

    Of the sum of two effects each is estimated from what the other leaves, in turn (backfitting; Buja, Hastie
    & Tibshirani 1989), one turn per step from those of the step before.

    Args:
        seen: what was seen, with what the step before said of it.
        prior: of arrivals, of noise, and how many pairs it counts as.
    """
    scale = reward_scale(seen, prior)
    unit = scale.unit
    shift = after.arriving(seen.successors, seen.added.mean)
    arrival = seen.arrival._replace(reward=seen.arrival.reward - shift)
    landing = arrival_means(seen._replace(arrival=arrival), prior, scale).mean
    counts, paid = seen.successors.counts, seen.successors.reward
    visits = counts.sum(-1)
    some = jnp.maximum(visits, 1.0)
    left = paid - counts * after.along(seen.successors, landing)
    tried = visits > 0
    number = jnp.maximum(tried.sum(), 1)
    each = left.sum(-1) / some
    # What all pairs add is a matter of arrivals: a new pair adds nothing on average.
    common = jnp.where(seen.binary, 0.0, each.sum() / number)
    landing, left = landing + common, left - counts * common
    each = jnp.where(tried, each - common, 0.0)
    apart = jnp.where(counts > 0, left / jnp.maximum(counts, 1.0) - each[..., None], 0.0)
    of_both, repeats = squares_of_both(seen, prior, unit)
    noise = of_both + (counts * apart**2).sum()
    noise = noise / (repeats + visits.sum() - tried.sum())
    usual_weight = reward_prior_of(seen, prior.pair, prior.pair_two).between_weight

    def between(squares: Float[Array, "S A"]) -> Float[Array, ""]:
        scatter = jnp.where(tried, squares - noise / some, 0.0).sum()
        found = jnp.maximum(scatter, 0.0) / (usual_weight + tried.sum())
        return jnp.where(seen.binary, 0.0, found)

    usual = between(each**2)
    upward = jnp.minimum(between(2.0 * jnp.maximum(each, 0.0) ** 2), usual)
    weight = visits + noise / (usual + _TINY * unit**2)
    mean = jnp.where(seen.binary, 0.0, visits * each / weight)
    return Added(mean, usual * (1.0 - visits / weight), usual, upward, noise, landing)
