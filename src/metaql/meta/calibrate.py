"""Fit how far intervals must reach to hold Q* in 90% of cases, on tasks whose Q* is known.

Quantile regression (Koenker & Bassett 1978, "Regression quantiles"): for each side the weights of
`Calibration` minimise the pinball loss of Q* against the bound. Errors are compared on the scale
``asinh(error / std)``: quantiles do not mind a monotone scale, and no single error dominates.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.optimize import minimize

from metaql.meta.compiling import suited
from metaql.meta.lifetime import advance_unrecorded, begin_all
from metaql.policy.finiteq import FiniteQ, Knowledge
from metaql.policy.outlook import task_discount
from metaql.policy.uncertainty import (
    COVERAGE,
    NUM_FACTS,
    REACH,
    Calibration,
    Judgement,
    Z,
    judge,
)
from metaql.tasks.exact import answers_to, model_of, plan_horizon
from metaql.tasks.finite import FiniteTask
from metaql.types import PRNGKey

AGES = (1, 2, 4, 8, 16)
"""Sixteenths of a lifetime after which what is believed is compared with what is true."""
_RIDGE = 1e-3
_TELLING = [0, 1, 3, NUM_FACTS - 2, NUM_FACTS - 1]
"""Facts that odds depend on: steps, horizon, visits, and the odds of independent normals. With more of them
families that were left out of the fit were told worse."""


class Verdicts(NamedTuple):
    """What was believed of pairs, and what is true of them (``R`` pairs, ``K`` states)."""

    error: Float[np.ndarray, " R"]
    """Q* minus the posterior mean, in standard deviations."""
    facts: Float[np.ndarray, "R F"]
    inside: Bool[np.ndarray, " R"]
    """Whether the interval holds Q*."""
    promised: Float[np.ndarray, " K"]
    """Probability that the greedy action is the best one, as believed."""
    right: Bool[np.ndarray, " K"]
    """Whether it is (or is as good as the best)."""
    state_facts: Float[np.ndarray, "K F"]

    def coverage(self) -> float:
        """Share of pairs whose interval holds Q*."""
        return float(self.inside.mean())


def verdicts(
    learner: FiniteQ,
    calibration: Calibration,
    tasks: FiniteTask,
    key: PRNGKey,
    *,
    num_steps: int,
    episodes: int,
    on_progress: Callable[[float], None] = lambda done: None,
) -> Verdicts:
    """Live in tasks, and compare belief and truth at several ages, at states met.

    Args:
        learner: with slots enough for these tasks.
        calibration: of the intervals that are judged.
        tasks: ``[N, ...]``.
        key: of the lifetimes.
        num_steps: of a lifetime, a multiple of 16.
        episodes: that the learner is told of.
        on_progress: called with the share of the lifetime that is over.
    """
    keys = jax.random.split(key, tasks.horizon.shape[0])
    truth, matters = _truth(tasks)
    lives, age, rows = begin_all(learner, tasks, keys, episodes), 0, []
    for until in AGES:
        for _ in range(until - age):
            lives = advance_unrecorded(learner, tasks, lives, max(num_steps // 16, 1))
        age = until
        judged = suited(_judge_all, learner)(learner, lives.memory, calibration)
        rows.append(_compare(judged, lives.memory, np.asarray(truth), np.asarray(matters), tasks))
        # By the first time all is compiled: time left can be told from then on.
        on_progress(age / AGES[-1])
    return Verdicts(*(np.concatenate(part) for part in zip(*rows, strict=True)))


def _judge_all(learner: FiniteQ, memory: Knowledge, calibration: Calibration) -> Judgement:
    return jax.vmap(judge, in_axes=(None, 0, None))(learner, memory, calibration)


@eqx.filter_jit
def _truth(tasks: FiniteTask) -> tuple[Float[Array, "N S A"], Bool[Array, "N S A"]]:
    """Q* as FiniteQ understands it, and where it means something."""

    def one(task: FiniteTask) -> tuple[Array, Array]:
        discount, endless = task_discount(task.spec(1))
        found = answers_to(task, jnp.where(endless, discount, 0.5))
        steps = jnp.where(endless, 0, task.horizon)
        return jnp.where(endless, found.q, plan_horizon(model_of(task), steps)), found.matters

    return jax.vmap(one)(tasks)


def _compare(
    judged: Judgement, memory: Knowledge, truth: np.ndarray, matters: np.ndarray, tasks: FiniteTask
) -> Verdicts:
    judged = jax.device_get(judged)
    here = np.asarray(memory.evidence.met)[..., None] & matters
    mask = np.asarray(tasks.action_mask)[:, None]
    best = np.where(mask, judged.mean, -np.inf).argmax(-1)
    values = np.where(mask, truth, -np.inf)
    top = values.max(-1)
    taken = np.take_along_axis(values, best[..., None], -1)[..., 0]
    # No more than a tenth of what actions differ by: what is common to all values tells none apart.
    apart = top - np.where(mask, truth, np.inf).min(-1)
    slack = np.minimum(1e-3 * (1e-3 + np.abs(top)), 0.1 * apart + 1e-5 * np.abs(top))
    right = taken >= top - slack
    states = here.any(-1)
    inside = (judged.low <= truth) & (truth <= judged.high)
    error = (truth - judged.mean) / judged.std
    by_pair = (np.asarray(part)[here] for part in (error, judged.facts, inside))
    by_state = (np.asarray(part)[states] for part in (judged.best, right, judged.state_facts))
    return Verdicts(*by_pair, *by_state)


def fit_calibration(
    learners: Sequence[FiniteQ],
    batches: Sequence[FiniteTask],
    key: PRNGKey,
    *,
    num_steps: Sequence[int],
    episodes: Sequence[int],
    kinds: Sequence[str],
) -> dict[str, Calibration]:
    """Fit both bounds to batches of training tasks, each of which counts alike, and odds to those of a kind.

    One rule for the bounds of all tasks does better in families it was not fitted on than one for each kind.
    That the greedy action is the best means something else among fifty arms than among four moves.

    Args:
        learners: one per batch: how many slots it needs, and which prior, may differ.
        batches: ``[N, ...]`` each.
        key: of the lifetimes.
        num_steps: of a lifetime in each batch.
        episodes: that learners are told of.
        kinds: of the tasks of each batch.
    """
    keys = jax.random.split(key, len(batches))
    cases = list(zip(learners, batches, keys, num_steps, episodes, strict=True))

    def one(case: tuple[FiniteQ, FiniteTask, PRNGKey, int, int]) -> Verdicts:
        learner, tasks, key_batch, steps, number = case
        return verdicts(learner, Calibration(), tasks, key_batch, num_steps=steps, episodes=number)

    # A batch keeps one core busy, compiling most of the time.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        seen = list(pool.map(one, cases))
    bounds = _with_bounds(seen)
    return {
        wanted: with_odds(
            bounds, [each for each, kind in zip(seen, kinds, strict=True) if kind == wanted]
        )
        for wanted in dict.fromkeys(kinds)
    }


def fit_bounds(seen: Sequence[Verdicts]) -> Calibration:
    """The weights of both bounds and of the odds, from what was believed and what is true."""
    return with_odds(_with_bounds(seen), seen)


def _with_bounds(seen: Sequence[Verdicts]) -> Calibration:
    error = np.arcsinh(np.concatenate([each.error for each in seen]))
    facts = np.concatenate([each.facts for each in seen]).astype(np.float64)
    weight = _alike([len(each.error) for each in seen])
    sides = [_fit_side(sign * error, facts, weight) for sign in (-1.0, 1.0)]
    return eqx.tree_at(lambda c: c.weights, Calibration(), np.asarray(sides, np.float32))


def with_odds(calibration: Calibration, seen: Sequence[Verdicts]) -> Calibration:
    """The same bounds, and odds fitted to these."""
    right = np.concatenate([each.right for each in seen])
    about = np.concatenate([each.state_facts for each in seen]).astype(np.float64)[:, _TELLING]
    odds = np.zeros(NUM_FACTS, np.float32)
    odds[_TELLING] = _fit_odds(right, about, _alike([len(each.right) for each in seen]))
    return eqx.tree_at(lambda c: c.odds, calibration, odds)


def _alike(counts: Sequence[int]) -> np.ndarray:
    """Weights, summing to 1, with which each batch counts alike."""
    return np.concatenate([np.full(count, 1.0 / max(count, 1) / len(counts)) for count in counts])


def _fit_odds(right: np.ndarray, facts: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Logistic regression."""
    sign = np.where(right, 1.0, -1.0)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (facts @ w)
        slope = -sign / (1.0 + np.exp(np.clip(margin, -50.0, 50.0)))
        value = weight @ np.logaddexp(0.0, -margin) + _RIDGE * w @ w
        return float(value), (weight * slope) @ facts + 2.0 * _RIDGE * w

    start = np.zeros(facts.shape[1])
    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x


def _fit_side(error: np.ndarray, facts: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weights of one bound; ``error`` is positive on its side."""
    level = (1.0 + COVERAGE) / 2.0

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        reach = Z * np.exp(np.clip(facts @ w, *REACH))
        beyond = error - np.arcsinh(reach)
        pinball = np.where(beyond > 0, level * beyond, (level - 1.0) * beyond)
        slope = -np.where(beyond > 0, level, level - 1.0) * reach / np.sqrt(1.0 + reach**2)
        gradient = (weight * slope) @ facts + 2.0 * _RIDGE * w
        return float(weight @ pinball + _RIDGE * w @ w), gradient

    start = np.zeros(facts.shape[1])
    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
