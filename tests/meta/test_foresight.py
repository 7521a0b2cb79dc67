"""Beliefs of RecurrentQ: step by step as in a segment, and learned by what they foretell."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.recurrent import Note, Sight
from metaql.meta.foresight import foresight_loss
from metaql.meta.recurrent_loss import seen_again
from metaql.meta.recurrent_step import split_learner
from metaql.policy.network import Sizes
from metaql.policy.recurrentq import RecurrentQ
from metaql.types import TaskSpec, Transition

KEY = jax.random.key(0)


def learner(features=4, **options):
    sizes = Sizes(8, 8, features=features, **options)
    fresh = RecurrentQ(KEY, sight=Sight(entries=3), actions=(2, 3), sizes=sizes)
    return eqx.tree_at(lambda q: q.unit, fresh, jnp.asarray(2.0))


def lived(count=7):
    """Steps of one episode, their notes, and memories before each of them."""
    rng = np.random.default_rng(0)
    states = jnp.asarray(rng.normal(size=(count + 1, 3)), jnp.float32)
    action = jnp.asarray(rng.integers(3, size=(count, 2)))
    reward = jnp.asarray(rng.normal(size=count), jnp.float32)
    off = jnp.zeros(count, bool)
    seen = Transition(states[:-1], action, reward, states[1:], off, off)
    mask = jnp.ones((2, 3), bool)
    spec = TaskSpec(jnp.zeros(0, bool), mask, jnp.asarray(9), jnp.asarray(2))
    return seen, spec


def told(learner, begin=0):
    """Memories before every step, from the step ``begin`` on, and the notes of those steps."""
    seen, spec = lived()
    memories = [learner.init(KEY, spec)]
    for step in range(len(seen.reward)):
        row = jax.tree.map(lambda x, step=step: x[step], seen)
        memories.append(learner.update(KEY, memories[-1], row))
    stacked = jax.tree.map(lambda *rows: jnp.stack(rows), *memories[begin:-1])
    return stacked, Note(jax.tree.map(lambda x: x[begin:], seen), stacked.clock)


@pytest.mark.parametrize("begin", [0, 3])
def test_a_segment_is_seen_as_step_by_step(begin):
    whole = learner()
    memories, notes = told(whole, begin)
    start = jax.tree.map(lambda x: x[0], memories)
    scenes = seen_again(whole, start, notes)
    expected = jax.vmap(whole.scene)(notes.transition.state, memories.counts)
    np.testing.assert_allclose(scenes, expected, atol=1e-5)
    rows = jax.vmap(whole.rows)(notes.transition)

    def surprise(before, row):
        only = jax.tree.map(lambda x: x[None], row)
        return whole.model.surprise(before, only, jnp.ones(1, bool))

    surprises = jax.vmap(surprise)(memories.counts, rows)
    for length in range(len(surprises) + 1):  # of a lifetime that is over there
        loss = foresight_loss(whole, start, notes, jnp.arange(len(surprises)) < length)
        np.testing.assert_allclose(loss, 0.3 * surprises[:length].sum(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("begin", [0, 3])
def test_the_prior_is_learned_where_a_lifetime_begins(begin):
    whole = learner()
    memories, notes = told(whole, begin)
    start = jax.tree.map(lambda x: x[0], memories)
    counts = jnp.ones(len(notes.clock.step), bool)
    slope = eqx.filter_grad(lambda q: foresight_loss(q, start, notes, counts))(whole)
    for part in (slope.model.rewards, slope.model.changes):
        assert (np.abs(part.mean).max() > 0) == (begin == 0)
        assert (np.abs(part.log_spread).max() > 0) == (begin == 0)
        assert np.abs(part.layers[0].weight).max() > 0


def test_units_of_changes_are_not_learned_by_gradients():
    weights, rest = split_learner(learner())
    assert weights.model.moved is None
    assert weights.model.count is None
    assert rest.model.moved.shape == (3,)
    assert weights.model.rewards.mean.shape == (4, 1)


@pytest.mark.parametrize("options", [{"features": 0}, {"context": False}])
def test_without_it_nothing_is_added(options):
    plain = learner(**options)
    assert plain.model is None
    memories, notes = told(plain)
    assert memories.counts is None
    start = jax.tree.map(lambda x: x[0], memories)
    assert float(foresight_loss(plain, start, notes, jnp.ones(7, bool))) == 0.0


def test_numbers_of_states_are_counted_and_not_modelled():
    numbered = RecurrentQ(KEY, sight=Sight(numbers=5), actions=(3,), sizes=Sizes(8, 8, features=4))
    assert numbered.model is None
