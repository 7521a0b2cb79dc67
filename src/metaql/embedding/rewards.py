"""What the evidence says of rewards: their scale, their noise and the mean at every index."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metaql.embedding.arms import ArmsPrior, condition
from metaql.embedding.evidence import Evidence, Rewards
from metaql.embedding.hyperprior import Hyperprior, RewardPrior
from metaql.embedding.statistics import Tally

_TINY = 1e-6
_MANY = 500.0
"""Rewards that show the whole range of them."""
_OWN = 2.0
"""Repeats that what is usual counts as for the noise of an index."""


class Means(NamedTuple):
    """Posterior of the mean reward of every index, and of one never visited."""

    mean: Float[Array, "*K"]
    variance: Float[Array, "*K"]
    fresh_mean: Float[Array, ""]
    fresh_variance: Float[Array, ""]
    noise: Float[Array, "*K"]
    """Variance of one reward around its mean."""
    strength: Float[Array, "*K"]
    """Visits that the common mean counts as."""
    fresh_noise: Float[Array, ""]
    fresh_strength: Float[Array, ""]
    between: Float[Array, ""]
    """Variance of means between indices."""
    upward: Float[Array, ""]
    """The part of it that lies above: what it would be if means below were as far off as those above."""


class Scale(NamedTuple):
    """Where rewards have their zero, and their unit: what the prior's numbers are in."""

    zero: Float[Array, ""]
    unit: Float[Array, ""]


def reward_unit(seen: Evidence, prior: Hyperprior) -> Float[Array, ""]:
    """The unit of `reward_scale`."""
    return reward_scale(seen, prior).unit


def reward_scale(seen: Evidence, prior: Hyperprior) -> Scale:
    """The prior's unit, or the largest magnitude met (1 before any). Of a bandit: `_arms_scale`."""
    peak = jnp.where(seen.peak > 0, seen.peak, 1.0)
    of_arms, known = _arms_scale(seen, peak), prior.unit > 0
    zero, unit = jnp.where(seen.alone, of_arms.zero, 0.0), jnp.where(seen.alone, of_arms.unit, peak)
    return Scale(jnp.where(known, 0.0, zero), jnp.where(known, prior.unit, unit))


def _arms_scale(seen: Evidence, peak: Float[Array, ""]) -> Scale:
    """Of a bandit only differences between rewards count.

    Of wins and losses the smaller is zero and their difference the unit. Else zero is nothing paid, unless
    rewards are so close to each other that it is no part of their range: k arms drawn from all between
    nothing and the largest would be within a part p of it with probability ``p^(k - 1)``. Then zero is
    midway between the ends and half their difference the unit. As few rewards show less of a range than
    many, it is taken for as much larger as it would be among normal ones.
    """
    tried = (seen.pair.visits > 0).sum()
    told = seen.binary & seen.told_two
    low, high = (jnp.where(tried > 0, end, 0.0) for end in (seen.lowest, seen.highest))
    moved = 1.0 - jnp.minimum((high - low) / peak, 1.0) ** jnp.maximum(tried - 1.0, 0.0)
    moved = jnp.where(seen.binary, 0.0, moved)
    grown = jnp.where(seen.binary, 1.0, _growth(seen.steps))
    unit = grown * (peak + moved * (0.5 * (high - low) - peak))
    return Scale(
        jnp.where(told, low, moved * 0.5 * (low + high)), jnp.where(told, high - low, unit)
    )


def _growth(number: Float[Array, ""]) -> Float[Array, ""]:
    """By how much the largest of so many normal rewards grows until there are `_MANY`."""
    most, now = (0.6 + 1.6 * jnp.log(x) for x in (_MANY, jnp.clip(number, 1.0, _MANY)))
    return jnp.sqrt(most / now)


def pair_means(seen: Evidence, prior: Hyperprior, scale: Scale) -> Means:
    """Posterior of mean rewards by pair, ``[S, A]``."""
    if prior.arms is not None:
        return _means_of_arms(seen, prior.arms)
    tallied = (seen.pair, seen.pair_rewards, reward_prior_of(seen, prior.pair, prior.pair_two))
    return _reward_means(*tallied, prior.noise_odds, (seen, scale))


def arrival_means(seen: Evidence, prior: Hyperprior, scale: Scale) -> Means:
    """Posterior of mean rewards by the state arrived in, ``[S]``."""
    before = reward_prior_of(seen, prior.arrival, prior.arrival_two)
    tallied = (seen.arrival, seen.arrival_rewards, before)
    return _reward_means(*tallied, prior.noise_odds, (seen, scale))


def reward_prior_of(seen: Evidence, many: RewardPrior, two: RewardPrior) -> RewardPrior:
    """The prior that holds: ``two`` as long as all rewards were one of two values."""
    return RewardPrior(*(jnp.where(seen.binary, b, a) for a, b in zip(many, two, strict=True)))


def _reward_means(
    tally: Tally,
    rewards: Rewards,
    prior: RewardPrior,
    odds: Float[Array, ""],
    task: tuple[Evidence, Scale],
) -> Means:
    """Posterior of mean rewards: normal-normal, its variances estimated along (empirical Bayes).

    Where all rewards so far were one of two values, a reward varies around its mean m as a Bernoulli
    does, by (high - m)(m - low), and not as all others do on average: with a Beta prior that is exact.
    """
    seen, (zero, unit) = task
    visited = tally.visits > 0
    each = tally.reward / jnp.maximum(tally.visits, 1.0)
    found = noises(tally, rewards, prior, unit)
    # With two values the noise follows from the mean, and all means have one prior.
    apart = jnp.where(seen.binary, 0.0, jax.nn.sigmoid(odds + rewards.odds))
    noise = found.shared + apart * (found.own - found.shared)
    fresh_noise = found.shared + apart * (found.usual - found.shared)
    number = visited.sum()
    mean = prior.mean_weight * (zero + prior.mean * unit) + jnp.where(visited, each, 0.0).sum()
    mean = mean / (prior.mean_weight + number)
    chance = noise / jnp.maximum(tally.visits, 1.0)
    spread = jnp.where(visited, jnp.square(each - mean) - chance, 0.0).sum()
    above = 2.0 * jnp.square(jnp.maximum(each - mean, 0.0))
    above = jnp.where(visited, above - chance, 0.0).sum()

    def with_prior(scatter: Float[Array, ""]) -> Float[Array, ""]:
        total = prior.between_weight * prior.between * unit**2 + jnp.maximum(scatter, 0.0)
        return total / (prior.between_weight + number) + _TINY * unit**2

    between = with_prior(spread)
    upward = jnp.minimum(with_prior(above), between)
    strength, fresh_strength = noise / between, fresh_noise / between
    weight = tally.visits + strength
    posterior = (tally.reward + strength * mean) / jnp.maximum(weight, _TINY)
    scatter = _scatter(seen, posterior, weight, noise, seen.binary)
    variance = jnp.where(visited, scatter / jnp.maximum(weight, _TINY), between)
    # What is usual is itself uncertain: a first arm that pays nothing does not speak for all.
    common = (between + fresh_noise) / (prior.mean_weight + number)
    shrunk = strength / jnp.maximum(weight, _TINY)
    variance = jnp.minimum(variance, between) + jnp.where(visited, shrunk**2, 1.0) * common
    usual = (mean, between + common)
    strengths = (strength, fresh_noise, fresh_strength)
    return Means(posterior, variance, *usual, noise, *strengths, between, upward)


def _scatter(
    seen: Evidence,
    mean: Float[Array, "*K"],
    weight: Float[Array, "*K"],
    noise: Float[Array, "*K"],
    binary: Bool[Array, ""],
) -> Float[Array, "*K"]:
    """Variance of one reward: of one of two values it follows from the mean, as for a Beta of that weight."""
    local = (seen.highest - mean) * (mean - seen.lowest)
    both = binary & (seen.highest > seen.lowest)
    return jnp.where(both, jnp.clip(local, 0.0, None) * weight / (weight + 1.0), noise)


def _means_of_arms(seen: Evidence, prior: ArmsPrior) -> Means:
    """Posterior of the mean rewards of arms that are told apart, ``[1, A]``.

    What other arms tell of one counts as pulls of it.
    """
    visits = seen.pair.visits
    mean, variance = condition(prior, visits[0], seen.pair.reward[0])
    weight = prior.noise / variance
    # The first two rewards of very many are of two values as well.
    told = seen.binary & seen.told_two
    # No mean is nearer to one of two values than half a pull of the other would leave it.
    edge = jnp.where(told, 0.5 * (seen.highest - seen.lowest) / (weight + 1.0), 0.0)
    mean = jnp.where(told, jnp.clip(mean, seen.lowest + edge, seen.highest - edge), mean)
    variance = _scatter(seen, mean, weight, prior.noise, told) / weight
    noise, between = prior.noise.mean(), jnp.diag(prior.covariance).mean() + _TINY
    return Means(
        mean=mean[None],
        variance=variance[None],
        fresh_mean=prior.mean.mean(),
        fresh_variance=between,
        noise=prior.noise[None],
        strength=weight[None] - visits,
        fresh_noise=noise,
        fresh_strength=noise / between,
        between=between,
        upward=between,
    )


def squares_of_both(
    seen: Evidence, prior: Hyperprior, unit: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum of squares around the mean of pair and arrival together, the prior's included, and its weight."""
    before = reward_prior_of(seen, prior.pair, prior.pair_two)
    weight = before.noise_weight
    return weight * before.noise * unit**2 + seen.both_rewards.within, weight


class Noises(NamedTuple):
    """Variance of a reward around the mean of its index: one for all, or one for each."""

    shared: Float[Array, ""]
    own: Float[Array, "*K"]
    usual: Float[Array, ""]
    """Of an index never visited, where each has its own."""


def noises(tally: Tally, rewards: Rewards, prior: RewardPrior, unit: Float[Array, ""]) -> Noises:
    """Estimates of the noise under both hypotheses, each with the prior's pseudo-observations."""
    repeats = jnp.maximum(tally.visits - 1.0, 0.0)  # degrees of freedom
    before, weight = prior.noise * unit**2, prior.noise_weight
    shared = (weight * before + rewards.within.sum()) / (weight + repeats.sum())
    # However often an index was visited, it is one example of what is usual.
    each, share = rewards.within / jnp.maximum(repeats, 1.0), repeats / (repeats + 1.0)
    usual = (weight * before + (share * each).sum()) / (weight + share.sum())
    own = (_OWN * usual + rewards.within) / (_OWN + repeats)
    return Noises(shared, own, usual)
