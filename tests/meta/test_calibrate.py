"""Calibration: quantiles that are known are found, and intervals hold what they promise."""

from __future__ import annotations

import types

import jax
import numpy as np
import pytest

from metaql.meta.calibrate import (
    Verdicts,
    _compare,
    fit_bounds,
    fit_calibration,
    verdicts,
    with_odds,
)
from metaql.policy.finiteq import untrained
from metaql.policy.uncertainty import NUM_FACTS, Calibration, Judgement, Z
from metaql.tasks.families.random_mdp import RandomMDP
from metaql.tasks.finite import finite_task


def test_known_quantiles_are_found():
    """Errors three times as wide above as a normal's, and half as wide below; odds by design."""
    rng = np.random.default_rng(0)
    error = np.abs(rng.normal(size=20_000))
    error = np.where(rng.random(20_000) < 0.5, 3.0 * error, -0.5 * error)
    facts = np.zeros((20_000, NUM_FACTS))
    facts[:, 0], facts[:, -1] = 1.0, rng.normal(size=20_000)
    right = rng.random(20_000) < 1.0 / (1.0 + np.exp(-2.0 * facts[:, -1]))
    seen = Verdicts(error, facts, right, right.astype(float), right, facts)
    fitted = fit_bounds([seen])
    np.testing.assert_allclose(
        Z * np.exp(fitted.weights[:, 0]), [0.5 * 1.645, 3 * 1.645], rtol=0.06
    )
    np.testing.assert_allclose(fitted.odds[-1], 2.0, rtol=0.1)


def test_odds_are_of_a_kind_and_bounds_of_all():
    """Among many arms what independent normals say means the opposite of what it does among few."""
    rng = np.random.default_rng(0)

    def seen(slope):
        facts = np.zeros((5_000, NUM_FACTS))
        facts[:, 0], facts[:, -1] = 1.0, rng.normal(size=5_000)
        right = rng.random(5_000) < 1.0 / (1.0 + np.exp(-slope * facts[:, -1]))
        error = rng.normal(size=5_000)
        return Verdicts(error, facts, right, right.astype(float), right, facts)

    few, many = seen(1.0), seen(-1.0)
    bounds = fit_bounds([few, many])
    np.testing.assert_allclose(bounds.odds[-1], 0.0, atol=0.1)
    for verdict, slope in ((few, 1.0), (many, -1.0)):
        own = with_odds(bounds, [verdict])
        np.testing.assert_allclose(own.odds[-1], slope, rtol=0.15)
        np.testing.assert_array_equal(own.weights, bounds.weights)


@pytest.mark.slow
def test_intervals_cover_tasks_that_were_not_used():
    family, learner = RandomMDP(num_states=5, num_actions=3), untrained()

    def draw(seed, split):
        keys = jax.random.split(jax.random.key(seed), 64)
        return jax.vmap(lambda key: family.sample(key, split))(keys)

    steps = {"num_steps": 160, "episodes": 16}
    key = jax.random.key(1)
    fitted = fit_calibration(
        [learner], [draw(0, "train")], key, num_steps=[160], episodes=[16], kinds=["any"]
    )["any"]
    before = verdicts(learner, Calibration(), draw(2, "test"), key, **steps)
    after = verdicts(learner, fitted, draw(2, "test"), key, **steps)
    assert abs(after.coverage() - 0.9) < 0.05
    assert abs(after.coverage() - 0.9) < abs(before.coverage() - 0.9)
    assert abs(after.promised.mean() - after.right.mean()) < 0.08


def test_an_offset_of_all_values_makes_no_action_the_best():
    """Arms that pay 1000 and 1000.9: to believe in the wrong one is wrong."""
    task = finite_task(np.ones((1, 2, 1)), [[1000.0, 1000.9]], horizon=10)
    tasks = jax.tree.map(lambda leaf: leaf[None], task)
    mean = np.asarray([[[10_001.0, 10_000.0]]])
    facts = np.zeros((1, 1, 2, NUM_FACTS))
    judged = Judgement(
        mean,
        mean - 50.0,
        mean + 50.0,
        np.ones((1, 1)),
        np.zeros(3),
        facts,
        np.ones_like(mean),
        facts[:, :, 0],
    )
    memory = types.SimpleNamespace(evidence=types.SimpleNamespace(met=np.ones((1, 1), bool)))
    truth = np.asarray([[[10_000.0, 10_009.0]]])
    assert not _compare(judged, memory, truth, np.ones_like(truth, bool), tasks).right[0]
    close = np.asarray([[[10_000.0, 10_000.05]]])  # as exact as single precision is
    assert _compare(judged, memory, close, np.ones_like(truth, bool), tasks).right[0]
