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
