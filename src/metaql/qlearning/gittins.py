"""Gittins indices: the best order in which to try arms that are independent of each other.

An arm's index is the sure reward per pull that makes one indifferent between the arm, with the right to
stop, and being paid for good (Gittins 1979; Gittins, Glazebrook & Weber 2011, chapter 1). For discounted
rewards, pulling the arm of the largest index is optimal. With a given number of pulls left, the index of
that horizon is close to it (Lattimore 2016, arXiv 1511.06014). Tables are made in float64 by backward
induction and kept for the life of the process.
"""

from __future__ import annotations

from functools import lru_cache

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import scipy  # its parts are loaded when they are first used
from jaxtyping import Array, Float

from metaql.qlearning.bandits import Arms, BanditLearner
from metaql.qlearning.schedules import as_float
from metaql.types import PRNGKey

_LEVELS = 512
"""Sure rewards that an arm is compared with; the index is interpolated between two of them."""


class Gittins(BanditLearner):
    """The arm of the largest Gittins index, for rewards of 0 or 1 and uniform priors."""

    table: Float[Array, "R P P"] = eqx.field(converter=as_float, kw_only=True)
    """By pulls left, successes and failures (`horizon_table`); one row: always that
    (`discounted_table`)."""

    def index(self, key: PRNGKey, arms: Arms) -> Float[Array, " A"]:
        """Look the indices up; beyond the table, at its edge."""
        rows, size, _ = self.table.shape
        left = jnp.maximum(rows - 1 - arms.pulls.sum(), 0).astype(jnp.int32)
        won = jnp.clip(jnp.round(arms.reward_sum), 0, size - 1).astype(jnp.int32)
        lost = jnp.clip(jnp.round(arms.pulls - arms.reward_sum), 0, size - 1).astype(jnp.int32)
        return self.table[left, won, lost]


class NormalGittins(BanditLearner):
    """The arm of the largest index of the pulls left, for normal rewards and normal priors."""

    bonus: Float[Array, "R P"] = eqx.field(converter=as_float, kw_only=True)
    """Index less posterior mean by pulls left and pulls of the arm (`normal_bonus`)."""
    uncertain: Float[Array, "*A"] = eqx.field(converter=as_float, default=1.0)
    """1 for arms to be learned about, 0 for those whose mean is known."""

    def index(self, key: PRNGKey, arms: Arms) -> Float[Array, " A"]:
        """Posterior means and what learning about the arm is worth."""
        rows, size = self.bonus.shape
        left = jnp.maximum(rows - 1 - arms.pulls.sum(), 0).astype(jnp.int32)
        pulls = jnp.clip(arms.pulls, 0, size - 1).astype(jnp.int32)
        return self.mean(arms) + self.uncertain * self.bonus[left, pulls]


@lru_cache(maxsize=16)
def discounted_table(
    pulls: int, discount: float, *, lookahead: int = 500
) -> Float[np.ndarray, "1 P P"]:
    """Indices for discounted rewards of arms that pay 1 with a probability uniform in [0, 1].

    With a successes and b failures seen, ``p = (a + 1) / (a + b + 2)`` and a sure reward m,
    ``V(a, b) = max(m / (1 - discount), p + discount * (p V(a + 1, b) + (1 - p) V(a, b + 1)))``;
    the index is the m at which both are equal.

    Args:
        pulls: largest number of pulls of one arm.
        discount: per pull, in [0, 1).
        lookahead: pulls after which the mean is taken for known.

    Returns:
        By successes and failures, of at most ``pulls`` in all; 0 beyond.
    """
    sure = np.linspace(0.0, 1.0, _LEVELS)
    retire = sure / (1.0 - discount)
    table = np.zeros((1, pulls + 1, pulls + 1))
    values = np.maximum(_mean_after(pulls + lookahead) / (1.0 - discount), retire)
    for count in range(pulls + lookahead - 1, -1, -1):
        mean = _mean_after(count)
        onward = mean + discount * (mean * values[1:] + (1.0 - mean) * values[:-1])
        values = np.maximum(onward, retire)
        if count <= pulls:
            won = np.arange(count + 1)
            table[0, won, count - won] = _crossing(onward - retire, sure)
    return table


@lru_cache(maxsize=4)
def horizon_table(pulls: int) -> Float[np.ndarray, "R P P"]:
    """Indices for r pulls left, of arms that pay 1 with a probability uniform in [0, 1].

    As `discounted_table`, with ``V_r(a, b) = max(r m, p + p V_{r-1}(a + 1, b) + (1 - p)
    V_{r-1}(a, b + 1))`` and ``V_0 = 0``.

    Returns:
        ``[pulls + 1, pulls + 1, pulls + 1]`` by pulls left, successes and failures, of at most
        ``pulls`` in all; 0 beyond. Memory and time grow with the cube: for up to about 200 pulls.
    """
    sure = np.linspace(0.0, 1.0, _LEVELS)
    table = np.zeros((pulls + 1,) * 3)
    values = [np.zeros((count + 1, _LEVELS)) for count in range(pulls + 1)]
    for left in range(1, pulls + 1):
        for count in range(pulls - left + 1):
            mean, after = _mean_after(count), values[count + 1]
            onward = mean + mean * after[1:] + (1.0 - mean) * after[:-1]
            won = np.arange(count + 1)
            table[left, won, count - won] = _crossing(onward - left * sure, sure)
            # Nobody needs the values of the row before at this count any more.
            values[count] = np.maximum(onward, left * sure)
    return table


@lru_cache(maxsize=8)
def normal_bonus(pulls: int, prior_std: float, noise_std: float) -> Float[np.ndarray, "R P"]:
    """Index less posterior mean for r pulls left, of arms with normal means and normal noise.

    Only differences count, so the sure reward may be 0: ``V_r(x) = max(0, x + E V_{r-1}(x'))`` for
    posterior mean x, which after the pull is x', normal around x with the variance that the posterior
    loses. The bonus is minus the x at which ``x + E V_{r-1}(x') = 0``. V is kept piecewise linear, and
    E of each piece is exact.

    Returns:
        ``[pulls + 1, pulls + 1]`` by pulls left and pulls of the arm; 0 where they exceed ``pulls``.
    """
    means = prior_std * np.linspace(-5.0, 5.0, 801)
    precision = prior_std**-2 + np.arange(pulls + 1) * noise_std**-2
    table = np.zeros((pulls + 1, pulls + 1))
    values = np.zeros((pulls + 1, len(means)))
    for count in range(pulls - 1, -1, -1):
        lost = np.sqrt(1.0 / precision[count] - 1.0 / precision[count + 1])
        u = (means[:, None] - means[:-1]) / lost
        density = np.exp(-0.5 * u**2) / np.sqrt(2.0 * np.pi)
        above = lost * (density + u * scipy.special.ndtr(u))  # E max(0, x' - mean)
        bends = np.diff(np.diff(values[: pulls - count]), prepend=0.0) / (means[1] - means[0])
        worth = means + bends @ above.T
        table[1 : pulls - count + 1, count] = -_crossing(-worth, means)
        values[1 : pulls - count + 1] = np.maximum(worth, 0.0)
    return table


def _mean_after(count: int) -> Float[np.ndarray, "W 1"]:
    """Posterior mean after 0, 1, ..., ``count`` successes in ``count`` pulls, as a column."""
    return ((np.arange(count + 1) + 1.0) / (count + 2.0))[:, None]


def _crossing(falling: Float[np.ndarray, "W L"], at: Float[np.ndarray, " L"]) -> np.ndarray:
    """Where each row, from positive to negative, crosses zero, linearly interpolated."""
    right = np.clip((falling > 0).sum(-1), 1, len(at) - 1)
    rows = np.arange(len(falling))
    before, after = falling[rows, right - 1], falling[rows, right]
    share = before / np.maximum(before - after, 1e-300)
    return at[right - 1] + np.clip(share, 0.0, 1.0) * (at[right] - at[right - 1])
