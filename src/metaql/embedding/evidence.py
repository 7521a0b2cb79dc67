"""Everything a finite task has shown, and what that says of how the task is made.

Counts are the memory; beside them stand running judgements that cannot be had from counts alone: how
well each candidate of `metaql.embedding.hyperprior` foresaw what came next, before it was counted
(Dawid 1984, "prequential"). Hypotheses are weighed by these likelihoods, so a task's own character is
inferred within the task: machine or lottery, many successors or one, ends by pair or by arrival.
`metaql.embedding.judging` adds a transition to the evidence; here is what it is and what follows from it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metaql.embedding import successors as after
from metaql.embedding.hyperprior import (
    BASES,
    END_SPREADS,
    SPREADS,
    EndPrior,
    Hyperprior,
)
from metaql.embedding.profiles import (
    PROFILES,
    WIDTH,
    Profiled,
    chances,
    no_profiles,
)
from metaql.embedding.statistics import SMALLEST_REWARD, Tally
from metaql.embedding.strides import Strides, no_strides
from metaql.embedding.successors import Successors
from metaql.types import TaskSpec


class Rewards(NamedTuple):
    """How rewards vary around the mean of their index."""

    within: Float[Array, "*K"]
    """Running sum of squares."""
    odds: Float[Array, ""]
    """Log-odds of a noise for each index against one for all."""


class Both(NamedTuple):
    """How rewards vary around the mean of their pair and the state it led to, taken together."""

    within: Float[Array, ""]
    """Running sum of squares."""
    repeats: Float[Array, ""]
    """Transitions that had been met before."""
    odds: Float[Array, ""]
    """Log-odds of a mean for each of both together against one for each pair."""
    added_odds: Float[Array, ""]
    """Log-odds of pairs adding something to arrivals against arrivals alone."""


class Added(NamedTuple):
    """Posterior of what every pair adds to the rewards of arrivals; see `metaql.embedding.added`."""

    mean: Float[Array, "S A"]
    variance: Float[Array, "S A"]
    fresh_variance: Float[Array, ""]
    """Of a pair never tried, which adds nothing on average."""
    upward: Float[Array, ""]
    """As `Means.upward`, of what pairs add."""
    noise: Float[Array, ""]
    """Variance of one reward around the sum of both."""
    landing: Float[Array, " S"]
    """Mean rewards of arrivals, less what pairs add."""


class Evidence(NamedTuple):
    """What was seen in one task."""

    successors: Successors
    pair: Tally
    arrival: Tally
    """By the state arrived in, ``[S]``."""
    met: Bool[Array, " S"]
    """States that an episode started in or a step arrived in."""
    pair_rewards: Rewards
    arrival_rewards: Rewards
    both_rewards: Both
    added: Added
    log_spread: Float[Array, "B G"]
    """Log-likelihood of the successors seen under each of `BASES` and `SPREADS`."""
    origins: Float[Array, " 4"]
    """Expected number of fresh successors from each origin."""
    profiled: Profiled | None
    """Sparse layout only."""
    strides: Strides | None
    """Sparse layout only."""
    common: Float[Array, " M"]
    """How common each profile is."""
    profile_odds: Float[Array, ""]
    """Log-odds of profiles against independent rows."""
    log_pair_ends: Float[Array, " D"]
    log_arrival_ends: Float[Array, " D"]
    reward_odds: Float[Array, ""]
    """Log-odds of arrival against the pair, whether or not together with where it led."""
    ends_odds: Float[Array, ""]
    lowest: Float[Array, ""]
    """Smallest reward; +inf before any."""
    highest: Float[Array, ""]
    binary: Bool[Array, ""]
    """Whether every reward so far was one of two values."""
    told_two: Bool[Array, ""]
    """Whether there was a time when it was, and likely to stay so (`judging`): each was met twice, say."""
    steps: Float[Array, ""]
    alone: Bool[Array, ""]
    """Whether there is one state only: a bandit."""

    @property
    def peak(self) -> Float[Array, ""]:
        """Largest magnitude of a reward; 0 before any but zeros (or `SMALLEST_REWARD`)."""
        peak = jnp.maximum(jnp.abs(self.lowest), jnp.abs(self.highest))
        return jnp.where(jnp.isfinite(peak) & (peak > SMALLEST_REWARD), peak, 0.0)

    @property
    def density(self) -> Float[Array, ""]:
        """How much most pairs pay, of the most that was paid, in [0, 1]: little where rewards are rare.

        Ten pairs more that pay nothing are pretended. Where all rewards were the same they say nothing: 0.
        """
        tried = self.pair.visits > 0
        each = jnp.abs(self.pair.reward) / jnp.maximum(self.pair.visits, 1.0)
        peak = jnp.maximum(self.peak, 1e-30)
        apart = jnp.where(tried.any(), self.highest - self.lowest, 0.0)
        return jnp.minimum(apart / peak, 1.0) * each.sum() / peak / (tried.sum() + 10.0)

    @property
    def ended(self) -> Bool[Array, ""]:
        """Whether an episode ended by itself, not by the clock."""
        return self.arrival.ends.sum() > 0

    @property
    def has_goals(self) -> Bool[Array, ""]:
        """Whether there are several states and ends among them: goals, or dangers."""
        return self.ended & ~self.alone


class Rates(NamedTuple):
    """Posterior of a probability at every index, and at one never visited."""

    mean: Float[Array, "*K"]
    variance: Float[Array, "*K"]
    fresh_mean: Float[Array, ""]
    fresh_variance: Float[Array, ""]


def no_evidence(spec: TaskSpec, slots: int | None) -> Evidence:
    """Nothing seen; ``slots`` as in `no_successors`, but no fewer than outcome profiles have."""
    slots = None if slots is None else max(slots, WIDTH)
    num_states, num_actions = spec.state_mask.shape[0], spec.action_mask.shape[0]
    pair, state = jnp.zeros((num_states, num_actions)), jnp.zeros(num_states)
    zero = jnp.zeros(())
    return Evidence(
        successors=after.no_successors(num_states, num_actions, slots),
        pair=Tally(pair, pair, pair),
        arrival=Tally(state, state, state),
        met=jnp.zeros(num_states, bool),
        pair_rewards=Rewards(pair, zero),
        arrival_rewards=Rewards(state, zero),
        both_rewards=Both(zero, zero, zero, zero),
        added=Added(pair, pair, zero, zero, zero, state),
        log_spread=jnp.zeros((len(BASES), len(SPREADS))),
        origins=jnp.zeros(4),
        profiled=None if slots is None else no_profiles(num_states, num_actions),
        strides=None if slots is None else no_strides(num_states, num_actions),
        common=jnp.full(len(PROFILES), 1.0 / len(PROFILES)),
        profile_odds=zero,
        log_pair_ends=jnp.zeros(len(END_SPREADS)),
        log_arrival_ends=jnp.zeros(len(END_SPREADS)),
        reward_odds=zero,
        ends_odds=zero,
        lowest=jnp.full((), jnp.inf),
        highest=jnp.full((), -jnp.inf),
        binary=jnp.ones((), bool),
        told_two=jnp.zeros((), bool),
        steps=zero,
        alone=jnp.asarray(spec.total_states == 1),
    )


def num_states(spec: TaskSpec) -> Float[Array, ""]:
    """States that exist, met or not."""
    return spec.total_states.astype(jnp.float32)


def base_weights(seen: Evidence, prior: Hyperprior) -> Float[Array, "B G"]:
    """Posterior over `BASES` and `SPREADS`."""
    weights = prior.log_spread + seen.log_spread
    if seen.strides is None:
        weights = weights.at[1].set(-jnp.inf)
    return jax.nn.softmax(weights, axis=(0, 1))


def spread_weights(seen: Evidence, prior: Hyperprior) -> Float[Array, " G"]:
    """Posterior over `SPREADS`, whatever the base."""
    return base_weights(seen, prior).sum(0)


class Outcomes(NamedTuple):
    """Where pairs lead, everything taken together."""

    weights: Float[Array, "S A K"]
    """Probability of each successor seen, in the layout of the counts; the rest is for fresh ones."""
    kept: Float[Array, "S A"]
    """Their sum."""
    by_stride: Float[Array, "S A"]
    """Share of the rest that goes where strides lead."""
    narrow: Float[Array, "S A"]
    """Variance of an expectation under the posterior, over the variance of one draw."""
    fresh_narrow: Float[Array, ""]
    """The same for a pair never tried."""


def outcomes(seen: Evidence, prior: Hyperprior) -> Outcomes:
    """Independent rows and shared profiles, weighed by how well each foresaw what came."""
    spreads, by_base = jnp.asarray(SPREADS), base_weights(seen, prior)
    weights = by_base.sum(0)
    # As products with vectors, which are faster than sums of products.
    each, beyond = (1.0 / (seen.pair.visits[..., None] + spreads + more) for more in (0.0, 1.0))
    rate, narrow = each @ weights, beyond @ weights
    fresh_narrow = (weights / (spreads + 1.0)).sum()
    by_stride = (each @ (by_base[1] * spreads)) / (each @ (weights * spreads))
    probabilities = seen.successors.counts * rate[..., None]
    if seen.profiled is not None:
        believed = jax.nn.sigmoid(prior.profile_odds + seen.profile_odds)
        held = (seen.successors.counts[..., :WIDTH] > 0).astype(jnp.float32)
        shared = chances(*seen.profiled, seen.common, held)
        beyond = ((0, 0), (0, 0), (0, seen.successors.counts.shape[-1] - WIDTH))
        slots = jnp.pad(shared.slots, beyond)
        probabilities = probabilities + believed * (slots - probabilities)
        narrow = narrow + believed * (shared.narrow - narrow)
        fresh_narrow = fresh_narrow + believed * (1.0 - fresh_narrow)
    return Outcomes(probabilities, probabilities.sum(-1), by_stride, narrow, fresh_narrow)


def origin_weights(seen: Evidence, prior: Hyperprior, spec: TaskSpec) -> Float[Array, " 4"]:
    """Posterior mean of where a fresh successor comes from; from nowhere new once all were met."""
    possible = jnp.ones(4).at[3].set(seen.met.sum() < num_states(spec))
    counts = possible * (prior.origins + seen.origins)
    return counts / counts.sum()


def end_rates(tally: Tally, prior: EndPrior, log_likelihood: Float[Array, " D"]) -> Rates:
    """Posterior of termination rates: Beta-binomial, averaged over `END_SPREADS`."""
    spreads = jnp.asarray(END_SPREADS)
    weights = jax.nn.softmax(prior.log_spread + log_likelihood)
    rate = common_rate(tally, prior)
    kept = (weights / (tally.visits[..., None] + spreads)).sum(-1)
    mean = tally.ends * kept + rate * jnp.maximum(1.0 - tally.visits * kept, 0.0)
    mean = jnp.clip(mean, 0.0, 1.0)  # rounding: a negative variance would have no root
    narrow = (weights / (tally.visits[..., None] + spreads + 1.0)).sum(-1)
    fresh = (weights / (spreads + 1.0)).sum()
    return Rates(mean, narrow * mean * (1.0 - mean), rate, fresh * rate * (1.0 - rate))


def common_rate(tally: Tally, prior: EndPrior) -> Float[Array, ""]:
    """Termination rate of an index never visited: the mean over those that were."""
    each = tally.ends / jnp.maximum(tally.visits, 1.0)
    return (prior.rate_weight * prior.rate + each.sum()) / (
        prior.rate_weight + (tally.visits > 0).sum()
    )
