"""The posterior over models that the evidence leaves: what is planned in.

Rewards and ends are explained by pairs or by arrivals, each with a probability; what was never tried has the
moments of what is usual.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metaql.embedding.evidence import (
    Evidence,
    Outcomes,
    Rates,
    end_rates,
    num_states,
    origin_weights,
    outcomes,
)
from metaql.embedding.hyperprior import Hyperprior
from metaql.embedding.rewards import Means, arrival_means, pair_means, reward_scale
from metaql.embedding.statistics import Tally
from metaql.embedding.strides import Leads, leads
from metaql.embedding.successors import Successors
from metaql.types import TaskSpec

_BY_OUTCOME = 0.25
"""How likely it is held that what a pair pays depends on where it leads, where records are concerned."""


class Moments(NamedTuple):
    """Mean and variance, at every index and at one never visited."""

    mean: Float[Array, "*K"]
    variance: Float[Array, "*K"]
    fresh_mean: Float[Array, ""]
    fresh_variance: Float[Array, ""]


class Bounds(NamedTuple):
    """The two values that all rewards had so far."""

    low: Float[Array, ""]
    high: Float[Array, ""]
    hold: Float[Array, ""]
    """Probability that there are no others; 0 if others were met."""
    careful: Bool[Array, ""]
    """Whether hopes go no further than deviations do: of many states, once an episode ended by itself."""


class Model(NamedTuple):
    """Posterior over models, ready to be planned in."""

    successors: Successors
    visits: Float[Array, "S A"]
    reward: Moments
    """Of the part of rewards that pairs explain, or add to that of arrivals, ``[S, A]``."""
    landing: Moments
    """Of the part that arrivals explain, ``[S]``."""
    onward: Moments
    """Probability of going on after arrival, ``[S]``."""
    stay: Moments
    """Probability of going on by pair, ``[S, A]``."""
    bounds: Bounds
    by_arrival: Float[Array, ""]
    """Probability that arrivals explain rewards."""
    outcomes: Outcomes
    origins: Float[Array, " 4"]
    leads: Leads | None
    """Where strides lead; None: not looked at."""
    met: Bool[Array, " S"]
    unmet_share: Float[Array, ""]
    """Share of all states that was never met."""
    mask: Bool[Array, "S A"]
    strength: Float[Array, "S A"]
    """Visits that what is usual counts as, for rewards by pair."""
    fresh_strength: Float[Array, ""]
    arrival_strength: Float[Array, " S"]


def posterior(
    seen: Evidence,
    prior: Hyperprior,
    spec: TaskSpec,
    records: Float[Array, ""],
    upwards: Float[Array, ""] | float = 0.0,
) -> Model:
    """Everything a sweep needs of the evidence.

    Args:
        seen: the evidence.
        prior: what was believed before it.
        spec: of the task.
        records: variance of rewards of states never met (of a bandit: of arms never tried), beyond what
            the others suggest.
        upwards: share, in [0, 1], by which the variance of what was never tried is that upwards; see
            `_upwards`.
    """
    scale = reward_scale(seen, prior)
    pair, arrival = pair_means(seen, prior, scale), arrival_means(seen, prior, scale)
    pair, arrival = _upwards(pair, seen.pair, upwards), _upwards(arrival, seen.arrival, upwards)
    led = outcomes(seen, prior)
    left = jnp.where(_open(seen, prior), 1.0, _unseen(seen, pair, led))
    pair = pair._replace(variance=pair.variance + left * records)
    pair, arrival = (
        means._replace(fresh_variance=means.fresh_variance + records) for means in (pair, arrival)
    )
    # Of a bandit they explain no rewards, or no arm would be better than another.
    by_arrival = jnp.where(seen.alone, 0.0, jax.nn.sigmoid(prior.reward_odds + seen.reward_odds))
    landing = jnp.where(seen.steps > 0, seen.added.landing, arrival.mean)
    ends_by_arrival = jax.nn.sigmoid(prior.ends_odds + seen.ends_odds)
    pair_ends = end_rates(seen.pair, prior.pair_ends, seen.log_pair_ends)
    arrival_ends = end_rates(seen.arrival, prior.arrival_ends, seen.log_arrival_ends)
    return Model(
        successors=seen.successors,
        visits=seen.pair.visits,
        reward=_with_added(_share(pair, 1.0 - by_arrival), by_arrival, seen, upwards),
        landing=_share(arrival._replace(mean=landing), by_arrival),
        onward=_going_on(arrival_ends, ends_by_arrival),
        stay=_going_on(pair_ends, 1.0 - ends_by_arrival),
        bounds=bounds_of(seen, prior),
        by_arrival=by_arrival,
        outcomes=led,
        origins=origin_weights(seen, prior, spec),
        leads=None if seen.strides is None else leads(seen.strides, spec, seen.met),
        met=seen.met,
        unmet_share=1.0 - seen.met.sum() / num_states(spec),
        mask=spec.state_mask[:, None] & spec.action_mask,
        strength=pair.strength,
        fresh_strength=pair.fresh_strength,
        arrival_strength=arrival.strength,
    )


def _upwards(means: Means, tally: Tally, share: Float[Array, ""] | float) -> Means:
    """Hopes for what was never tried do not grow by how bad other things turned out to be.

    A hole that costs a hundred makes rewards scatter, and to a normal prior it promises that hundred as
    much as it threatens it. Only the scatter above the mean does.
    """
    down = share * (means.between - means.upward)
    return means._replace(
        variance=jnp.where(tally.visits > 0, means.variance, means.variance - down),
        fresh_variance=means.fresh_variance - down,
    )


def _open(seen: Evidence, prior: Hyperprior) -> Bool[Array, "S A"]:
    """Arms that may pay more than any before: those of a bandit never tried, its unit of reward not known.

    None while all rewards so far were one of two values: arms that win or lose pay nothing else, and with
    this the first that wins would be left too soon.
    """
    unknown = seen.alone & (prior.unit == 0) & ~seen.binary
    return (seen.pair.visits == 0) & unknown


def _unseen(seen: Evidence, pair: Means, led: Outcomes) -> Float[Array, "S A"]:
    """How much of a record a pair may still hold that was tried, by outcomes it has not shown.

    At the far end of a river a stroke that is thrown back pays nothing, one that holds pays all there is:
    to a pair whose rewards are always the same one such stroke says that there is nothing. A pair that paid
    as much as any shows what it pays. Nothing is left where episodes end: there are dangers.
    """
    peak = jnp.where(seen.peak > 0, seen.peak, 1.0)
    plain = 1.0 - jnp.minimum(jnp.abs(pair.mean) / peak, 1.0)
    each = (seen.met.sum() + 1.0) / ((seen.pair.visits > 0).sum() + 1.0)
    left = _BY_OUTCOME * each * jnp.maximum(1.0 - led.kept, 0.0) * plain**2  # rounding
    return jnp.where((seen.pair.visits > 0) & ~seen.alone & ~seen.ended, left, 0.0)


def bounds_of(seen: Evidence, prior: Hyperprior) -> Bounds:
    """The values that rewards are known to have, and how sure that is."""
    hold = jnp.where(seen.binary & seen.told_two, prior.stays_two, 0.0)
    low, high = (jnp.where(hold > 0, value, 0.0) for value in (seen.lowest, seen.highest))
    return Bounds(low, high, hold, seen.has_goals)


def _share(means: Means, probability: Float[Array, ""]) -> Moments:
    """The part of rewards that this explanation has, where it is open which one holds."""
    return Moments(*(probability * part for part in means[:4]))


def _with_added(
    pair: Moments, by_arrival: Float[Array, ""], seen: Evidence, upwards: Float[Array, ""] | float
) -> Moments:
    """The same, with what pairs add to what arrivals explain.

    How much that is their own rewards decide, by shrinkage: the odds that they add anything (`Both`) tell
    arrivals from pairs only.
    """
    more = seen.added
    down = upwards * (more.fresh_variance - more.upward)
    variance = jnp.where(seen.pair.visits > 0, more.variance, more.variance - down)
    return Moments(
        pair.mean + by_arrival * more.mean,
        pair.variance + by_arrival * variance,
        pair.fresh_mean,
        pair.fresh_variance + by_arrival * (more.fresh_variance - down),
    )


def _going_on(ends: Rates, probability: Float[Array, ""]) -> Moments:
    """Probability of going on where this explanation of the ends holds with ``probability``.

    Each of the two counts with the power of its probability (a logarithmic pool): what both call an
    end is one.
    """
    mean, fresh = ((1.0 - rate) ** probability for rate in (ends.mean, ends.fresh_mean))
    return Moments(mean, probability * ends.variance, fresh, probability * ends.fresh_variance)
