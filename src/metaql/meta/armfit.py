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
from jaxtyping import Float, Int

from metaql.embedding.arms import ArmsPrior
from metaql.embedding.evidence import Evidence

MOST_ARMS = 64
"""Arms up to which they are told apart: every step takes the third power of their number."""
_MOST_ROUNDS, _SETTLED = 500, 1e-3
"""Of expectation maximisation, and what ten of them may add to the log-likelihood at its end."""
_TINY = 1e-4
"""Least variance of a reward around its mean, in squares of the range of all; of means in the first guess."""
_FEWEST_REPEATS = 30.0
"""Rewards of an arm beyond the first one of each task, from which its noise is known."""
_SAME_NOISE = 0.3
"""Deviation between tasks of the logarithm of noise, beyond chance, up to which all have one scale."""


class _Seen(NamedTuple):
    """Rewards of N tasks, by arm."""

    visits: Float[np.ndarray, "N A"]
    mean: Float[np.ndarray, "N A"]
    within: Float[np.ndarray, "N A"]
    """Sum of squares around it."""
    least: float
    """Least variance."""

    @property
    def repeats(self) -> Float[np.ndarray, "N A"]:
        """Degrees of freedom of the sums of squares."""
        return np.maximum(self.visits - 1.0, 0.0)


class _Normal(NamedTuple):
    """A model: `ArmsPrior` in double precision."""

    mean: Float[np.ndarray, " A"]
    covariance: Float[np.ndarray, "A A"]
    noise: Float[np.ndarray, " A"]


def fit_arms(
    experience: Sequence[Evidence], tasks: Int[np.ndarray, " N"] | None = None
) -> ArmsPrior | None:
    """The prior under which what was met is most likely; None where nothing tells arms apart.

    Nothing does beyond `MOST_ARMS`, or where tasks have scales of their own: the prior is in rewards. An arm
    that nobody pulled, padding say, is as arms usually are.

    Args:
        experience: batches ``[N, ...]`` of evidence. Arms are the same ones only in tasks that have one state
            and equally many.
        tasks: which task each agent lived in, where several share one; None: no two do.
    """
    shapes = {batch.pair.visits.shape[1:] for batch in experience}
    states, number = min(shapes)
    if len(shapes) > 1 or states > 1 or not 1 < number <= MOST_ARMS:
        return None
    seen = _seen(experience, tasks)
    pulled = seen.visits.sum(0) > 0
    visits, mean, within = (part[:, pulled] for part in seen[:3])
    known = _Seen(visits, mean, within, seen.least)
    binary = bool(np.concatenate([np.asarray(each.binary) for each in experience]).mean() > 0.5)
    if seen.least == 0 or (known.repeats.sum(0) < _FEWEST_REPEATS).any():
        return None
    if not binary and not _one_scale(known):
        return None
    alike, best = _best(known, binary)
    return None if best is alike else _for_all(best, alike, pulled)


def _best(seen: _Seen, binary: bool) -> tuple[_Normal, _Normal]:
    """The model in which arms are alike, and the one to be believed."""
    number, repeats = seen.visits.shape[1], seen.repeats
    pooled = np.full(number, seen.within.sum() / repeats.sum())
    each = seen.within.sum(0) / repeats.sum(0)
    alike = _fit(seen, _alike, pooled, 0.0)
    usual = alike.covariance[0, 0]
    models = [
        (alike, 3),
        (_fit(seen, _apart, each, usual), 3 * number),
        (_fit(seen, _jointly, each, usual), 2 * number + number * (number + 1) // 2),
    ]
    costs = [
        size * np.log(len(seen.visits)) - 2.0 * _log_likelihood(seen, model, binary)
        for model, size in models
    ]
    return alike, models[int(np.argmin(costs))][0]


def _seen(experience: Sequence[Evidence], tasks: Int[np.ndarray, " N"] | None) -> _Seen:
    def rows(of: Callable[[Evidence], Any]) -> np.ndarray:
        return np.concatenate([np.asarray(of(batch), np.float64) for batch in experience])

    visits = rows(lambda batch: batch.pair.visits)[:, 0]
    total = rows(lambda batch: batch.pair.reward)[:, 0]
    within = rows(lambda batch: batch.pair_rewards.within)[:, 0]
    each = total / np.maximum(visits, 1.0)
    if tasks is not None:
        same = np.eye(int(tasks.max()) + 1)[:, tasks]
        squares = within + visits * each**2
        visits, total = same @ visits, same @ total
        each = total / np.maximum(visits, 1.0)
        within = np.maximum(same @ squares - visits * each**2, 0.0)
    lowest, highest = rows(lambda batch: batch.lowest).min(), rows(lambda b: b.highest).max()
    return _Seen(visits, each, within, _TINY * float(highest - lowest) ** 2)


def _one_scale(seen: _Seen) -> bool:
    """Whether rewards vary around their means as much in every task."""
    repeats, within = seen.repeats.sum(1), seen.within.sum(1)
    many = repeats > 1
    noise = np.maximum(within[many] / repeats[many], seen.least)
    by_chance = (0.5 / repeats[many]).mean()
    return bool((0.5 * np.log(noise)).var() - by_chance < _SAME_NOISE**2)


def _for_all(model: _Normal, usual: _Normal, pulled: np.ndarray) -> ArmsPrior:
    """The model, with arms that nobody pulled as ``usual``."""
    number, known = len(pulled), np.flatnonzero(pulled)
    mean, noise = (np.full(number, part[0]) for part in (usual.mean, usual.noise))
    covariance = usual.covariance[0, 0] * np.eye(number)
    mean[known], noise[known] = model.mean, model.noise
    covariance[np.ix_(known, known)] = model.covariance
    return ArmsPrior(*(jnp.asarray(part, jnp.float32) for part in (mean, covariance, noise)))


def _alike(model: _Normal) -> _Normal:
    number = len(model.mean)
    # Means that differ between arms scatter too.
    scatter = np.diag(model.covariance).mean() + model.mean.var()
    mean = np.full(number, model.mean.mean())
    return model._replace(mean=mean, covariance=scatter * np.eye(number))


def _apart(model: _Normal) -> _Normal:
    return model._replace(covariance=np.diag(np.diag(model.covariance)))


def _jointly(model: _Normal) -> _Normal:
    return model


def _fit(
    seen: _Seen,
    tie: Callable[[_Normal], _Normal],
    noise: Float[np.ndarray, " A"],
    usual: float,
) -> _Normal:
    """Expectation maximisation.

    Args:
        seen: what was met.
        tie: makes of free numbers those that the model allows.
        noise: of a reward.
        usual: variance of one more task, pretended, in which nothing goes together: that an arm was the
            same in all tasks does not make it so in the next.
    """
    noise, pulled = np.maximum(noise, seen.least), seen.visits > 0
    count = pulled.sum(0)
    mean = np.where(pulled, seen.mean, 0.0).sum(0) / count
    spread = np.where(pulled, np.square(seen.mean - mean), 0.0).sum(0) / count
    chance = np.where(pulled, noise / np.maximum(seen.visits, 1.0), 0.0).sum(0) / count
    model = tie(_Normal(mean, np.diag(np.maximum(spread - chance, seen.least)), noise))
    likelihood = -np.inf
    for round_ in range(_MOST_ROUNDS):
        means, covariances = _posterior(seen, model)
        mean = means.mean(0)
        apart = means - mean
        sums = covariances.sum(0) + apart.T @ apart + usual * np.eye(len(mean))
        covariance = sums / (len(apart) + (usual > 0))
        model = tie(model._replace(mean=mean, covariance=covariance))
        if round_ % 10 == 9:
            before, likelihood = likelihood, _log_likelihood_of_means(seen, model)
            if likelihood - before < _SETTLED:
                break
    return model


def _scaled(seen: _Seen, model: _Normal) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As in `condition`, of every task: R, ``1 + R K R``, and how far means are from the prior's, times R."""
    root = np.sqrt(seen.visits / model.noise)
    gram = root[:, :, None] * model.covariance * root[:, None] + np.eye(len(model.mean))
    return root, gram, root * np.where(seen.visits > 0, seen.mean - model.mean, 0.0)


def _posterior(seen: _Seen, model: _Normal) -> tuple[np.ndarray, np.ndarray]:
    """As `metaql.embedding.arms.condition`, of every task, with covariances: ``[N, A]`` and ``[N, A, A]``."""
    root, gram, surprise = _scaled(seen, model)
    scaled = root[:, :, None] * model.covariance
    gain = np.linalg.solve(gram, scaled)
    means = model.mean + np.einsum("nba,nb->na", gain, surprise)
    return means, model.covariance - np.matmul(scaled.transpose(0, 2, 1), gain)


def _log_likelihood(seen: _Seen, model: _Normal, binary: bool) -> float:
    """Of every arm's mean reward, and (not where it follows from the mean) of how rewards vary around it."""
    means = _log_likelihood_of_means(seen, model)
    if binary:
        return means
    noises = -0.5 * (seen.repeats * np.log(model.noise) + seen.within / model.noise).sum()
    return means + float(noises)


def _log_likelihood_of_means(seen: _Seen, model: _Normal) -> float:
    _, gram, surprise = _scaled(seen, model)
    unlikely = (surprise * np.linalg.solve(gram, surprise[..., None])[..., 0]).sum()
    pulled = seen.visits > 0
    chance = np.where(pulled, np.log(model.noise / np.maximum(seen.visits, 1.0)), 0.0).sum()
    return float(-0.5 * (np.linalg.slogdet(gram)[1].sum() + chance + unlikely))
