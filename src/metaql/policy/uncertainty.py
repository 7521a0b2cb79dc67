"""How sure FiniteQ is of Q*: an uncertainty Bellman equation, and intervals calibrated across tasks.

    u(s, a) = nu(s, a) + gamma^2 sum_s' p(s' | s, a) u(s', a*(s'))

(O'Donoghue, Osband, Munos & Mnih 2018, "The uncertainty Bellman equation and exploration",
arXiv 1709.05380, eq. 5). nu is the posterior variance of the one-step target, p the posterior mean of
the model, a* the greedy action of the posterior mean. u is an upper bound of the posterior variance
under assumptions that no task keeps (acyclic, values known apart from u), so how many of its square
roots make a 90% interval is learned on training tasks, for each side (`Calibration`).
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Bool, Float

from metaql.embedding.evidence import num_states, spread_weights
from metaql.embedding.hyperprior import SPREADS
from metaql.embedding.rewards import reward_unit
from metaql.policy.finiteq import FiniteQ, Knowledge
from metaql.policy.model import Model
from metaql.policy.outlook import (
    Plan,
    flat,
    foresee,
    hopes,
    settle,
    sweep,
    task_discount,
)
from metaql.types import TaskSpec

COVERAGE = 0.9
"""Probability with which the interval is meant to hold Q*."""
NUM_TASK_FACTS = 8
"""Facts about a task that widen or narrow all intervals in it."""
NUM_FACTS = NUM_TASK_FACTS + 2
"""The same with facts about a pair; as many about a state bear on whether its best action is known."""
Z = 1.6448536
"""Standard deviations from the mean to the bounds of a normal 90% interval."""
REACH = (-6.0, 7.0)
"""Bounds of the logarithm by which an interval is widened."""
_FLOOR = 1e-3
"""Least standard deviation, in units of reward: what planning leaves unsettled."""
_LIKELY = 0.95
"""Independent normals are believed no more than this: the best of fifty arms is hardly ever sure to them."""
_QUANTILES = 64


class Calibration(eqx.Module):
    """What makes intervals and odds come true as often as they say."""

    weights: Float[Array, "2 F"]
    """Standard deviations below and above the mean: ``z exp(facts . weights)``."""
    odds: Float[Array, " F"]
    """Log-odds of the greedy action being the best: ``facts . odds`` (Platt 1999)."""

    def __init__(self, facts: int = NUM_FACTS) -> None:
        """As if all were normal and independent, and u exact."""
        weights, odds = np.zeros((2, facts), np.float32), np.zeros(facts, np.float32)
        odds[-1] = 1.0  # the log-odds of independent normals
        self.weights, self.odds = weights, odds  # pyright: ignore[reportAttributeAccessIssue]

    def widened(self) -> Calibration:
        """The same, to which facts that it was fitted without make no difference: the last of the task's."""
        place = [len(self.odds) - NUM_FACTS + NUM_TASK_FACTS] * (NUM_FACTS - len(self.odds))
        return jax.tree.map(lambda held: np.insert(held, place, 0.0, axis=-1), self)


class Judgement(NamedTuple):
    """What is believed of Q*: mean, 90% interval, and the odds of the greedy action being the best."""

    mean: Float[Array, "S A"]
    low: Float[Array, "S A"]
    high: Float[Array, "S A"]
    best: Float[Array, " S"]
    """Probability that no other action is better than the one with the largest mean."""
    fresh: Float[Array, " 3"]
    """Mean and interval at a state never met."""
    facts: Float[Array, "S A F"]
    std: Float[Array, "S A"]
    """Square root of u."""
    state_facts: Float[Array, "S F"]


def judge(learner: FiniteQ, memory: Knowledge, calibration: Calibration) -> Judgement:
    """Everything believed of Q*, planned to the end.

    Horizons up to `SHORT` steps: of Q* with that many steps left. Longer ones: of the discounted Q*.
    """
    model = learner.model(memory)
    discount, endless = task_discount(memory.spec)
    hoped = hopes(model, flat(model))

    def once(carry: tuple[Plan, Plan]) -> tuple[Plan, Plan]:
        plan, doubt = carry
        return sweep(model, hoped, plan, discount, endless), propagate(model, plan, doubt, discount)

    zero = jax.tree.map(jnp.zeros_like, memory.plan)
    unit = reward_unit(memory.evidence, learner.prior)
    plan, doubt = settle(once, (memory.plan, zero), memory.spec, unit)
    std, fresh_std = (jnp.sqrt(part) + _FLOOR * unit for part in doubt)
    facts = _task_facts(learner, memory)
    visits = memory.evidence.pair.visits
    rows, fresh_row = (
        _with(facts, seen, jnp.log(part / unit) / 3.0)
        for seen, part in ((visits, std), (jnp.zeros(()), fresh_std))
    )
    below, above = _reach(rows, std, calibration)
    fresh_below, fresh_above = _reach(fresh_row, fresh_std, calibration)
    fresh = jnp.stack([plan.fresh, plan.fresh - fresh_below, plan.fresh + fresh_above])
    simple = jnp.clip(best_probability(plan.q, std, model.mask), 1.0 - _LIKELY, _LIKELY)
    least = jnp.where(memory.spec.action_mask, visits, jnp.inf).min(-1)
    state_facts = _with(facts, least, jnp.log(simple) - jnp.log1p(-simple))
    best = jax.nn.sigmoid(state_facts @ calibration.odds)
    best = jnp.where(memory.spec.action_mask.sum() > 1, best, 1.0)
    floor, ceiling = _possible_values(model, memory.spec, discount, endless)
    # A mean is a mean of what is possible, up to rounding.
    low = jnp.minimum(jnp.maximum(plan.q - below, floor), plan.q)
    high = jnp.maximum(jnp.minimum(plan.q + above, ceiling), plan.q)
    return Judgement(plan.q, low, high, best, fresh, rows, std, state_facts)


def _possible_values(
    model: Model, spec: TaskSpec, discount: Float[Array, ""], endless: Bool[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Least and largest Q* there can be, given the `possible_rewards`."""
    low, high = possible_rewards(model)
    rewards = jnp.where(endless, 1.0 / (1.0 - discount), spec.horizon)
    return jnp.where(low < 0, rewards * low, low), jnp.where(high > 0, rewards * high, high)


def possible_rewards(model: Model) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Least and largest reward there can be where rewards are sure to have two values; elsewhere anything."""
    sure = model.bounds.hold >= COVERAGE
    return jnp.where(sure, model.bounds.low, -jnp.inf), jnp.where(sure, model.bounds.high, jnp.inf)


def _reach(facts: Array, std: Array, calibration: Calibration) -> tuple[Array, Array]:
    """How far the interval goes below and above the mean."""
    below, above = (Z * jnp.exp(jnp.clip(facts @ w, *REACH)) * std for w in calibration.weights)
    return below, above


def propagate(model: Model, plan: Plan, doubt: Plan, discount: Float[Array, ""]) -> Plan:
    """One sweep of the uncertainty Bellman equation; ``doubt`` holds u of every pair, and fresh."""
    masked = jnp.where(model.mask, plan.q, -jnp.inf)
    exists = model.mask.any(-1)
    greedy = jax.nn.one_hot(masked.argmax(-1), masked.shape[-1])
    values = jnp.where(exists, masked.max(-1), 0.0)
    later = jnp.where(exists, (doubt.q * greedy).sum(-1), 0.0)
    rows = _arriving(model.landing[:2], model.onward[:2], discount * values, discount**2 * later)
    fresh = _arriving(
        model.landing[2:], model.onward[2:], discount * plan.fresh, discount**2 * doubt.fresh
    )
    expected, fresh_expected, _ = foresee(model, jnp.stack(rows), jnp.stack(fresh))
    narrow = model.outcomes.narrow
    u = _acting(model.reward[:2], model.stay[:2], narrow, expected)
    fresh_narrow = model.outcomes.fresh_narrow
    u_fresh = _acting(model.reward[2:], model.stay[2:], fresh_narrow, fresh_expected)
    return Plan(jnp.where(model.mask, u, 0.0), u_fresh)


def _arriving(
    landing: tuple[Array, ...], onward: tuple[Array, ...], value: Array, doubt: Array
) -> tuple[Array, ...]:
    """What arriving is worth, its square; variance of going on; what is paid there and its variance."""
    worth = landing[0] + onward[0] * value
    return worth, worth**2, onward[1] * value**2 + onward[0] * doubt, *landing


def _acting(
    reward: tuple[Array, ...], stay: tuple[Array, ...], narrow: Array, expected: Array
) -> Array:
    """Variance of the value of acting: what is paid on arrival is paid whether or not that is the end."""
    worth, square, doubt, paid, of_paid = expected
    spread = narrow * jnp.maximum(square - worth**2, 0.0)
    going_on = stay[1] * (worth - paid) ** 2 + stay[0] ** 2 * spread + stay[0] * doubt
    return reward[1] + of_paid + going_on


def _task_facts(learner: FiniteQ, memory: Knowledge) -> Float[Array, " F"]:
    """`NUM_TASK_FACTS` numbers of order one."""
    seen, spec = memory.evidence, memory.spec
    spread = spread_weights(seen, learner.prior) @ jnp.log(jnp.asarray(SPREADS))
    horizon = jnp.log(jnp.clip(spec.horizon, 1, 100).astype(jnp.float32))
    pairs = jnp.maximum(seen.met.sum() * spec.action_mask.sum(), 1)
    return jnp.stack(
        [
            jnp.ones(()),
            jnp.log1p(seen.steps) / 5.0,
            spread / 3.0,
            horizon / 4.0,
            (seen.pair.visits > 0).sum() / pairs,
            1.0 - seen.met.sum() / num_states(spec),
            seen.binary.astype(jnp.float32),
            seen.ended.astype(jnp.float32),
        ]
    )


def _with(facts: Float[Array, " F"], visits: Array, last: Array) -> Float[Array, "*K F"]:
    """Facts of the task beside those of pairs or states."""
    own = jnp.stack([jnp.log1p(visits) / 2.0, last], -1)
    return jnp.concatenate([jnp.broadcast_to(facts, (*visits.shape, NUM_TASK_FACTS)), own], -1)


def best_probability(
    mean: Float[Array, "S A"], std: Float[Array, "S A"], mask: Float[Array, "S A"]
) -> Float[Array, " S"]:
    """Probability that the action with the largest mean is the best, values independent and normal.

    Midpoint rule over quantiles of that action's value.
    """
    masked = jnp.where(mask, mean, -jnp.inf)
    greedy = masked.argmax(-1, keepdims=True)
    levels = ndtri((jnp.arange(_QUANTILES) + 0.5) / _QUANTILES)
    own_mean = jnp.take_along_axis(mean, greedy, -1)
    own_std = jnp.take_along_axis(std, greedy, -1)
    points = own_mean + own_std * levels  # [S, quantiles]
    below = ndtr((points[:, None] - mean[..., None]) / std[..., None])
    rival = mask & (jnp.arange(mean.shape[-1]) != greedy)
    return jnp.where(rival[..., None], below, 1.0).prod(1).mean(-1)
