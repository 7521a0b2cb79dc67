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
    """Summed squared one-step-ahead prediction errors of the two explanations."""

    reward_pair: Float[Array, ""]
    reward_arrival: Float[Array, ""]
    ends_pair: Float[Array, ""]
    ends_arrival: Float[Array, ""]


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
    by_pair = predict_means(known.pair, at_pair, known)
    by_arrival = predict_means(known.arrival, at_arrival, known)
    errors = Scores(
        jnp.square(transition.reward - by_pair[0]),
        jnp.square(transition.reward - by_arrival[0]),
        jnp.square(ended - by_pair[1]),
        jnp.square(ended - by_arrival[1]),
    )
    return Statistics(
        transitions=statistics.transitions + at_pair[..., None] * at_arrival,
        pair=_add(statistics.pair, at_pair, transition.reward, ended),
        arrival=_add(statistics.arrival, at_arrival, transition.reward, ended),
        scores=jax.tree.map(jnp.add, statistics.scores, errors),
        reward_square=statistics.reward_square + jnp.square(transition.reward),
        reward_peak=jnp.maximum(statistics.reward_peak, jnp.abs(transition.reward)),
        steps=statistics.steps + 1.0,
    )


def combine(evidence: Statistics, prior: Statistics, trust: Float[Array, ""]) -> Statistics:
    """Posterior statistics: evidence plus ``trust`` (in [0, 1]) times the pseudo-observations."""
    peak = jnp.maximum(evidence.reward_peak, trust * prior.reward_peak)
    total = jax.tree.map(lambda e, p: e + trust * p, evidence, prior)
    return total._replace(reward_peak=peak, steps=evidence.steps)


def _tallies(evidence: Statistics, prior: Statistics) -> Statistics:
    """Posterior of the tallies alone: predictions do not need the big transition array."""
    pair = jax.tree.map(jnp.add, evidence.pair, prior.pair)
    arrival = jax.tree.map(jnp.add, evidence.arrival, prior.arrival)
    return evidence._replace(pair=pair, arrival=arrival)


def predict_means(
    tally: Tally, where: Float[Array, "*K"], known: Statistics
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Predicted mean reward and termination at one index, shrunk to the overall means by 1/10 visit."""
    reward, ends = overall_means(known)
    visits = (tally.visits * where).sum() + 0.1
    return (
        ((tally.reward * where).sum() + 0.1 * reward) / visits,
        ((tally.ends * where).sum() + 0.1 * ends) / visits,
    )


def overall_means(known: Statistics) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean reward and termination rate over everything tallied by arrival."""
    visits = known.arrival.visits.sum() + 1e-3
    return known.arrival.reward.sum() / visits, known.arrival.ends.sum() / visits


def _add(
    tally: Tally, where: Float[Array, "*K"], reward: Float[Array, ""], ended: Float[Array, ""]
) -> Tally:
    return Tally(tally.visits + where, tally.reward + where * reward, tally.ends + where * ended)
