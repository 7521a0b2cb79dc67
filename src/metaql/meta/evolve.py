"""Evolution strategies: climb the return of whole lifetimes, which has no useful gradient.

How much to explore now shows only in what later episodes return, through thousands of greedy choices.
Differences between mirrored perturbations of a few weights, on the same tasks with the same keys,
estimate the slope of the mean return (Salimans et al. 2017, arXiv 1703.03864, eq. 1; mirrored sampling
and common random numbers); Adam climbs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Score = Callable[[Float[np.ndarray, " P"], int], float]
"""Mean score of a vector of weights on the tasks of an iteration (same tasks for equal numbers)."""


class Climb(NamedTuple):
    """Where the search stands; everything that a later iteration needs."""

    weights: Float[np.ndarray, " P"]
    momentum: Float[np.ndarray, " P"]
    scale: Float[np.ndarray, " P"]
    average: Float[np.ndarray, " P"]
    """Mean of the weights of late iterations: what is kept at the end."""
    iteration: int


def start_climb(weights: Float[np.ndarray, " P"]) -> Climb:
    """Before the first iteration."""
    zeros = np.zeros_like(weights)
    return Climb(weights, zeros, zeros, weights, 0)


def climb(
    state: Climb, score: Score, *, pairs: int, spread: float, rate: float, seed: int
) -> tuple[Climb, float]:
    """One iteration.

    Args:
        state: from `start_climb` or the iteration before.
        score: to be increased.
        pairs: mirrored pairs of perturbations.
        spread: their standard deviation.
        rate: step size of Adam.
        seed: of the perturbations, together with the number of the iteration.

    Returns:
        The state afterwards, and the mean score of all perturbed weights.
    """
    rng = np.random.default_rng([seed, state.iteration])
    noise = rng.standard_normal((pairs, len(state.weights)))
    tried = [
        [score(state.weights + sign * spread * each, state.iteration) for sign in (1.0, -1.0)]
        for each in noise
    ]
    scores = np.asarray(tried)
    gain = scores[:, 0] - scores[:, 1]
    slope = (gain / max(float(scores.std()), 1e-9)) @ noise / (2.0 * pairs)
    number = state.iteration + 1
    momentum = 0.8 * state.momentum + 0.2 * slope
    scale = 0.95 * state.scale + 0.05 * slope**2
    step = momentum / (1.0 - 0.8**number) / (np.sqrt(scale / (1.0 - 0.95**number)) + 1e-3)
    weights = state.weights + rate * step
    average = state.average + (weights - state.average) / min(number, 10)
    return Climb(weights, momentum, scale, average, number), float(scores.mean())
