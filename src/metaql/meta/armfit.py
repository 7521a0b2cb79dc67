"""Fit an `ArmsPrior` to bandits that have the same arms in every task, where that tells arms apart.

Three models of what arms are worth in a task: all alike; each with a mean, a variance and a noise of its own;
and jointly normal besides. Each is fitted by expectation maximisation to what Q-learning agents met in
training tasks, and the Bayesian information criterion chooses (Schwarz 1978). Which arms an agent chose to
pull biases none of them: it chose by what it saw, and that is all in the likelihood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from metaql.embedding.arms import ArmsPrior
from metaql.embedding.evidence import Evidence

MOST_ARMS = 64
"""Arms up to which their covariances are looked at: a task takes the third power of them."""
_ROUNDS = 30
_TINY = 1e-4
"""Least variance of a reward around its mean, in squares of the largest one; of means in the first guess."""


class _Seen(NamedTuple):
    """Rewards of N tasks, by arm."""

    visits: Float[np.ndarray, "N A"]
    mean: Float[np.ndarray, "N A"]
    within: Float[np.ndarray, "N A"]
    """Sum of squares around it."""
    least: float
    """Least variance."""


class _Normal(NamedTuple):
    """A model: `ArmsPrior` in double precision."""

    mean: Float[np.ndarray, " A"]
    covariance: Float[np.ndarray, "A A"]
    noise: Float[np.ndarray, " A"]


def fit_arms(experience: Sequence[Evidence]) -> ArmsPrior | None:
    """The prior under which what was met is most likely; None where nothing tells arms apart.

    Args:
        experience: batches ``[N, ...]`` of evidence. Arms are the same ones only in tasks that have one state
            and equally many.
    """
    shapes = {batch.pair.visits.shape[1:] for batch in experience}
    if len(shapes) > 1 or min(shapes)[0] > 1:
        return None
    seen, binary = _seen(experience), _binary(experience)
    number = seen.visits.shape[1]
    if seen.least == 0 or (seen.visits.sum(0) == 0).any():
        return None
    models = [(_alike, 3), (_apart, 3 * number)]
    if number <= MOST_ARMS:
        models.append((_jointly, 2 * number + number * (number + 1) // 2))
    usual = _fit(seen, _alike, 0.0).covariance[0, 0]
    fits = [_fit(seen, tie, 0.0 if tie is _alike else usual) for tie, _ in models]
    costs = [
        size * np.log(len(seen.visits)) - 2.0 * _log_likelihood(seen, fit, binary)
        for fit, (_, size) in zip(fits, models, strict=True)
    ]
    best = int(np.argmin(costs))
    if models[best][0] is _alike:
        return None
    return ArmsPrior(*(jnp.asarray(part, jnp.float32) for part in fits[best]))


def _seen(experience: Sequence[Evidence]) -> _Seen:
    def rows(of: Callable[[Evidence], Any]) -> Float[np.ndarray, "N A"]:
        return np.concatenate([np.asarray(of(batch)[:, 0], np.float64) for batch in experience])

    visits, total = rows(lambda batch: batch.pair.visits), rows(lambda batch: batch.pair.reward)
    peak = max(float(batch.peak.max()) for batch in experience)
    within = rows(lambda batch: batch.pair_rewards.within)
    return _Seen(visits, total / np.maximum(visits, 1.0), within, _TINY * peak**2)


def _binary(experience: Sequence[Evidence]) -> bool:
    """Whether rewards are of two values in most tasks."""
    return bool(np.concatenate([np.asarray(batch.binary) for batch in experience]).mean() > 0.5)


def _alike(model: _Normal) -> _Normal:
    number = len(model.mean)
    mean, noise = (np.full(number, part.mean()) for part in (model.mean, model.noise))
    # Means that differ between arms scatter too.
    scatter = np.diag(model.covariance).mean() + model.mean.var()
    return _Normal(mean, scatter * np.eye(number), noise)


def _apart(model: _Normal) -> _Normal:
    return model._replace(covariance=np.diag(np.diag(model.covariance)))


def _jointly(model: _Normal) -> _Normal:
    return model


def _fit(seen: _Seen, tie: Callable[[_Normal], _Normal], usual: float) -> _Normal:
    """Expectation maximisation.

    Args:
        seen: what was met.
        tie: makes of free numbers those that the model allows.
        usual: variance of one more task, pretended, in which nothing goes together: that an arm was the
            same in all tasks does not make it so in the next.
    """
    repeats = np.maximum(seen.visits - 1.0, 0.0)
    noise = seen.within.sum(0) / np.maximum(repeats.sum(0), 1.0)
    pulled = seen.visits > 0
    mean = np.where(pulled, seen.mean, 0.0).sum(0) / pulled.sum(0)
    spread = np.where(pulled, np.square(seen.mean - mean), 0.0).sum(0) / pulled.sum(0)
    model = tie(_Normal(mean, np.diag(spread + seen.least), np.maximum(noise, seen.least)))
    for _ in range(_ROUNDS):
        means, covariances = _posterior(seen, model)
        mean = means.mean(0)
        apart = means - mean
        sums = covariances.sum(0) + apart.T @ apart + usual * np.eye(len(mean))
        covariance = sums / (len(apart) + (usual > 0))
        model = tie(model._replace(mean=mean, covariance=covariance))
    return model


def _scaled(seen: _Seen, model: _Normal) -> tuple[np.ndarray, np.ndarray]:
    """R and ``1 + R K R`` of every task, as in `condition`: ``[N, A]`` and ``[N, A, A]``."""
    root = np.sqrt(seen.visits / model.noise)
    gram = root[:, :, None] * model.covariance * root[:, None] + np.eye(len(model.mean))
    return root, gram


def _posterior(seen: _Seen, model: _Normal) -> tuple[np.ndarray, np.ndarray]:
    """As `metaql.embedding.arms.condition`, of every task, with covariances: ``[N, A]`` and ``[N, A, A]``."""
    root, gram = _scaled(seen, model)
    scaled = root[:, :, None] * model.covariance
    gain = np.linalg.solve(gram, scaled)
    surprise = root * np.where(seen.visits > 0, seen.mean - model.mean, 0.0)
    means = model.mean + np.einsum("nba,nb->na", gain, surprise)
    return means, model.covariance - np.einsum("nba,nbc->nac", scaled, gain)


def _log_likelihood(seen: _Seen, model: _Normal, binary: bool) -> float:
    """Of every arm's mean reward, and (not where it follows from the mean) of how rewards vary around it."""
    root, gram = _scaled(seen, model)
    surprise = root * np.where(seen.visits > 0, seen.mean - model.mean, 0.0)
    unlikely = (surprise * np.linalg.solve(gram, surprise[..., None])[..., 0]).sum()
    pulled = seen.visits > 0
    chance = np.where(pulled, np.log(model.noise / np.maximum(seen.visits, 1.0)), 0.0).sum()
    means = -0.5 * (np.linalg.slogdet(gram)[1].sum() + chance + unlikely)
    if binary:
        return float(means)
    repeats = np.maximum(seen.visits - 1.0, 0.0)
    noises = -0.5 * (repeats * np.log(model.noise) + seen.within / model.noise).sum()
    return float(means + noises)
