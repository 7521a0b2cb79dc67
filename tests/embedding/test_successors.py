"""Both layouts of transition counts answer alike."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding import successors as after
from metaql.types import Transition

SIZE, ACTIONS = 5, 2


def moves(number, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.integers(SIZE), rng.integers(ACTIONS), rng.integers(3)) for _ in range(number)]


def filled(slots, steps):
    held = after.no_successors(SIZE, ACTIONS, slots)
    for state, action, onto in steps:
        zero, false = jnp.zeros(()), jnp.zeros((), bool)
        at = (jnp.asarray(int(x)) for x in (state, action))
        held = after.add(held, Transition(*at, zero, jnp.asarray(int(onto)), false, false))
    return held


@pytest.mark.parametrize("slots", [None, 3])
def test_expectation_is_the_weighted_sum_over_what_was_counted(slots):
    steps = moves(40)
    counts = np.zeros((SIZE, ACTIONS, SIZE))
    np.add.at(counts, tuple(np.transpose(steps)), 1.0)
    held = filled(slots, steps)
    values = np.random.default_rng(1).normal(size=(2, SIZE))
    got = after.expectation(held, held.counts, jnp.asarray(values))
    np.testing.assert_allclose(got, np.einsum("saz,cz->csa", counts, values), atol=1e-5)
    for state in range(SIZE):
        for onto in range(SIZE):
            seen = after.seen(held, jnp.asarray(state), jnp.asarray(onto))
            np.testing.assert_array_equal(seen, counts[state, :, onto])


def test_full_says_when_the_next_new_successor_would_be_lost():
    two = [(0, 0, 0), (0, 0, 1)]
    assert not after.is_full(filled(3, two))
    full = filled(3, [*two, (0, 0, 2)])
    assert after.is_full(full)
    assert not after.is_full(filled(None, two))
    lost = filled(2, [*two, (0, 0, 2), (0, 0, 1)])
    np.testing.assert_array_equal(lost.counts[0, 0], [1, 2])


@pytest.mark.parametrize("slots", [None, 3])
def test_rewards_on_the_way_and_what_arrives(slots):
    steps = [tuple(int(x) for x in step) for step in moves(40)]
    held = after.no_successors(SIZE, ACTIONS, slots)
    rng, no, paid = np.random.default_rng(2), jnp.zeros((), bool), np.zeros((SIZE, ACTIONS, SIZE))
    for s, a, z in steps:
        paid[s, a, z] += (amount := float(rng.integers(5)))
        here = (jnp.asarray(s), jnp.asarray(a), jnp.asarray(amount), jnp.asarray(z))
        held = after.add(held, Transition(*here, no, no))
    last = Transition(*here, no, no)
    visits, total = after.paid(held, last)
    assert (int(visits), float(total)) == (
        steps.count((s, a, z)),
        paid[s, a, z],
    )
    amounts = jnp.asarray(rng.normal(size=(SIZE, ACTIONS)))
    counts = np.zeros((SIZE, ACTIONS, SIZE))
    np.add.at(counts, tuple(np.transpose(steps)), 1.0)
    want = np.einsum("saz,sa->z", counts, amounts)
    np.testing.assert_allclose(after.arriving(held, amounts), want, atol=1e-4)
