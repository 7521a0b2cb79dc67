"""The ledger: what was tried in which state and what it paid."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from metaql.embedding.ledger import FACTS, blank_ledger
from metaql.types import Transition


def entered(ledger, *steps):
    """After steps of (state, action, reward, next state)."""
    off = jnp.asarray(False)
    for state, action, reward, after in steps:
        where, what, paid, there = map(jnp.asarray, (state, action, reward, after))
        ledger = ledger.after(Transition(where, what, paid, there, off, off))
    return ledger


def test_rewards_are_entered_where_one_acted():
    ledger = entered(blank_ledger(3, 2), (2, 1, 0.5, 0), (2, 1, -1.0, 1), (0, 0, 0.25, 2))
    np.testing.assert_array_equal(ledger.visits, [[1, 0], [0, 0], [0, 2]])
    np.testing.assert_array_equal(ledger.reward, [[0.25, 0], [0, 0], [0, -0.5]])


def test_a_view_is_of_the_state_one_is_in():
    """Mean, shrunk mean, deviation and its square, of both actions; rewards five times as large."""
    ledger = entered(blank_ledger(3, 2), *[(2, 1, 0.5, 0)] * 3, (0, 0, 0.25, 2))
    tried = [[0.0, 2.5], [0.0, 1.875], [1.0, 0.5], [1.0, 0.25]]
    np.testing.assert_allclose(ledger.view(jnp.asarray(2)).reshape(FACTS, 2), tried)
    blank = [[0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]
    np.testing.assert_allclose(ledger.view(jnp.asarray(1)).reshape(FACTS, 2), blank)


def test_the_mean_of_a_normal_posterior_is_a_sum_of_facts():
    """Prior Normal(m, 1), rewards Normal(., 1): (m + sum) / (n + 1), deviation 1 / sqrt(n + 1)."""
    ledger = entered(blank_ledger(3, 2), (2, 1, 0.5, 0), (2, 1, -0.3, 1), (2, 1, 0.9, 1))
    _, shrunk, deviation, again = ledger.view(jnp.asarray(2)).reshape(FACTS, 2)[:, 1]
    prior = 0.7
    np.testing.assert_allclose(shrunk / 5 + prior * again, (prior + 1.1) / 4, rtol=1e-6)
    np.testing.assert_allclose(deviation, 1 / np.sqrt(4))
