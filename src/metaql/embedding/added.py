"""What a pair adds to the reward of where it leads.

Where rewards belong to the state arrived in they need not do so wholly: an action has its price, a potential
is left behind. Arrivals then foretell the reward of a pair, and the pair's own rewards correct that, the
more the more there are of them.
"""

from __future__ import annotations

import jax.numpy as jnp

from metaql.embedding import successors as after
from metaql.embedding.evidence import Added, Evidence, arrival_means, reward_prior_of, reward_unit
from metaql.embedding.hyperprior import Hyperprior

_TINY = 1e-6


def added(seen: Evidence, prior: Hyperprior) -> Added:
    """Normal-normal, the variances estimated along (empirical Bayes); nothing while rewards have two values.

    Args:
        seen: what was seen; what it says of this already is not looked at.
        prior: of arrivals, and of noise.
    """
    unit = reward_unit(seen, prior)
    landing = arrival_means(seen, prior, unit).mean
    counts, paid = seen.successors.counts, seen.successors.reward
    visits = counts.sum(-1)
    some = jnp.maximum(visits, 1.0)
    left = paid - counts * after.along(seen.successors, landing)
    each = left.sum(-1) / some
    apart = jnp.where(counts > 0, left / jnp.maximum(counts, 1.0) - each[..., None], 0.0)
    tried = (visits > 0).sum()
    before = reward_prior_of(seen, prior.pair, prior.pair_two)
    total = before.noise_weight * before.noise * unit**2 + seen.both_rewards.within
    noise = total + (counts * apart**2).sum()
    noise = noise / (before.noise_weight + visits.sum() - tried)
    scatter = jnp.where(visits > 0, each**2 - noise / some, 0.0).sum()
    between = jnp.maximum(scatter, 0.0) / (before.between_weight + tried)
    between = jnp.where(seen.binary, 0.0, between)
    weight = visits + noise / (between + _TINY * unit**2)
    mean = jnp.where(seen.binary, 0.0, visits * each / weight)
    return Added(mean, between * (1.0 - visits / weight), between, noise)
