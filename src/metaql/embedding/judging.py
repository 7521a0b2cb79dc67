"""Add a transition to the evidence, after every hypothesis was judged by how it foresaw it."""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metaql.embedding import successors as after
from metaql.embedding.added import added
from metaql.embedding.evidence import (
    Both,
    Evidence,
    Rewards,
    base_weights,
    common_rate,
    num_states,
    origin_weights,
)
from metaql.embedding.hyperprior import END_SPREADS, SPREADS, EndPrior, Hyperprior, RewardPrior
from metaql.embedding.profiles import WIDTH, chances, commonness, profile, refresh
from metaql.embedding.rewards import (
    Means,
    Noises,
    arrival_means,
    noises,
    pair_means,
    reward_prior_of,
    reward_scale,
    reward_unit,
    squares_of_both,
)
from metaql.embedding.statistics import ODDS_LIMIT, Tally
from metaql.embedding.strides import chance_of, walk
from metaql.embedding.successors import Sparse
from metaql.types import TaskSpec, Transition

_Index: TypeAlias = tuple[Int[Array, ""], ...]
_Two: TypeAlias = tuple[Float[Array, ""], Float[Array, ""]]
_STEP_LIMIT = 5.0
"""What one step may add to log-odds, either way."""
_REFINED = -3.0
"""Log-odds, before any reward, that those of pairs depend on where they lead, and those of arrivals on how
one came there."""
_FADE = 0.98
"""What a step keeps of the odds of shared profiles: what it cost to learn them must be forgotten."""


def observe(seen: Evidence, prior: Hyperprior, spec: TaskSpec, transition: Transition) -> Evidence:
    """Judge every hypothesis by one transition, then count it."""
    size, actions = seen.pair.visits.shape
    at_state = jax.nn.one_hot(transition.state, size)
    at_pair = at_state[:, None] * jax.nn.one_hot(transition.action, actions)
    at_arrival = jax.nn.one_hot(transition.next_state, size)
    here, there = (transition.state, transition.action), (transition.next_state,)
    reward, ended = transition.reward, transition.terminated.astype(jnp.float32)
    met = seen.met | (at_state > 0)
    fits, origins, odds = _judge_successor(seen._replace(met=met), prior, spec, transition)
    successors = after.add(seen.successors, transition)
    pair = _count(seen.pair, at_pair, reward, ended)
    profiled, common = seen.profiled, seen.common
    if profiled is not None and isinstance(successors, Sparse):
        profiled = refresh(profiled, successors, here, pair.visits)
        common = commonness(profiled, prior.profiles, common, pair.visits)
    strides = seen.strides
    if strides is not None:
        strides = walk(strides, spec, transition, pair.visits)
    pair_ends, arrival_ends, ends_odds = _judge_ends(seen, prior, here, there, ended)
    reward_odds, noise_odds, both_odds = _judge_reward(seen, prior, here, there, transition)
    lowest, highest = jnp.minimum(seen.lowest, reward), jnp.maximum(seen.highest, reward)
    between = (reward > seen.lowest) & (reward < seen.highest)
    moved = (lowest < seen.lowest) | (highest > seen.highest)
    had_two = seen.highest > seen.lowest
    binary = seen.binary & ~between & ~(had_two & moved)
    now = Evidence(
        successors=successors,
        pair=pair,
        arrival=_count(seen.arrival, at_arrival, reward, ended),
        met=met | (at_arrival > 0),
        pair_rewards=_scatter(seen.pair_rewards, seen.pair, at_pair, reward, noise_odds[0]),
        arrival_rewards=_scatter(
            seen.arrival_rewards, seen.arrival, at_arrival, reward, noise_odds[1]
        ),
        both_rewards=_scatter_both(seen, transition, both_odds),
        added=seen.added,
        log_spread=seen.log_spread + fits,
        origins=seen.origins + origins,
        profiled=profiled,
        strides=strides,
        common=common,
        profile_odds=_add_odds(_FADE * seen.profile_odds, odds),
        log_pair_ends=seen.log_pair_ends + pair_ends,
        log_arrival_ends=seen.log_arrival_ends + arrival_ends,
        reward_odds=reward_odds,
        ends_odds=ends_odds,
        lowest=lowest,
        highest=highest,
        binary=binary,
        told_two=seen.told_two | (binary & _tells_two(seen.alone, pair, lowest, highest)),
        steps=seen.steps + 1.0,
        alone=seen.alone,
    )
    return now._replace(added=added(now, prior))


def _tells_two(
    alone: Bool[Array, ""], pair: Tally, lowest: Float[Array, ""], highest: Float[Array, ""]
) -> Bool[Array, ""]:
    """Whether two values that were all so far are likely to stay so: each was met twice.

    Of a bandit, one of them with two arms is enough: arms that win or lose would agree, arms with noise would
    not. (Arms that always pay the same, many of them nothing, are taken for coins.) Never, while there is one
    value.
    """
    highs = (pair.reward - lowest * pair.visits) / (highest - lowest)
    lows = pair.visits - highs
    fewest = jnp.minimum(highs.sum(), lows.sum())
    arms = jnp.maximum((highs > 0.5).sum(), (lows > 0.5).sum())
    of_bandit = alone & (fewest > 0.5) & (arms > 1)
    return (fewest > 1.5) | of_bandit


def _count(
    tally: Tally, where: Float[Array, "*K"], reward: Float[Array, ""], ended: Float[Array, ""]
) -> Tally:
    return Tally(tally.visits + where, tally.reward + where * reward, tally.ends + where * ended)


def _scatter(
    rewards: Rewards,
    tally: Tally,
    where: Float[Array, "*K"],
    reward: Float[Array, ""],
    odds: Float[Array, ""],
) -> Rewards:
    """Sum of squares around the index's own mean after one more reward."""
    change = _change((tally.visits * where).sum(), (tally.reward * where).sum(), reward)
    return Rewards(rewards.within + where * change, _add_odds(rewards.odds, odds))


def _scatter_both(seen: Evidence, transition: Transition, odds: _Two) -> Both:
    visits, total = after.paid(seen.successors, transition)
    within, repeats, *before = seen.both_rewards
    change = _change(visits, total, transition.reward)
    return Both(within + change, repeats + (visits > 0), *map(_add_odds, before, odds))


def _change(
    visits: Float[Array, ""], total: Float[Array, ""], reward: Float[Array, ""]
) -> Float[Array, ""]:
    """What one more reward adds to the sum of squares around their mean (Welford 1962)."""
    before, now = total / jnp.maximum(visits, 1.0), (total + reward) / (visits + 1.0)
    return jnp.where(visits > 0, jnp.maximum((reward - before) * (reward - now), 0.0), 0.0)


def _judge_successor(
    seen: Evidence, prior: Hyperprior, spec: TaskSpec, transition: Transition
) -> tuple[Float[Array, "B G"], Float[Array, " 4"], Float[Array, ""]]:
    """Judge what may have led to the next state.

    Returns:
        Log-likelihood under each spread, where the state came from if it was fresh, and the logarithm
        of the Bayes factor of shared profiles against independent rows.
    """
    spreads = jnp.asarray(SPREADS)
    from_here = after.seen(seen.successors, transition.state, transition.next_state)
    counted = seen.pair.visits[transition.state]
    pooled, total = from_here.sum(), counted.sum()
    everywhere = 1.0 / num_states(spec)
    unmet = jnp.maximum(num_states(spec) - seen.met.sum(), 1.0)
    by_origin = jnp.stack(
        [
            everywhere,
            jnp.where(total > 0, pooled / jnp.maximum(total, 1.0), everywhere),
            (transition.next_state == transition.state).astype(jnp.float32),
            (~seen.met[transition.next_state]) / unmet,
        ]
    )
    shares = origin_weights(seen, prior, spec) * by_origin
    likelihood = shares.sum()
    by_stride = likelihood
    if seen.strides is not None:
        chance, unknown = chance_of(seen.strides, spec, transition)
        by_stride = chance + unknown * likelihood
    own, visits = from_here[transition.action], counted[transition.action]
    bases = jnp.stack([likelihood, by_stride])[:, None]
    foreseen = (own + spreads * bases) / (visits + spreads)
    weights = base_weights(seen, prior)
    fresh = (weights.sum(0) * spreads * likelihood / (own + spreads * likelihood)).sum()
    odds = jnp.zeros(())
    if seen.profiled is not None and isinstance(seen.successors, Sparse):
        here = (transition.state, transition.action)
        index = seen.successors.onto[here][:WIDTH]
        held = seen.successors.counts[here][:WIDTH] > 0
        # Not read from `seen.profiled`: an array that is read is copied before it is changed.
        row = profile(seen.successors, here, seen.pair.visits)
        slots = chances(*row, seen.common, held.astype(jnp.float32)).slots
        by_profile = (slots * (index == transition.next_state)).sum()
        by_profile = by_profile + (1.0 - slots.sum()) * likelihood * (own == 0)
        odds = jnp.log(by_profile + 1e-6) - jnp.log((weights * foreseen).sum())
    return jnp.log(foreseen), fresh * shares / likelihood, odds


def _judge_ends(
    seen: Evidence,
    prior: Hyperprior,
    here: _Index,
    there: _Index,
    ended: Float[Array, ""],
) -> tuple[Float[Array, " D"], Float[Array, " D"], Float[Array, ""]]:
    """Log-likelihoods of an end (or none) under each spread, and the odds of arrival against pair."""
    spreads = jnp.asarray(END_SPREADS)

    def fit(tally: Tally, index: _Index, before: EndPrior) -> Float[Array, " D"]:
        visits, ends = tally.visits[index], tally.ends[index]
        rate = (ends + spreads * common_rate(tally, before)) / (visits + spreads)
        rate = jnp.clip(rate, 1e-3, 1.0 - 1e-3)
        return jnp.log(jnp.where(ended > 0, rate, 1.0 - rate))

    pair = fit(seen.pair, here, prior.pair_ends)
    arrival = fit(seen.arrival, there, prior.arrival_ends)
    weigh = jax.nn.log_softmax
    by_pair = jax.nn.logsumexp(weigh(prior.pair_ends.log_spread + seen.log_pair_ends) + pair)
    by_arrival = jax.nn.logsumexp(
        weigh(prior.arrival_ends.log_spread + seen.log_arrival_ends) + arrival
    )
    return pair, arrival, _add_odds(seen.ends_odds, by_arrival - by_pair)


def _judge_reward(
    seen: Evidence,
    prior: Hyperprior,
    here: _Index,
    there: _Index,
    transition: Transition,
) -> tuple[Float[Array, ""], _Two, _Two]:
    """Judge how each hypothesis foresaw a reward (normal predictive densities).

    Returns:
        Log-odds of arrival against pair; what this reward adds to those of a noise for each index
        against one for all, for pairs and for arrivals; and what it adds to those of pairs with arrivals
        against pairs alone, and of arrivals with pairs against arrivals alone.
    """
    reward, scale = transition.reward, reward_scale(seen, prior)
    unit = scale.unit

    def fit(means: Means, found: Noises, index: _Index) -> _Two:
        noise = jnp.stack([means.noise[index], found.own[index], found.shared])
        variances = means.variance[index] + noise
        mixed, apart, shared = _density(reward, means.mean[index], variances, unit)
        return mixed, apart - shared

    def found(tally: Tally, rewards: Rewards, many: RewardPrior, two: RewardPrior) -> Noises:
        return noises(tally, rewards, reward_prior_of(seen, many, two), unit)

    means = pair_means(seen, prior, scale)
    pair, pair_noise = fit(
        means,
        found(seen.pair, seen.pair_rewards, prior.pair, prior.pair_two),
        here,
    )
    landing = arrival_means(seen, prior, scale)
    arrival, arrival_noise = fit(
        landing,
        found(seen.arrival, seen.arrival_rewards, prior.arrival, prior.arrival_two),
        there,
    )
    both = _together(seen, prior, means, transition)
    with_pair = _summed(seen, prior, landing, transition)
    # With two values there is little to refine, and no way to tell it from a lucky win.
    both, with_pair = jnp.where(seen.binary, pair, both), jnp.where(seen.binary, arrival, with_pair)
    odds = seen.both_rewards
    of_arrival = _either(arrival, with_pair, odds.added_odds)
    change = of_arrival - _either(pair, both, odds.odds)
    refined = (both - pair, with_pair - arrival)
    return _add_odds(seen.reward_odds, change), (pair_noise, arrival_noise), refined


def _density(
    reward: Float[Array, ""], mean: Float[Array, ""], variance: Float[Array, "*V"], unit: Array
) -> Float[Array, "*V"]:
    """Logarithm of a normal predictive density under each variance, up to a constant."""
    chance = variance + 1e-4 * unit**2
    return -0.5 * (jnp.log(chance) + jnp.square(reward - mean) / chance)


def _either(
    alone: Float[Array, ""], refined: Float[Array, ""], odds: Float[Array, ""]
) -> Float[Array, ""]:
    """Log-density of an explanation of which it is open whether it holds alone or refined."""
    odds = odds + _REFINED
    return jnp.logaddexp(jax.nn.log_sigmoid(-odds) + alone, jax.nn.log_sigmoid(odds) + refined)


def _together(
    seen: Evidence, prior: Hyperprior, pairs: Means, transition: Transition
) -> Float[Array, ""]:
    """Log-density of a reward whose mean depends on its pair and on where that led.

    Such means vary around that of their pair, by as much of its noise as is not theirs. Whoever stays in a
    loop meets few pairs, of which arrivals tell more than their means do.

    Args:
        seen: before the transition.
        prior: of everything.
        pairs: what is known of their rewards.
        transition: the reward and how it came about.
    """
    unit, here = reward_unit(seen, prior), (transition.state, transition.action)
    squares, before = squares_of_both(seen, prior, unit)
    noise = squares / (before + seen.both_rewards.repeats)
    between = jnp.maximum(pairs.noise[here] - noise, 0.0) + 1e-6 * unit**2
    visits, paid = after.paid(seen.successors, transition)
    strength = noise / between
    weight = visits + strength
    mean = (paid + strength * pairs.mean[here]) / weight
    left = strength / weight
    variance = noise + left * between + left**2 * pairs.variance[here]
    return _density(transition.reward, mean, variance, unit)


def _summed(
    seen: Evidence, prior: Hyperprior, landing: Means, transition: Transition
) -> Float[Array, ""]:
    """Log-density of a reward that is what its arrival pays and what its pair adds.

    What is open of the former is less than arrivals alone leave open: what pairs add is no noise.
    """
    here, there = (transition.state, transition.action), transition.next_state
    more, arrived = seen.added, seen.arrival.visits[there]
    doubt = jnp.where(arrived > 0, more.noise / jnp.maximum(arrived, 1.0), jnp.inf)
    doubt = jnp.minimum(doubt, landing.variance[there])
    mean = more.landing[there] + more.mean[here]
    variance = doubt + more.variance[here] + more.noise
    return _density(transition.reward, mean, variance, reward_unit(seen, prior))


def _add_odds(odds: Float[Array, ""], change: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.clip(odds + jnp.clip(change, -_STEP_LIMIT, _STEP_LIMIT), -ODDS_LIMIT, ODDS_LIMIT)
