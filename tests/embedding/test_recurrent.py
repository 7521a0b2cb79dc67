"""The recurrent embedding: what is read, and how observations are seen."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.embed import Clock
from metaql.embedding.recurrent import Note, Reader, Sight, clock_facts, sight_of
from metaql.errors import UnsupportedSpaceError
from metaql.tasks.families import CartPole, GridNavi
from metaql.types import TaskSpec, Transition

SPEC = TaskSpec(jnp.ones(3, bool), jnp.ones(2, bool), jnp.asarray(10), jnp.asarray(4))


def note(**changes):
    whole = {
        "state": jnp.asarray(1),
        "action": jnp.asarray(0),
        "reward": jnp.asarray(0.5),
        "next_state": jnp.asarray(2),
        "terminated": jnp.asarray(False),
        "truncated": jnp.asarray(False),
    }
    return Note(Transition(**{**whole, **changes}), Clock(jnp.asarray(3.0), jnp.asarray(1.0)))


def test_moments_are_those_of_everything_observed():
    rng = np.random.default_rng(0)
    rows = rng.normal([3.0, -1.0], [2.0, 0.1], (100, 2))
    weights = (rng.random(100) < 0.7).astype(np.float32)
    sight = Sight(entries=2)
    for chunk in np.split(np.arange(100), [10, 11, 60]):
        sight = sight.after(jnp.asarray(rows[chunk]), jnp.asarray(weights[chunk]))
    counted = rows[weights > 0]
    assert float(sight.count) == len(counted)
    np.testing.assert_allclose(sight.mean, counted.mean(0), rtol=1e-5)
    np.testing.assert_allclose(sight.variance, counted.var(0), rtol=1e-4)
    np.testing.assert_allclose(
        sight(jnp.asarray(counted[0])),
        (counted[0] - counted.mean(0)) / counted.std(0),
        rtol=1e-2,
    )


def test_nothing_observed_changes_nothing():
    sight = Sight(entries=2).after(jnp.ones((5, 2)), jnp.ones(5))
    again = sight.after(jnp.full((3, 2), 9.0), jnp.zeros(3))
    np.testing.assert_array_equal(again.mean, sight.mean)
    np.testing.assert_array_equal(again.variance, sight.variance)


def test_what_lies_far_out_is_cut():
    assert float(Sight(entries=1)(jnp.asarray([1e9]))[0]) == 10.0


def test_numbers_are_seen_one_hot():
    sight = Sight(numbers=3)
    np.testing.assert_array_equal(sight(jnp.asarray(2)), [0, 0, 1])
    assert sight.size == 3


def test_how_a_family_is_seen_follows_from_its_tasks():
    key = jax.random.key(0)
    assert sight_of(GridNavi().sample(key, "train")).numbers == 25
    assert sight_of(CartPole().sample(key, "train")).size == 4


@pytest.mark.parametrize(
    "observe",
    [
        lambda state: state[0],
        lambda state: state[None],
        lambda state: state[:0],
        lambda state: {"all": state},
        lambda state: state[0].astype(int),
    ],
)
def test_what_cannot_be_seen_is_refused(observe):
    class Odd:
        def __init__(self, task):
            self.reset, self.spec, self.observe = task.reset, task.spec, observe

    with pytest.raises(UnsupportedSpaceError, match="vector"):
        sight_of(Odd(CartPole().sample(jax.random.key(0), "train")))


def test_the_clock_says_where_in_the_lifetime():
    facts = clock_facts(Clock(jnp.asarray(5.0), jnp.asarray(1.0)), SPEC)
    np.testing.assert_allclose(facts, [0.5, 0.25, 1 / 3, np.log(3) / 3], rtol=1e-6)
    over = clock_facts(Clock(jnp.asarray(0.0), jnp.asarray(4.0)), SPEC)
    assert np.isfinite(over).all()


@pytest.mark.parametrize(
    "change",
    [
        {"state": jnp.asarray(0)},
        {"action": jnp.asarray(1)},
        {"reward": jnp.asarray(0.4)},
        {"next_state": jnp.asarray(1)},
        {"terminated": jnp.asarray(True)},
        {"truncated": jnp.asarray(True)},
    ],
)
def test_every_part_of_a_transition_is_read(change):
    reader = Reader(jax.random.key(0), sight=3, actions=2, hidden=8)
    unit = jnp.asarray(1.0)
    usual, other = (
        reader.encode(Sight(numbers=3), each, SPEC, unit) for each in (note(), note(**change))
    )
    assert np.abs(usual - other).max() > 1e-3


def test_rewards_are_read_in_units():
    reader = Reader(jax.random.key(0), sight=3, actions=2, hidden=8)
    small, large = (
        reader.encode(Sight(numbers=3), note(reward=jnp.asarray(0.5 * x)), SPEC, jnp.asarray(x))
        for x in (1.0, 1000.0)
    )
    np.testing.assert_allclose(small, large, atol=1e-6)


def test_the_gates_are_those_of_a_gated_recurrent_unit():
    """Cho et al. 2014: with all weights zero a state halves; a shut update gate keeps it."""
    reader = Reader(jax.random.key(0), sight=3, actions=2, hidden=2)
    reader = jax.tree.map(jnp.zeros_like, reader)
    hidden = jnp.asarray([0.4, -0.2])
    np.testing.assert_allclose(reader.advance(hidden, jnp.zeros(6)), hidden / 2)
    shut = jnp.asarray([0.0, 0.0, 50.0, 50.0, 3.0, 3.0])
    np.testing.assert_allclose(reader.advance(hidden, shut), hidden)
    wide = jnp.asarray([0.0, 0.0, -50.0, -50.0, 3.0, -3.0])
    np.testing.assert_allclose(reader.advance(hidden, wide), np.tanh([3.0, -3.0]), rtol=1e-6)
