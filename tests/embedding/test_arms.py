"""The joint posterior of arms, against conditioning written out."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.arms import ArmsPrior, condition
from metaql.embedding.evidence import no_evidence
from metaql.embedding.hyperprior import broad
from metaql.embedding.judging import observe
from metaql.embedding.rewards import pair_means, reward_scale
from metaql.types import TaskSpec, Transition

SEE = eqx.filter_jit(observe)


def prior_of(mean, covariance, noise):
    return ArmsPrior(*(jnp.asarray(part, jnp.float32) for part in (mean, covariance, noise)))


def one_by_one(prior, pulls):
    """Kalman updates, a reward at a time, in double precision."""
    mean, covariance, noise = (np.asarray(part, np.float64) for part in prior)
    for arm, reward in pulls:
        gain = covariance[:, arm] / (covariance[arm, arm] + noise[arm])
        mean = mean + gain * (reward - mean[arm])
        covariance = covariance - np.outer(gain, covariance[arm])
    return mean, np.diag(covariance)


def sums(pulls, arms):
    visits, total = np.zeros(arms), np.zeros(arms)
    for arm, reward in pulls:
        visits[arm] += 1
        total[arm] += reward
    return jnp.asarray(visits, jnp.float32), jnp.asarray(total, jnp.float32)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_rewards_at_once_tell_what_they_do_one_by_one(seed):
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(5, 2))
    covariance = factors @ factors.T + 0.1 * np.eye(5)
    prior = prior_of(rng.normal(size=5), covariance, rng.uniform(0.2, 2.0, 5))
    pulls = [(int(arm), rng.normal()) for arm in rng.integers(4, size=12)]  # the last one never
    found = condition(prior, *sums(pulls, 5))
    expected = one_by_one(prior, pulls)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("pulls", "noise", "alike"), [(1e5, 0.01, 0.9), (1e6, 1e-3, 0.9999)])
def test_after_very_many_pulls_no_less_is_known_than_without_a_prior(pulls, noise, alike):
    prior = prior_of(
        np.zeros(3), np.full((3, 3), alike) + (1 - alike) * np.eye(3), np.full(3, noise)
    )
    variance = np.asarray(condition(prior, jnp.full(3, pulls), jnp.zeros(3))[1])
    assert (variance <= noise / pulls * 1.0001).all()
    assert (variance > 0).all()


def test_before_any_reward_it_is_the_prior():
    prior = prior_of([1.0, -2.0], [[2.0, 0.5], [0.5, 1.0]], [1.0, 3.0])
    mean, variance = condition(prior, jnp.zeros(2), jnp.zeros(2))
    np.testing.assert_allclose(mean, prior.mean)
    np.testing.assert_allclose(variance, [2.0, 1.0])


def lived(prior, pulls):
    """What `pair_means` believes of the arms after these pulls."""
    number = len(prior.mean)
    spec = TaskSpec(jnp.ones(1, bool), jnp.ones(number, bool), jnp.asarray(100), jnp.asarray(1))
    before = eqx.tree_at(
        lambda p: (p.arms, p.unit),
        broad(number),
        (prior, jnp.asarray(1.0)),
        is_leaf=lambda x: x is None,
    )
    seen, here, no = no_evidence(spec, None), jnp.asarray(0), jnp.asarray(False)
    for arm, reward in pulls:
        last = Transition(here, jnp.asarray(arm), jnp.float32(reward), here, no, no)
        seen = SEE(seen, before, spec, last)
    return pair_means(seen, before, reward_scale(seen, before))


def test_the_model_has_their_means_and_counts_what_others_tell_as_pulls():
    prior = prior_of([0.5, 0.0, 0.0], [[0.1, 0, 0], [0, 1.0, 0.9], [0, 0.9, 1.0]], [0.2, 0.5, 0.5])
    pulls = [(1, 2.0), (1, 1.0), (0, 0.4)]
    found, (mean, variance) = lived(prior, pulls), one_by_one(prior, pulls)
    np.testing.assert_allclose(found.mean[0], mean, rtol=1e-4)
    np.testing.assert_allclose(found.variance[0], variance, rtol=1e-3)
    pulled = np.asarray([1.0, 2.0, 0.0])
    np.testing.assert_allclose(found.strength[0] + pulled, prior.noise / variance, rtol=1e-3)
    assert float(found.strength[0, 2]) > 1.4  # two rewards of its neighbour; 0.5 without them


def test_arms_that_win_or_lose_are_as_if_of_beta():
    """Beta(2, 2) before, independent: variance m (1 - m) / (pulls + 4 + 1)."""
    prior = prior_of([0.5, 0.5], np.eye(2) / 20.0, [0.2, 0.2])
    pulls = [(0, 1.0), (1, 1.0), (0, 0.0), (1, 1.0), (0, 0.0), (1, 1.0)]
    found = lived(prior, pulls)
    mean = np.asarray([3.0, 5.0]) / 7.0
    np.testing.assert_allclose(found.mean[0], mean, rtol=1e-4)
    np.testing.assert_allclose(found.variance[0], mean * (1.0 - mean) / 8.0, rtol=1e-3)


def test_no_arm_is_sure_to_win_more_often_than_always():
    """The third is as the first two together less a half: both nearly always win."""
    factors = np.asarray([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    covariance = factors @ factors.T / 12.0 + 1e-3 * np.eye(3)
    prior = prior_of([0.5, 0.5, 0.5], covariance, [1 / 6] * 3)
    found = lived(prior, [(0, 1.0), (1, 1.0), (0, 0.0), (1, 0.0), *[(0, 1.0), (1, 1.0)] * 12])
    assert (np.asarray(found.mean) < 1.0).all()
    assert float(found.variance[0, 2]) > 1e-3


def test_the_first_two_of_very_many_rewards_are_not_wins_and_losses():
    prior = prior_of([0.0, 0.0], np.eye(2), [0.5, 0.5])
    found = lived(prior, [(0, 1.0), (1, -2.0)])
    np.testing.assert_allclose(found.variance[0], 1.0 / 3.0, rtol=1e-3)
