"""The outer loss: finite gradients, to the weights and to nothing else, of what matters."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.statistics import Tally, empty
from metaql.meta.lifetime import begin_all
from metaql.meta.objective import Losses, belief_losses, meta_loss
from metaql.meta.rollout import live_segments
from metaql.meta.step import solve, split_weights
from metaql.policy.beliefq import BeliefConfig, BeliefQ
from metaql.tasks.families.frozen_lake import FrozenLake

CONFIG = BeliefConfig(embedding=4, hidden=8, sweeps=2, first_sweeps=8)


def shaken(seed=0, noise=0.2):
    """Random weights in every layer: fresh ones are zero where it matters."""
    rng = np.random.default_rng(seed)

    def shake(leaf):
        return leaf + rng.normal(0, noise, leaf.shape) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(shake, BeliefQ(jax.random.key(seed), config=CONFIG)).with_epsilon(0.3)


def some_prior():
    pair, arrival = jnp.full((9, 4), 0.5), jnp.full(9, 0.5)
    return empty(9, 4)._replace(
        transitions=jnp.full((9, 4, 9), 0.2),
        pair=Tally(pair, 0.1 * pair, 0.2 * pair),
        arrival=Tally(arrival, 0.1 * arrival, 0.2 * arrival),
        reward_peak=jnp.ones(()),
    )


@pytest.fixture(scope="module")
def lived():
    """A learner with a prior, what it lived in four tasks, and the exact answers to them."""
    tasks = FrozenLake.toy().tasks(jax.random.key(0), 4)
    learner = shaken().with_prior(some_prior())
    answers = solve(tasks)
    lives = begin_all(learner, tasks, jax.random.split(jax.random.key(2), 4), 3)
    settings = {"segments": 2, "steps": 6, "trace": 0.9, "episode_discount": 0.8}
    _, data, _ = live_segments(learner, tasks, answers, lives, **settings)
    return learner, jax.tree.map(lambda x: x[1], data), answers


@eqx.filter_jit
def gradients(learner, data, answers):
    """Losses and, for each, the gradient with respect to every array of the learner."""

    arrays, rest = eqx.partition(learner, eqx.is_inexact_array)

    def parts(arrays):
        losses = meta_loss(eqx.combine(arrays, rest), data, answers, 0.5)[1]
        return jnp.stack(losses), losses

    return jax.jacrev(parts, has_aux=True)(arrays)


@pytest.fixture(scope="module")
def measured(lived):
    return gradients(*lived)


def norm(tree):
    return sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(tree))


def test_gradients_are_finite_under_jit_and_reach_every_layer(measured):
    slopes, losses = measured
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((slopes, losses)))
    trained = split_weights(slopes)[0]
    for name in ("embed", "tune", "head", "modes"):
        layers = jax.tree.leaves(getattr(trained, name))
        assert layers
        assert norm(layers) > 0, name


def test_no_gradient_reaches_the_prior(measured):
    assert norm(measured[0].prior) == 0


def test_epsilon_and_prior_are_not_trained(lived):
    trained, frozen = split_weights(lived[0].with_prior(None))
    assert trained.epsilon is None
    assert frozen.epsilon is not None
    assert jax.tree.leaves(trained.head)
    assert not jax.tree.leaves(eqx.filter(frozen.head, eqx.is_array))


def test_doubt_does_not_move_the_mean_and_fit_does_not_move_the_doubt(measured):
    """Row 0 of the head's output is the log-deviation; the others move the mean."""
    out = measured[0].head.out.weight  # [3 losses, 1 + ..., hidden]
    fit, doubt, outer = Losses(*out)
    assert float(jnp.abs(fit[1:]).max()) > 1e-6
    np.testing.assert_array_equal(fit[0], 0.0)
    assert float(jnp.abs(doubt[0]).max()) > 1e-6
    np.testing.assert_array_equal(doubt[1:], 0.0)
    np.testing.assert_array_equal(outer, 0.0)


def one_loss(lived, answers, n=0):
    learner, data, _ = lived
    belief, state, target = jax.tree.map(lambda x: x[n], (data.beliefs, data.states, data.targets))
    answer = jax.tree.map(lambda x: x[n], answers)
    return JITTED(learner, belief, answer, state, target)


JITTED = eqx.filter_jit(belief_losses)


def test_pairs_that_do_not_matter_do_not_matter(lived):
    answers = lived[2]
    assert not answers.matters.all()  # holes and the goal
    spoilt = answers._replace(q=jnp.where(answers.matters, answers.q, 1e3))
    moved = answers._replace(q=answers.q + 0.5)
    first, second, third = (one_loss(lived, x) for x in (answers, spoilt, moved))
    np.testing.assert_array_equal(first, second)
    assert float(third.fit) != float(first.fit)


def test_where_mean_is_q_star_nothing_is_lost(lived):
    learner, data, answers = lived
    belief = jax.tree.map(lambda x: x[0], data.beliefs)

    @eqx.filter_jit
    def mean_of(learner, belief):
        return learner.outlooks(learner.replan(belief, CONFIG.sweeps)).mean

    truth = answers._replace(q=jnp.stack([mean_of(learner, belief)] * 4))
    assert float(one_loss(lived, truth).fit) < 1e-9
    assert float(one_loss(lived, answers).fit) > 1e-4


def test_lives_that_are_over_do_not_count(lived):
    learner, data, answers = lived
    alive = data.alive.at[1:].set(False)
    junk = data._replace(alive=alive, targets=data.targets.at[1:].set(1e6))
    clean = data._replace(alive=alive)
    loss = eqx.filter_jit(lambda data: meta_loss(learner, data, answers, 0.5)[0])
    assert float(loss(junk)) == float(loss(clean))
    assert float(loss(data)) != float(loss(clean))
