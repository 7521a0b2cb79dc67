"""Outcome profiles: what the pairs of one task have in common in how chance works.

On slippery ice every move goes where it should with one probability and to either side with another:
*which* cells these are differs from pair to pair, the probabilities do not. A profile is such a list of
probabilities without names. Each pair has one of `PROFILES`, in an order that its own counts must tell;
how common each profile is, is estimated over all pairs of the task (empirical Bayes). So a few visits
tell as much as many would if every pair were learned for itself. Whether a task is of this kind at
all is judged against independent Dirichlet rows by what each foresaw (`metaql.embedding.evidence`).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metaql.embedding.successors import Sparse

WIDTH = 4
"""Most outcomes a profile has."""


def _profiles() -> Float[np.ndarray, "M 4"]:
    rows = [[1.0]]
    rows += [[p, 1 - p] for p in (0.5, 0.6, 2 / 3, 0.75, 0.83, 0.9, 0.95)]
    rows += [[p, (1 - p) / 2, (1 - p) / 2] for p in (1 / 3, 0.45, 0.6, 0.7, 0.8, 0.88, 0.95)]
    rows += [[p, (1 - p) / 3, (1 - p) / 3, (1 - p) / 3] for p in (0.25, 0.5, 0.7, 0.85)]
    return np.asarray([row + [0.0] * (WIDTH - len(row)) for row in rows])


PROFILES = _profiles()
"""Sure things, lists of two, and one outcome against two or three equal others."""
_ORDERS = np.asarray(list(itertools.permutations(range(WIDTH))))
_IMPOSSIBLE = -60.0
"""Logarithm that stands for a probability of zero, so that 0 log 0 is 0."""
_VAGUE = 3.0
"""Visits from which on a pair says more about the task than the task about the pair."""
_TINY = 1e-30


class Profiled(NamedTuple):
    """What each pair's counts say under each profile; refreshed for a pair when it is visited."""

    fit: Float[Array, "S A M"]
    """Likelihood, relative to the profile that fits best."""
    mean: Float[Array, "S A M 4"]
    """Expected probability of the pair's first successors, in the order of their slots."""
    square: Float[Array, "S A M"]
    """Sum over them of the expected squared probability."""


class Chances(NamedTuple):
    """Predicted outcomes of pairs, all profiles taken together."""

    slots: Float[Array, "*K 4"]
    """Probability of each successor seen, by slot; what is missing to 1 is for others."""
    narrow: Float[Array, "*K"]
    """Variance of the expectation of a value, over the variance of the value itself."""


def no_profiles(num_states: int, num_actions: int) -> Profiled:
    """Before any visit."""
    shapes = PROFILES[:, _ORDERS]  # all orders are alike
    rows = np.ones(len(PROFILES)), shapes.mean(1), (shapes**2).sum(-1).mean(1)
    lead = (num_states, num_actions)
    wide = (jnp.broadcast_to(row.astype(np.float32), (*lead, *row.shape)) for row in rows)
    return Profiled(*wide)


def _of_counts(
    counts: Float[Array, " 4"],
) -> tuple[Float[Array, " M"], Float[Array, "M 4"], Float[Array, " M"]]:
    """Likelihood and expected probabilities of one pair, over all orders of each profile."""
    shapes = jnp.asarray(PROFILES[:, _ORDERS], jnp.float32)  # [M, orders, 4]
    logs = jnp.asarray(np.log(np.maximum(PROFILES[:, _ORDERS], np.exp(_IMPOSSIBLE))), jnp.float32)
    fits = (logs * counts).sum(-1)
    total = jax.nn.logsumexp(fits, axis=-1)
    weight = jnp.exp(fits - total[:, None])[..., None]
    # A profile that the counts rule out must not promise anything either.
    mean = (weight * shapes).sum(1)
    square = (weight[..., 0] * (shapes**2).sum(-1)).sum(-1)
    return jnp.exp(total - total.max()), mean, square


def refresh(
    profiled: Profiled,
    successors: Sparse,
    pair: tuple[Int[Array, ""], Int[Array, ""]],
    visits: Float[Array, "S A"],
) -> Profiled:
    """Bring one pair (state and action) up to date with its counts; ``visits`` include the last."""

    def put(rows: Float[Array, "S A *K"], row: Float[Array, "*K"]) -> Float[Array, "S A *K"]:
        # A slice is changed in place; for `rows.at[pair]` XLA would copy all rows.
        return jax.lax.dynamic_update_slice(rows, row[None, None], (*pair, *(0,) * row.ndim))

    return jax.tree.map(put, profiled, profile(successors, pair, visits))


def profile(
    successors: Sparse, pair: tuple[Int[Array, ""], Int[Array, ""]], visits: Float[Array, "S A"]
) -> Profiled:
    """What one pair's counts say: its row of `Profiled`.

    Of a pair with more successors than a profile has outcomes, only the share of the first ones is
    foreseen.
    """
    counts, times = successors.counts[pair][:WIDTH], visits[pair]
    fit, mean, square = _of_counts(counts)
    share = jnp.where(times > 0, counts.sum() / jnp.maximum(times, 1.0), 1.0)
    return Profiled(fit, mean * share, square)


def commonness(
    profiled: Profiled,
    prior: Float[Array, " M"],
    last: Float[Array, " M"],
    visits: Float[Array, "S A"],
) -> Float[Array, " M"]:
    """How common each profile is in this task: one step of expectation-maximisation.

    Args:
        profiled: of all pairs.
        prior: pseudo-counts of pairs.
        last: the commonness before; sums to 1.
        visits: of every pair; the more, the more it says.
    """
    # The sum of `_shares` times weights, without an array of all shares.
    weight = visits / (visits + _VAGUE) / jnp.maximum(profiled.fit @ last, _TINY)
    counts = prior + last * jnp.tensordot(weight, profiled.fit, 2)
    return counts / counts.sum()


def _shares(fit: Float[Array, "*K M"], common: Float[Array, " M"]) -> Float[Array, "*K M"]:
    """Posterior over profiles of each pair."""
    joint = fit * common
    return joint / jnp.maximum(joint.sum(-1, keepdims=True), _TINY)


def chances(
    fit: Float[Array, "*K M"],
    mean: Float[Array, "*K M 4"],
    square: Float[Array, "*K M"],
    common: Float[Array, " M"],
    slots_seen: Float[Array, "*K 4"],
) -> Chances:
    """Predicted outcomes of pairs.

    Args:
        fit: as in `Profiled`, of these pairs.
        mean: likewise.
        square: likewise.
        common: from `commonness`.
        slots_seen: 1 where the slot holds a successor.
    """
    shares = _shares(fit, common)
    expected = (shares[..., None] * mean).sum(-2)
    variance = (shares * square).sum(-1) - (expected**2).sum(-1)
    chance = jnp.maximum((expected * (1.0 - expected)).sum(-1), 1e-3)
    return Chances(expected * slots_seen, jnp.clip(variance / chance, 0.0, 1.0))
