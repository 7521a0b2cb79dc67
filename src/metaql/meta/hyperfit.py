"""Fit a `Hyperprior` to a family: what its tasks have in common in how they are made.

Empirical Bayes by moments. Q-learning agents live in many training tasks; what the evidence of each says
(how spread successors are, how rewards vary, ...) is one draw from the prior to be fitted. Where the
draws agree the prior comes out sharp, where they differ broad.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metaql.embedding.evidence import Evidence, base_weights, common_rate
from metaql.embedding.hyperprior import EndPrior, Hyperprior, RewardPrior, broad
from metaql.embedding.rewards import Means, arrival_means, pair_means, reward_scale, reward_unit
from metaql.embedding.statistics import ODDS_LIMIT, Tally
from metaql.meta.armfit import fit_arms

_SAME_SCALE = 0.2
"""Deviation of the logarithm of the unit of reward up to which a family has one scale."""
_WEIGHTS = (0.3, 300.0)
"""Bounds of every weight in pseudo-observations."""
_SURE = 0.02
"""Pretended share of tasks that are otherwise, so that no odds are infinite."""


def fit_hyperprior(
    experience: Sequence[Evidence],
    *,
    one_family: bool = False,
    tasks: Int[np.ndarray, " N"] | None = None,
) -> Hyperprior:
    """The prior under which what every task showed is most typical (method of moments).

    Args:
        experience: batches ``[N, ...]`` of evidence, gathered under `broad`; each batch counts alike.
        one_family: take out of the scatter between tasks what chance alone makes of it, for rewards:
            means of few arms differ even where all arms have one prior. Sharper; for tasks that are
            all made alike. (Rewards of more than two values only where they have one scale: the unit found
            else grows along a lifetime.) And tell arms of bandits apart, where they differ (`fit_arms`).
        tasks: as in `fit_arms`.
    """
    start = broad()
    units = [np.asarray(jax.vmap(lambda e: reward_unit(e, start))(batch)) for batch in experience]
    paid = [np.asarray(jax.vmap(lambda e: e.peak > 0)(batch)) for batch in experience]
    # Who was paid nothing tells nothing of a unit.
    logs = np.log(np.concatenate(units)[np.concatenate(paid)])
    # What arms are worth is told in rewards, so their unit is as good as any.
    arms = fit_arms(experience, tasks) if one_family else None
    told = arms is not None or (logs.size > 0 and logs.std() < _SAME_SCALE)
    unit = float(np.exp(logs.mean() if logs.size else 0.0)) if told else 0.0
    # The facts are taken in the unit they will be used in.
    facts = [jax.vmap(lambda e: _facts(e, start, unit))(batch) for batch in experience]
    counts = [batch.steps.shape[0] for batch in experience]
    weight = np.concatenate([np.full(count, 1.0 / count) for count in counts])
    weight = weight / weight.sum()
    rows = jax.tree.map(lambda *x: np.concatenate([np.asarray(y, np.float64) for y in x]), *facts)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.tensordot(weight, values, 1)

    many, two = (_among(weight, rows["two"] == flag) for flag in (0.0, 1.0))
    origins = mean(rows["origins"])
    common = mean(rows["common"])
    fitted: dict[str, Any] = {
        "log_spread": np.log(mean(rows["spread"]) + 1e-4),
        "origins": 0.1 + 3.0 * origins / origins.sum(),
        "profiles": 1.5 * common / common.sum() + 0.01,
        "profile_odds": _odds(weight, rows["profile_odds"]),
        "pair": _rewards(many, rows["pair"], one_family and unit > 0),
        "arrival": _rewards(many, rows["arrival"], one_family and unit > 0),
        "pair_two": _rewards(two, rows["pair"], one_family),
        "arrival_two": _rewards(two, rows["arrival"], one_family),
        "noise_odds": _odds(weight, rows["noise_odds"]),
        "stays_two": np.asarray(_among(weight, rows["told_two"]) @ rows["two"]),
        "pair_ends": _ends(weight, rows["pair_rate"], rows["pair_ends"]),
        "arrival_ends": _ends(weight, rows["arrival_rate"], rows["arrival_ends"]),
        "reward_odds": _odds(weight, rows["reward_odds"]),
        "ends_odds": _odds(weight, rows["ends_odds"]),
        "unit": np.asarray(unit),
        "arms": arms,
    }
    return Hyperprior(**jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), fitted))


def _facts(seen: Evidence, start: Hyperprior, unit: float) -> dict[str, Array]:
    """What one task's evidence says of how it is made."""
    start = eqx.tree_at(lambda prior: prior.unit, start, jnp.asarray(unit))
    scale = reward_scale(seen, start)
    pair, arrival = pair_means(seen, start, scale), arrival_means(seen, start, scale)

    def five(means: Means, tally: Tally) -> Float[Array, " 5"]:
        spread = jnp.stack([means.between, means.fresh_noise]) / scale.unit**2
        number, repeats = (tally.visits > 0).sum(), jnp.maximum(tally.visits - 1.0, 0.0).sum()
        sizes = jnp.stack([number.astype(jnp.float32), repeats])
        return jnp.concatenate([(means.fresh_mean - scale.zero)[None] / scale.unit, spread, sizes])

    return {
        "spread": base_weights(seen, start),
        "origins": seen.origins / jnp.maximum(seen.origins.sum(), 1.0),
        "common": seen.common,
        "profile_odds": seen.profile_odds,
        "two": seen.binary,
        "told_two": seen.told_two,
        "pair": five(pair, seen.pair),
        "arrival": five(arrival, seen.arrival),
        "pair_rate": common_rate(seen.pair, start.pair_ends),
        "arrival_rate": common_rate(seen.arrival, start.arrival_ends),
        "pair_ends": jax.nn.softmax(seen.log_pair_ends),
        "arrival_ends": jax.nn.softmax(seen.log_arrival_ends),
        "noise_odds": seen.pair_rewards.odds,
        "reward_odds": seen.reward_odds,
        "ends_odds": seen.ends_odds,
    }


def _among(weight: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The weights of the chosen tasks; of all, where hardly any is."""
    among = weight * chosen
    return among / among.sum() if among.sum() > _SURE else weight


def _odds(weight: np.ndarray, odds: np.ndarray) -> np.ndarray:
    """Log-odds of the share of tasks for which a hypothesis holds."""
    share = weight @ (1.0 / (1.0 + np.exp(-np.clip(odds, -ODDS_LIMIT, ODDS_LIMIT))))
    return np.log((share + _SURE) / (1.0 - share + _SURE))


def _rewards(weight: np.ndarray, rows: np.ndarray, one_family: bool) -> RewardPrior:
    """Common mean, variance between and noise, each with the weight that its scatter suggests.

    A mean whose scatter between tasks is v weighs ``between / v`` pairs (normal-normal). A variance
    whose relative scatter is c^2 weighs ``2 / c^2`` (the scaled inverse chi-squared distribution).
    """
    mean, between, noise = (weight @ rows[:, k] for k in range(3))
    scatter = [weight @ np.square(rows[:, k] - (weight @ rows[:, k])) for k in range(3)]
    if one_family:
        number, repeats = (np.maximum(rows[:, k], 1.0) for k in (3, 4))
        alone = (
            rows[:, 1] / number,
            2.0 * rows[:, 1] ** 2 / number,
            2.0 * rows[:, 2] ** 2 / repeats,
        )
        scatter = [each - weight @ chance for each, chance in zip(scatter, alone, strict=True)]
    weights = (
        between / max(scatter[0], 1e-9),
        2.0 * between**2 / max(scatter[1], 1e-12),
        2.0 * noise**2 / max(scatter[2], 1e-12),
    )
    a, b, c = (np.clip(each, *_WEIGHTS) for each in weights)
    return RewardPrior(*(np.asarray(x) for x in (mean, a, between, b, noise, c)))  # pyright: ignore[reportArgumentType]


def _ends(weight: np.ndarray, rates: np.ndarray, spreads: np.ndarray) -> EndPrior:
    """Common rate with the weight of a Beta of that mean and scatter."""
    rate = float(np.clip(weight @ rates, 1e-4, 1.0 - 1e-4))
    scatter = max(float(weight @ np.square(rates - rate)), 1e-9)
    number = np.clip(rate * (1.0 - rate) / scatter - 1.0, *_WEIGHTS)
    found = np.log(np.tensordot(weight, spreads, 1) + 1e-3)
    return EndPrior(*(np.asarray(x) for x in (rate, number, found)))  # pyright: ignore[reportArgumentType]
