"""Rules for bandits: indices by hand, posteriors by their distribution, Gittins by its tables."""

from __future__ import annotations

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from metaql.meta.lifetime import live
from metaql.qlearning import UCB1, Gittins, NormalGittins, Thompson
from metaql.qlearning.bandits import Arms
from metaql.qlearning.gittins import discounted_table, horizon_table, normal_bonus
from metaql.tasks.finite import finite_task

KEY = jax.random.key(0)


def arms(pulls, reward_sum):
    return Arms(jnp.asarray(pulls, jnp.float32), jnp.asarray(reward_sum, jnp.float32))


def test_ucb1_by_hand():
    seen = arms([3, 1], [2, 0])
    expected = np.array([2 / 3, 0]) + np.sqrt(2 * np.log(4) / np.array([3, 1]))
    np.testing.assert_allclose(UCB1(prior_count=0.0).index(KEY, seen), expected, rtol=1e-6)
    with_prior = np.array([3 / 5, 1 / 3]) + 0.2 * np.sqrt(2 * np.log(4) / np.array([5, 3]))
    np.testing.assert_allclose(UCB1(scale=0.2).index(KEY, seen), with_prior, rtol=1e-6)


def test_ucb1_without_a_prior_tries_every_arm_first():
    index = UCB1(prior_count=0.0).index(KEY, arms([5, 0, 2], [5, 0, 2]))
    assert int(index.argmax()) == 1
    assert np.isfinite(index).all()


@eqx.filter_jit
def draws(learner, seen, count=4000):
    return jax.vmap(lambda key: learner.index(key, seen))(jax.random.split(KEY, count))


def test_thompson_draws_from_the_posterior():
    seen = arms([4, 0], [3, 0])
    beta = np.asarray(draws(Thompson(), seen))
    assert stats.kstest(beta[:, 0], stats.beta(4, 2).cdf).pvalue > 1e-3
    assert stats.kstest(beta[:, 1], stats.beta(1, 1).cdf).pvalue > 1e-3
    learner = Thompson(prior_mean=2.0, prior_count=0.5, reward_std=3.0, reward_model="normal")
    normal = np.asarray(draws(learner, seen))
    posterior = stats.norm((0.5 * 2 + 3) / 4.5, 3 / np.sqrt(4.5))
    assert stats.kstest(normal[:, 0], posterior.cdf).pvalue > 1e-3


def test_an_optimistic_draw_is_never_below_the_mean():
    seen = arms([4, 0], [3, 0])
    plain, optimistic = draws(Thompson(), seen), draws(Thompson(optimism="mean"), seen)
    np.testing.assert_allclose(optimistic, np.maximum(plain, [4 / 6, 0.5]), rtol=1e-6)


def test_the_most_probable_of_many_draws_is_near_the_mode():
    seen = arms([30, 12], [21, 3])
    for model, mode in (("beta", [21 / 30, 3 / 12]), ("normal", [22 / 32, 4 / 14])):
        chosen = draws(Thompson(optimism="mode", samples=200, reward_model=model), seen, 50)
        spread = draws(Thompson(reward_model=model), seen).std(0)
        np.testing.assert_allclose(chosen.mean(0), mode, atol=0.1 * spread.max())
        assert (chosen.std(0) < 0.4 * spread).all()


# Gittins 1979 and Gittins, Glazebrook & Weber 2011, tables 8.1 to 8.4, by successes and failures seen
# on top of a uniform prior.
@pytest.mark.parametrize(
    ("discount", "won", "lost", "index"),
    [
        (0.9, 0, 0, 0.7029),
        (0.9, 1, 0, 0.8001),
        (0.9, 0, 1, 0.5001),
        (0.9, 1, 1, 0.6346),
        (0.99, 0, 0, 0.8699),
        (0.99, 1, 0, 0.9102),
        (0.99, 0, 1, 0.7005),
    ],
)
def test_discounted_indices_are_those_of_the_book(discount, won, lost, index):
    table = discounted_table(4, discount)
    assert table[0, won, lost] == pytest.approx(index, abs=1e-4)


def test_indices_of_the_pulls_left_by_hand():
    table = horizon_table(6)
    # The last pull is worth its mean.
    assert table[1, 3, 2] == pytest.approx(4 / 7, abs=1e-6)
    # Two left, nothing seen: go on after a success only. (1/2 + 1/2 * 2/3) rewards in 1 + 1/2 pulls.
    assert table[2, 0, 0] == pytest.approx(5 / 9, abs=1e-5)
    # Three left: after a failure stop, after two pulls go on where the first two succeeded.
    assert (np.diff(table[1:, 0, 0]) > 0).all()
    assert table[3, 0, 0] == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / (1 + 1 / 2 + 1 / 3), abs=1e-5)


def test_normal_indices_by_the_equation():
    prior, noise = 1.0, 0.7
    bonus = normal_bonus(4, prior, noise)
    assert bonus[1, 2] == pytest.approx(0.0, abs=1e-6)

    def two_left(precision):
        lost = np.sqrt(1 / precision - 1 / (precision + noise**-2))

        def worth(x):  # x + E max(0, x') for the mean x' after the pull
            return x + x * stats.norm.cdf(x / lost) + lost * stats.norm.pdf(x / lost)

        return -brentq(worth, -5, 5)

    assert bonus[2, 0] == pytest.approx(two_left(prior**-2), abs=2e-3)
    assert bonus[2, 1] == pytest.approx(two_left(prior**-2 + noise**-2), abs=2e-3)


def test_gittins_looks_up_the_pulls_left():
    learner = Gittins(table=horizon_table(6))
    index = learner.index(KEY, arms([3, 1], [2, 0]))
    np.testing.assert_allclose(index, [horizon_table(6)[2, 2, 1], horizon_table(6)[2, 0, 1]])
    always = Gittins(table=discounted_table(6, 0.9))
    np.testing.assert_allclose(always.index(KEY, arms([2, 0], [1, 0])), [0.6346, 0.7029], atol=1e-4)
    bonus = normal_bonus(4, 1.0, 0.7)
    normal = NormalGittins(
        bonus=bonus, uncertain=jnp.array([1.0, 0.0]), prior_mean=0.0, prior_count=0.49
    )
    index = normal.index(KEY, arms([1, 1], [1.49, 0.0]))
    np.testing.assert_allclose(index, [1.0 + bonus[2, 1], 0.0], rtol=1e-6)


@cache
def best_total(pulls, seen=(0, 0, 0, 0)):
    """Bayes-optimal total of two arms, uniform priors, by brute force."""
    if pulls == 0:
        return 0.0
    worth = []
    for arm in (0, 2):
        won, lost = seen[arm], seen[arm + 1]
        p = (won + 1) / (won + lost + 2)
        win, lose = list(seen), list(seen)
        win[arm] += 1
        lose[arm + 1] += 1
        worth.append(
            p * (1 + best_total(pulls - 1, tuple(win)))
            + (1 - p) * best_total(pulls - 1, tuple(lose))
        )
    return max(worth)


def test_the_index_of_the_pulls_left_is_nearly_bayes_optimal():
    pulls, count = 8, 20_000
    rng = np.random.default_rng(0)
    means = jnp.asarray(rng.random((count, 2)), jnp.float32)
    one = finite_task(np.ones((1, 2, 1)), np.zeros((1, 2)), horizon=1, reward_binary=True)
    tasks = jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), one)
    tasks = tasks._replace(reward=means[:, None, :, None])
    lives = live(
        Gittins(table=horizon_table(pulls)), tasks, jax.random.split(KEY, count), episodes=pulls
    )
    distance = pulls * np.asarray(means.max(1)) - lives.returns.sum(1)
    total = pulls * 2 / 3 - distance.mean()
    error = distance.std() / np.sqrt(count)
    assert total == pytest.approx(best_total(pulls), abs=4 * error)
    assert 4 * error < 0.05
