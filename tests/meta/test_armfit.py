"""Which arms are told apart, and what is believed of them, where that is known."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from metaql.embedding.hyperprior import broad
from metaql.meta import armfit
from metaql.meta.armfit import fit_arms
from metaql.meta.experience import Judge, q_learning_experience
from metaql.meta.hyperfit import fit_hyperprior
from metaql.tasks.families import Bandit, RandomMDP


def experience(family, agents=256, steps=384):
    scribe = Judge(broad(), None)
    return q_learning_experience(
        family, jax.random.key(0), agents=agents, steps=steps, scribe=scribe, chunk=steps
    )


@pytest.fixture(scope="module")
def tastes():
    return experience(Bandit(6, horizon=20, kind="tastes"))


@pytest.mark.parametrize("kind", ["bernoulli", "normal"])
def test_arms_that_are_alike_are_not_told_apart(kind):
    assert fit_arms([experience(Bandit(6, horizon=100, kind=kind))]) is None


def test_a_sure_arm_is_told_from_the_others_and_they_from_nothing():
    found = fit_arms([experience(Bandit(6, horizon=100, kind="deceptive"))])
    assert found is not None
    np.testing.assert_allclose(found.mean, [0.5, *[0.0] * 5], atol=0.2)
    deviations = np.sqrt(np.diag(found.covariance))
    # One more task is pretended, in which it is not sure: 1 / 257 of the variance of all arms.
    np.testing.assert_allclose(deviations, [0.06, *[1.0] * 5], rtol=0.15)
    np.testing.assert_allclose(np.sqrt(found.noise[1:]), np.sqrt(0.5), rtol=0.05)
    assert float(found.noise[0]) < 0.005
    apart = found.covariance - np.diag(np.diag(found.covariance))
    np.testing.assert_array_equal(apart, 0.0)


def test_items_go_together_as_tastes_have_it(tastes):
    found = fit_arms([tastes])
    angle = 2.0 * np.pi * (np.arange(6)[:, None] - np.arange(6)) / 6
    np.testing.assert_allclose(found.mean, 0.0, atol=0.2)
    np.testing.assert_allclose(found.covariance, np.cos(angle), atol=0.15)
    np.testing.assert_allclose(found.noise, 1.0, rtol=0.05)


def test_the_fit_is_the_likeliest_it_can_be(tastes):
    """No step to any side makes what was met likelier (beyond what the pretended task explains)."""
    seen = armfit._seen([tastes])
    best = armfit._fit(seen, armfit._jointly, 0.0)
    most = armfit._log_likelihood(seen, best, binary=False)
    rng = np.random.default_rng(0)
    for _ in range(20):
        bent = rng.normal(size=(6, 6)) * 0.02
        other = best._replace(
            mean=best.mean + 0.02 * rng.normal(size=6),
            covariance=(np.eye(6) + bent) @ best.covariance @ (np.eye(6) + bent).T,
        )
        assert armfit._log_likelihood(seen, other, binary=False) < most + 0.05


def test_of_more_arms_than_can_be_looked_at_together_each_has_its_own(tastes, monkeypatch):
    """Tastes alone give every item the same mean and variance: apart, they are alike."""
    monkeypatch.setattr(armfit, "MOST_ARMS", 5)
    assert fit_arms([tastes]) is None


def test_arms_are_the_same_only_in_tasks_with_one_state_and_as_many(tastes):
    assert fit_arms([tastes, experience(Bandit(5, horizon=20), 16, 32)]) is None
    assert fit_arms([experience(RandomMDP(3, 6), 16, 32)]) is None


def test_an_arm_nobody_pulled_leaves_nothing_to_tell(tastes):
    none = tastes.pair._replace(
        visits=tastes.pair.visits.at[:, :, 2].set(0.0),
        reward=tastes.pair.reward.at[:, :, 2].set(0.0),
    )
    assert fit_arms([tastes._replace(pair=none)]) is None


def test_only_the_prior_of_one_family_tells_arms_apart(tastes):
    own = fit_hyperprior([tastes], one_family=True)
    assert own.arms is not None
    assert float(own.unit) > 0.0
    assert fit_hyperprior([tastes]).arms is None
