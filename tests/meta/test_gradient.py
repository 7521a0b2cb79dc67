"""Adaptation by gradient steps: weights of the replay, and what holds the learner back."""

from __future__ import annotations

import dataclasses
import functools

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.recurrent import Sight
from metaql.errors import ConfigError, EnvironmentFaultError, UsageError
from metaql.meta.gradient import GradientSteps, adapted_weights, alike
from metaql.meta.propensity import propensity
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.replay import lived_in, replay_loss
from metaql.meta.train import meta_train
from metaql.policy.network import Sizes
from metaql.policy.recurrentq import RecurrentQ
from metaql.tasks.families import CartPole

FAMILY = CartPole(horizon=20)
CONFIG = RecurrentConfig(hidden=8, width=8)
KEY = jax.random.key(5)
ADAPTED, LOSS = eqx.filter_jit(adapted_weights), eqx.filter_jit(replay_loss)


class Failing(gymnasium.Wrapper):
    """A cart whose n-th episode does not begin."""

    def __init__(self, failing):
        super().__init__(gymnasium.make("CartPole-v1"))
        self.failing, self.begun = failing, 0

    def reset(self, **how):
        self.begun += 1
        if self.begun == self.failing:
            raise RuntimeError("no cart")
        return super().reset(**how)


@functools.cache
def fresh():
    return RecurrentQ(KEY, sight=Sight(entries=4), actions=(2,), sizes=Sizes(8, 8))


@functools.cache
def lifetimes():
    tasks, keys = FAMILY.tasks(KEY, 4), jax.random.split(KEY, 4)
    return lived_in(fresh(), tasks, keys, episodes=3, length=60)


def weights(learner):
    return np.concatenate(
        [np.ravel(x) for x in jax.tree.leaves(eqx.filter(learner, eqx.is_inexact_array))]
    )


def test_weights_are_ratios_of_densities():
    """Normal features a unit apart: the ratio of their densities is known."""
    old, new = jax.random.normal(KEY, (4000, 1)), 1.0 + jax.random.normal(KEY, (4000, 1))
    found = propensity(new, old, jnp.ones(4000), jnp.ones(4000))
    exact = np.exp(np.asarray(old[:, 0]) - 0.5)
    middle = np.abs(np.asarray(old[:, 0])) < 1.5
    np.testing.assert_allclose(found.weight[middle], exact[middle], rtol=0.2)
    share = exact.sum() ** 2 / (4000 * (exact**2).sum())
    np.testing.assert_allclose(found.effective, share, atol=0.08)


def test_what_is_alike_counts_in_full_and_what_is_not_hardly():
    old = jax.random.normal(KEY, (500, 3))
    same = propensity(
        jax.random.normal(jax.random.key(6), (500, 3)), old, jnp.ones(500), jnp.ones(500)
    )
    assert same.effective > 0.95
    far = propensity(jax.random.normal(KEY, (500, 3)) + 6.0, old, jnp.ones(500), jnp.ones(500))
    assert far.effective < 0.05
    # Rows that are not alive are as if they were not there.
    padded = jnp.concatenate([old, jnp.full((500, 3), 1e3)])
    alive = jnp.concatenate([jnp.ones(500), jnp.zeros(500)])
    shorter = propensity(old, old[:250] + 1.0, jnp.ones(500), jnp.ones(250))
    longer = propensity(padded, old[:250] + 1.0, alive, jnp.ones(250))
    np.testing.assert_allclose(shorter.weight, longer.weight, rtol=1e-3)
    longer = propensity(old[:250] + 1.0, padded, jnp.ones(250), alive)
    shorter = propensity(old[:250] + 1.0, old, jnp.ones(250), jnp.ones(500))
    np.testing.assert_allclose(shorter.weight, longer.weight[:500], rtol=1e-3)
    np.testing.assert_array_equal(longer.weight[500:], 0.0)
    np.testing.assert_allclose(shorter.effective, longer.effective, rtol=1e-3)


def test_lifetimes_of_the_same_task_weigh_most():
    learner = fresh()
    own = lifetimes()
    flipped = jax.tree.map(lambda x: x, own)
    seen = own.note.transition
    other = seen._replace(state=-5.0 * seen.state, next_state=-5.0 * seen.next_state)
    strange = flipped._replace(note=own.note._replace(transition=other))
    replay = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), own, strange)
    weight = eqx.filter_jit(alike)(learner, own, replay).weight
    assert weight[:4].mean() > 2 * weight[4:].mean()


def test_steps_lower_the_loss_on_the_new_task():
    learner = fresh()
    own = lifetimes()
    how = GradientSteps(steps=100, learning_rate=1e-2, batch=0, proximal=0.0)
    later, effective = ADAPTED(learner, own, None, KEY, CONFIG, how)
    assert effective == 0
    before, after = (LOSS(each, own, CONFIG) for each in (learner, later))
    assert after < 0.5 * before
    held = dataclasses.replace(how, proximal=1e4)
    stayed, _ = ADAPTED(learner, own, None, KEY, CONFIG, held)
    moved = [np.linalg.norm(weights(each) - weights(learner)) for each in (later, stayed)]
    assert moved[1] < 0.2 * moved[0]
    none = dataclasses.replace(how, steps=0)
    same, _ = ADAPTED(learner, own, None, KEY, CONFIG, none)
    np.testing.assert_array_equal(weights(same), weights(learner))


def test_the_replay_takes_part():
    learner = fresh()
    own = lifetimes()
    how = GradientSteps(steps=5, batch=2)
    alone, _ = ADAPTED(learner, own, None, KEY, CONFIG, how)
    both, effective = ADAPTED(learner, own, own, KEY, CONFIG, how)
    assert 0 < effective <= 1
    assert np.abs(weights(alone) - weights(both)).max() > 1e-6


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"batch": -1}, {"learning_rate": 0.0}])
def test_settings_are_checked(wrong):
    with pytest.raises(ConfigError):
        GradientSteps(**wrong)


def test_an_agent_adapts_its_weights_on_gymnasium():
    small = {"lifetimes": 8, "minibatches": 2, "hidden": 8, "width": 8, "episodes": (2, 2)}
    agent = meta_train(FAMILY, seed=0, env_steps=8 * 64, **small)
    told = []
    how = GradientSteps(steps=3, learning_rate=1e-2)
    adapted = agent.adapt_by_gradient(
        "CartPole-v1", lifetimes=3, how=how, seed=1, on_episode=lambda *row: told.append(row)
    )
    assert [row[0] for row in told] == list(range(6))
    assert adapted.returns.tolist() == [row[1] for row in told]
    assert adapted.lengths.sum() == adapted.returns.sum()
    assert np.abs(weights(adapted.learner) - weights(agent.learner)).max() > 1e-3
    again = agent.adapt_by_gradient("CartPole-v1", lifetimes=3, how=how, seed=1)
    np.testing.assert_array_equal(adapted.returns, again.returns)
    first = agent.adapt_by_gradient("CartPole-v1", lifetimes=1, seed=1)
    np.testing.assert_array_equal(first.returns, adapted.returns[:2])
    np.testing.assert_array_equal(weights(first.learner), weights(agent.learner))
    assert adapted.predict(np.zeros(4, np.float32))[0] in (0, 1)
    with pytest.raises(UsageError, match="lifetimes"):
        agent.adapt_by_gradient("CartPole-v1", lifetimes=0)
    for failing in (5, 6):  # the third lifetime's first reset, and its second one
        with pytest.raises(EnvironmentFaultError) as caught:
            agent.adapt_by_gradient(Failing(failing), lifetimes=3, how=how, seed=1)
        kept = caught.value.adapted.returns
        np.testing.assert_array_equal(kept, adapted.returns[: failing - 1])
