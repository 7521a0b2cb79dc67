"""Family prior: what tasks that share their states have in common, fitted on many agents' experience.

Empirical Bayes with conjugate families. For every index the mean over tasks is kept, together with a
number of pseudo-observations that says how much tasks differ around it: huge where all tasks agree
(how ice slips), tiny where one look settles the matter (whether a cell is a hole). The number maximises
the marginal likelihood (Dirichlet-multinomial; Minka 2000, "Estimating a Dirichlet distribution") over
a fixed grid; for rewards it is the classical ratio of the variance within tasks to the variance between
them (normal-normal model). Runs once, on the host, in double precision: differences of log-gamma
functions of large counts drown in single precision.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # its parts are loaded when they are first used
from jaxtyping import Float

from metaql.embedding.statistics import ODDS_LIMIT, Scores, Statistics, Tally

STRENGTHS = np.logspace(-2.0, 3.0, 16)
"""Candidate numbers of pseudo-observations."""
_FLOOR = 1e-6
"""Variance between tasks, in squares of the largest mean, that is as good as none."""
_ROUNDS = 3
"""Alternations between the mean over tasks and its strength."""


def fit_prior(experience: Statistics) -> Statistics:
    """Pseudo-observations that make what N tasks showed most likely.

    Args:
        experience: statistics of N lifetimes in N tasks that share their states, ``[N, ...]``.

    Returns:
        One `Statistics` of pseudo-observations, zero wherever nothing was experienced.
    """
    seen: Any = jax.tree.map(lambda x: np.asarray(x, np.float64), experience)
    num_tasks, *shape = seen.transitions.shape
    counts = seen.transitions.reshape(num_tasks, -1, shape[-1])
    pairs = [fit_categorical(counts[:, k]) for k in range(counts.shape[1])]
    steps = max(seen.steps.sum(), 1.0)
    prior: Any = seen._replace(
        transitions=np.stack(pairs).reshape(shape),
        pair=_fit_tally(seen.pair, _reward_noise(seen, seen.pair)),
        arrival=_fit_tally(seen.arrival, _reward_noise(seen, seen.arrival)),
        scores=_fit_scores(seen.scores, steps),
        reward_square=seen.reward_square.sum() / steps,
        reward_peak=seen.reward_peak.max(),
        steps=np.zeros(()),
    )
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), prior)


def _fit_scores(scores: Any, steps: float) -> Scores:
    """Errors of one typical step, and what all agents together say of the two explanations."""
    errors = (error.sum() / steps for error in scores[:2])
    odds = (np.clip(each.sum(), -ODDS_LIMIT, ODDS_LIMIT) for each in scores[2:])
    return Scores(*errors, *odds)


def fit_categorical(counts: Float[np.ndarray, "N K"]) -> Float[np.ndarray, " K"]:
    """Dirichlet pseudo-counts for N tasks' counts over K outcomes.

    Tasks weigh ``n / (n + strength)`` in the mean: by their visits where tasks agree, alike where one
    visit tells all. Otherwise long-lived tasks would speak for those where agents die at once.
    """
    total = counts.sum(-1)
    if total.sum() == 0:
        return np.zeros(counts.shape[1])
    rates = counts / np.maximum(total, 1.0)[:, None]
    mean, strength = np.zeros(counts.shape[1]), 1.0
    for _ in range(_ROUNDS):
        weight = total / (total + strength)
        mean = weight @ rates / weight.sum()
        strength = _best_strength(counts, mean)
    return np.asarray(strength * mean)


def _best_strength(counts: Float[np.ndarray, "N K"], mean: Float[np.ndarray, " K"]) -> float:
    """The number of pseudo-observations of highest marginal likelihood; ties go to the largest."""
    total = counts.sum(-1)
    task, outcome = np.nonzero(counts)
    alpha = STRENGTHS[:, None] * mean[outcome]
    gammaln = scipy.special.gammaln
    ways = (gammaln(counts[task, outcome] + alpha) - gammaln(alpha)).sum(-1)
    scale = gammaln(total + STRENGTHS[:, None]) - gammaln(STRENGTHS[:, None])
    likelihood = ways - scale.sum(-1) + 1e-3 * np.log(STRENGTHS)
    return float(STRENGTHS[np.argmax(likelihood)])


def _fit_tally(tally: Any, noise: float) -> Tally:
    """Pseudo-observations of terminations (beta) and rewards (normal) at every index.

    One number of visits serves both, so that a posterior stays a plain sum: the smaller of the two,
    since it is the quantity that differs most between tasks that a first look must be able to settle.
    """
    visits, reward, ends = (x.reshape(x.shape[0], -1) for x in tally)
    outcomes = np.stack([ends, visits - ends], -1)
    beta = np.stack([fit_categorical(outcomes[:, k]) for k in range(visits.shape[1])])
    seen = visits.sum(0)
    mean = reward.sum(0) / np.maximum(seen, 1.0)
    rate = beta[:, 0] / np.maximum(beta.sum(-1), _FLOOR)
    strength = np.minimum(beta.sum(-1), _reward_strength(visits, reward, mean, noise))
    shape = tally.visits.shape[1:]
    fitted: Any = (strength, strength * mean, strength * rate)
    return Tally(*(x.reshape(shape) for x in fitted))


def _reward_strength(
    visits: Float[np.ndarray, "N K"],
    reward: Float[np.ndarray, "N K"],
    mean: Float[np.ndarray, " K"],
    noise: float,
) -> Float[np.ndarray, " K"]:
    """Variance within tasks over variance between tasks, within the grid's range."""
    visited = visits > 0
    tasks = np.maximum(visited.sum(0), 1)
    each = reward / np.maximum(visits, 1.0)
    spread = (visited * np.square(each - mean)).sum(0) / tasks
    by_chance = (visited * noise / np.maximum(visits, 1.0)).sum(0) / tasks
    between = np.maximum(spread - by_chance, 0.0)
    floor = _FLOOR * max(float(np.square(each).max(initial=0.0)), 1e-30)
    strength = np.where(between <= floor, STRENGTHS[-1], noise / np.maximum(between, floor))
    return np.clip(strength, STRENGTHS[0], STRENGTHS[-1])


def _reward_noise(seen: Any, tally: Any) -> float:
    """Pooled variance of rewards around each task's mean at the same index."""
    explained = (np.square(tally.reward) / np.maximum(tally.visits, 1.0)).sum()
    unexplained = max(float(seen.reward_square.sum() - explained), 0.0)
    return unexplained / max(float(seen.steps.sum()), 1.0)
