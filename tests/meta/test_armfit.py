"""Which arms are told apart, and what is believed of them, where that is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.hyperprior import broad
from metaql.embedding.statistics import Tally
from metaql.meta import armfit
from metaql.meta.armfit import fit_arms
from metaql.meta.experience import Judge, q_learning_experience
from metaql.meta.finite_session import distinct_tasks
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
    assert float(found.noise[0]) < 0.02
    apart = found.covariance - np.diag(np.diag(found.covariance))
    np.testing.assert_array_equal(apart, 0.0)


def test_items_go_together_as_tastes_have_it(tastes):
    found = fit_arms([tastes])
    angle = 2.0 * np.pi * (np.arange(6)[:, None] - np.arange(6)) / 6
    np.testing.assert_allclose(found.mean, 0.0, atol=0.2)
    np.testing.assert_allclose(found.covariance, np.cos(angle), atol=0.15)
    np.testing.assert_allclose(found.noise, 1.0, rtol=0.05)


def test_the_fit_is_the_likeliest_it_can_be(tastes):
    """No step to any side makes what was met likelier, but for what is left when fitting ends."""
    seen = armfit._seen([tastes], None)
    best = armfit._fit(seen, armfit._jointly, np.ones(6), 0.0)
    most = armfit._log_likelihood(seen, best, binary=False)
    rng = np.random.default_rng(0)
    for _ in range(20):
        bent = rng.normal(size=(6, 6)) * 0.02
        other = best._replace(
            mean=best.mean + 0.02 * rng.normal(size=6),
            covariance=(np.eye(6) + bent) @ best.covariance @ (np.eye(6) + bent).T,
        )
        assert armfit._log_likelihood(seen, other, binary=False) < most + 0.05


def test_of_more_arms_than_can_be_looked_at_together_none_is_told_apart(tastes, monkeypatch):
    """So many matrices would be inverted at every step."""
    monkeypatch.setattr(armfit, "MOST_ARMS", 5)
    assert fit_arms([tastes]) is None


def test_arms_are_the_same_only_in_tasks_with_one_state_and_as_many(tastes):
    assert fit_arms([tastes, experience(Bandit(5, horizon=20), 16, 32)]) is None
    assert fit_arms([experience(RandomMDP(3, 6), 16, 32)]) is None


def without(seen, arm):
    """As if this arm had never been pulled: padding, say."""
    visits, reward, ends = seen.pair
    pair = Tally(visits.at[:, :, arm].set(0.0), reward.at[:, :, arm].set(0.0), ends)
    within = seen.pair_rewards.within.at[:, :, arm].set(0.0)
    return seen._replace(pair=pair, pair_rewards=seen.pair_rewards._replace(within=within))


def test_an_arm_nobody_pulled_is_as_arms_usually_are(tastes):
    whole, found = fit_arms([tastes]), fit_arms([without(tastes, 5)])
    np.testing.assert_allclose(found.covariance[:5, :5], whole.covariance[:5, :5], atol=0.05)
    np.testing.assert_array_equal(found.covariance[5, :5], 0.0)
    np.testing.assert_allclose(found.covariance[5, 5], 1.0, atol=0.15)
    np.testing.assert_allclose(found.noise[5], 1.0, atol=0.05)


def test_arms_that_hardly_anybody_pulled_twice_have_no_noise_to_tell(tastes):
    few = tastes.pair._replace(visits=jnp.minimum(tastes.pair.visits, 1.0))
    assert fit_arms([tastes._replace(pair=few)]) is None


class Otherwise:
    """A family whose rewards are multiplied, task by task, and shifted."""

    def __init__(self, of, *, spread=0.0, shift=0.0, pool=None):
        self.of, self.spread, self.shift, self.pool = of, spread, shift, pool

    def tasks(self, key, number, split):
        key_tasks, key_scale, key_pool = jax.random.split(key, 3)
        tasks = self.of.tasks(key_tasks, self.pool or number, split)
        if self.pool:
            picked = jax.random.randint(key_pool, (number,), 0, self.pool)
            tasks = jax.tree.map(lambda leaf: leaf[picked], tasks)
        scale = jnp.exp(self.spread * jax.random.normal(key_scale, (number,)))
        return tasks._replace(
            reward=scale[:, None, None, None] * tasks.reward + self.shift,
            reward_noise=scale * tasks.reward_noise,
        )


def test_an_offset_of_all_rewards_is_an_offset_of_their_means():
    shifted = experience(Otherwise(Bandit(6, horizon=20, kind="tastes"), shift=1000.0))
    found = fit_arms([shifted])
    np.testing.assert_allclose(found.mean, 1000.0, atol=0.25)
    angle = 2.0 * np.pi * (np.arange(6)[:, None] - np.arange(6)) / 6
    np.testing.assert_allclose(found.covariance, np.cos(angle), atol=0.2)


def test_scales_of_tasks_are_not_taken_for_what_arms_have_in_common():
    assert fit_arms([experience(Otherwise(Bandit(6, kind="normal"), spread=1.0))]) is None


def test_tasks_that_agents_share_count_once():
    """Eight tasks do not tell how six arms go together, however often one lives in them."""
    family = Otherwise(Bandit(6, horizon=100, kind="normal"), pool=8)
    tasks = family.tasks(jax.random.split(jax.random.key(0))[0], 256, "train")
    seen, labels = experience(family), distinct_tasks(tasks)
    assert len(np.unique(labels)) == 8
    assert fit_arms([seen], labels) is None
    assert fit_arms([seen]) is not None  # taken for 256 tasks, they would seem to agree


def test_the_fit_goes_on_until_it_settles():
    """Means that differ by a tenth of the noise, five pulls each: the first guess is twice as large."""
    rng = np.random.default_rng(0)
    truth = 0.1 * rng.normal(size=(400, 6))
    visits = np.full((400, 6), 5.0)
    seen = armfit._Seen(
        visits, truth + rng.normal(size=(400, 6)) / np.sqrt(5.0), 4.0 * np.ones((400, 6)), 1e-4
    )
    fitted = armfit._fit(seen, armfit._alike, np.ones(6), 0.0)
    np.testing.assert_allclose(fitted.covariance[0, 0], 0.01, atol=0.008)


def test_only_the_prior_of_one_family_tells_arms_apart(tastes):
    own = fit_hyperprior([tastes], one_family=True)
    assert own.arms is not None
    assert fit_hyperprior([tastes]).arms is None


def test_their_unit_is_that_of_the_prior_of_all_arms_too():
    """Users differ in how much they like the best: no unit would be told but for the arms."""

    class Clear(Otherwise):
        def tasks(self, key, number, split):
            tasks = super().tasks(key, number, split)
            return tasks._replace(reward_noise=0.2 * tasks.reward_noise)

    seen = experience(Clear(Bandit(6, horizon=20, kind="tastes")))
    own = fit_hyperprior([seen], one_family=True)
    assert float(fit_hyperprior([seen]).unit) == 0.0
    unit = float(own.unit)
    assert unit > 0.0
    np.testing.assert_allclose(float(own.pair.between) * unit**2, 1.0, rtol=0.3)
