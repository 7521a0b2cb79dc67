"""Sufficient statistics: everything a learner of finite MDPs has to remember.

Counts instead of the raw history: of fixed size, free of order, without a context limit. Rewards and
terminations are kept twice, by (state, action) and by **arrival state**: in a maze it is the cell you
reach that ends the episode, in a dense random MDP it is what you did. Which of the two explains the
task is itself estimated, by how well each predicted what came next (`Scores`).

A family prior is the same structure filled with pseudo-observations (conjugate priors), so that a
posterior is a sum: ``posterior = prior + evidence``.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metaql.types import Transition


class Tally(NamedTuple):
    """Sums over visits of some index set ``K`` (pairs ``[S, A]`` or arrival states ``[S]``)."""

    visits: Float[Array, "*K"]
    reward: Float[Array, "*K"]
    """Sum of rewards."""
    ends: Float[Array, "*K"]
    """Number of terminations."""


class Scores(NamedTuple):
    """How well the two explanations, pair and arrival, foresaw what came next."""

    error_pair: Float[Array, ""]
    """Summed squared one-step-ahead errors of rewards."""
    error_arrival: Float[Array, ""]
    reward_odds: Float[Array, ""]
    """Log Bayes factor of arrival against the pair, for rewards, within `ODDS_LIMIT`."""
    ends_odds: Float[Array, ""]
    """The same for terminations."""


SMALLEST_REWARD = 1e-14
"""Rewards that are no larger count as none: in float32 their squares vanish."""
ODDS_LIMIT = 10.0
"""Evidence beyond this log-odds is not added, so that a judgement can still turn."""
_ODDS_STEP = 5.0
"""What one step may add to log-odds, either way."""
_RATES = (1e-3, 1.0 - 1e-3)
"""Bounds of a predicted rate of termination: one surprise must not settle everything."""


class Statistics(NamedTuple):
    """What was experienced in one task (or what a prior pretends was)."""

    transitions: Float[Array, "S A S"]
    """N(s, a, s2)."""
    pair: Tally
    """By (state, action): ``[S, A]``."""
    arrival: Tally
    """By the state arrived in: ``[S]``."""
    scores: Scores
    reward_square: Float[Array, ""]
    """Sum of squared rewards."""
    reward_peak: Float[Array, ""]
    """Largest absolute reward."""
    steps: Float[Array, ""]
    """Number of transitions."""


def empty(num_states: int, num_actions: int) -> Statistics:
    """Statistics of nothing."""
    pair = jnp.zeros((num_states, num_actions))
    arrival = jnp.zeros(num_states)
    zero = jnp.zeros(())
    return Statistics(
        transitions=jnp.zeros((num_states, num_actions, num_states)),
        pair=Tally(pair, pair, pair),
        arrival=Tally(arrival, arrival, arrival),
        scores=Scores(zero, zero, zero, zero),
        reward_square=zero,
        reward_peak=zero,
        steps=zero,
    )


def observe(
    statistics: Statistics, transition: Transition, prior: Statistics | None = None
) -> Statistics:
    """Add one transition; ``prior`` only sharpens the predictions that `Scores` judges.

    One-hot sums instead of scatters: a scatter copies its buffer inside a compiled loop on CPU.
    """
    num_states, num_actions = statistics.pair.visits.shape
    at_state = jax.nn.one_hot(transition.state, num_states)
    at_pair = at_state[:, None] * jax.nn.one_hot(transition.action, num_actions)
    at_arrival = jax.nn.one_hot(transition.next_state, num_states)
    ended = transition.terminated.astype(jnp.float32)
    known = statistics if prior is None else _tallies(statistics, prior)
    # A prior already says what to expect where nothing was seen, by as little as 1/100 of a visit.
    shrink = 0.1 if prior is None else 1e-3
    by_pair = predict_means(known.pair, at_pair, known, shrink)
    by_arrival = predict_means(known.arrival, at_arrival, known, shrink)
    return Statistics(
        transitions=statistics.transitions + at_pair[..., None] * at_arrival,
        pair=_add(statistics.pair, at_pair, transition.reward, ended),
        arrival=_add(statistics.arrival, at_arrival, transition.reward, ended),
        scores=_judge(known, by_pair, by_arrival, transition.reward, ended),
        reward_square=statistics.reward_square + jnp.square(transition.reward),
        reward_peak=jnp.maximum(statistics.reward_peak, jnp.abs(transition.reward)),
        steps=statistics.steps + 1.0,
    )


def _judge(
    known: Statistics,
    by_pair: tuple[Float[Array, ""], Float[Array, ""]],
    by_arrival: tuple[Float[Array, ""], Float[Array, ""]],
    reward: Float[Array, ""],
    ended: Float[Array, ""],
) -> Scores:
    """Scores after one more transition.

    Sequential Bayes factors (Dawid 1984, "prequential"): normal rewards of the variance estimated so
    far, Bernoulli terminations. What surprises both explanations alike moves neither.
    """
    scores, variance = known.scores, reward_variance(known)
    error_pair, error_arrival = (jnp.square(reward - mean) for mean, _ in (by_pair, by_arrival))
    rates = (jnp.clip(rate, *_RATES) for _, rate in (by_pair, by_arrival))
    fits = [jnp.log(jnp.where(ended > 0, rate, 1.0 - rate)) for rate in rates]

    def add(odds: Float[Array, ""], change: Float[Array, ""]) -> Float[Array, ""]:
        change = jnp.clip(change, -_ODDS_STEP, _ODDS_STEP)
        return jnp.clip(odds + change, -ODDS_LIMIT, ODDS_LIMIT)

    return Scores(
        error_pair=scores.error_pair + error_pair,
        error_arrival=scores.error_arrival + error_arrival,
        reward_odds=add(scores.reward_odds, (error_pair - error_arrival) / (2.0 * variance)),
        ends_odds=add(scores.ends_odds, fits[1] - fits[0]),
    )


def reward_scale(known: Statistics) -> Float[Array, ""]:
    """The unit of reward: the largest magnitude seen or expected, 1 before any."""
    return jnp.where(known.reward_peak > SMALLEST_REWARD, known.reward_peak, 1.0)


def reward_variance(known: Statistics, trust: Float[Array, ""] | float = 0.0) -> Float[Array, ""]:
    """Variance of rewards around the better explanation.

    One pretended error of the reward's scale counts as far as no prior, which has its own, is trusted.
    """
    error = jnp.minimum(known.scores.error_pair, known.scores.error_arrival)
    return (error + (1.0 - trust) * jnp.square(reward_scale(known))) / (known.steps + 1.0)


def combine(evidence: Statistics, prior: Statistics, trust: Float[Array, ""]) -> Statistics:
    """Posterior statistics: evidence plus ``trust`` (in [0, 1]) times the pseudo-observations.

    The prior's largest reward is a unit and not a sum: believed, or not (below one half).
    """
    peak = jnp.where(trust > 0.5, prior.reward_peak, 0.0)
    peak = jnp.maximum(evidence.reward_peak, peak)
    total = jax.tree.map(lambda e, p: e + trust * p, evidence, prior)
    return total._replace(reward_peak=peak, steps=evidence.steps)


def _tallies(evidence: Statistics, prior: Statistics) -> Statistics:
    """Posterior of the tallies alone: predictions do not need the big transition array."""
    pair = jax.tree.map(jnp.add, evidence.pair, prior.pair)
    arrival = jax.tree.map(jnp.add, evidence.arrival, prior.arrival)
    return evidence._replace(pair=pair, arrival=arrival)


def predict_means(
    tally: Tally, where: Float[Array, "*K"], known: Statistics, shrink: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Predicted mean reward and termination at one index, with ``shrink`` visits of the overall mean."""
    reward, ends = overall_means(known)
    visits = (tally.visits * where).sum() + shrink
    return (
        ((tally.reward * where).sum() + shrink * reward) / visits,
        ((tally.ends * where).sum() + shrink * ends) / visits,
    )


def overall_means(known: Statistics) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean reward and termination rate over everything tallied by arrival."""
    visits = known.arrival.visits.sum() + 1e-3
    return known.arrival.reward.sum() / visits, known.arrival.ends.sum() / visits


def _add(
    tally: Tally, where: Float[Array, "*K"], reward: Float[Array, ""], ended: Float[Array, ""]
) -> Tally:
    return Tally(tally.visits + where, tally.reward + where * reward, tally.ends + where * ended)
