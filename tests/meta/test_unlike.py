"""Whether a task keeps its rules: exact expectations, few false alarms, and what must be noticed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from metaql.meta.unlike import Diary, excess_of, page_walk, warnings_for
from metaql.types import Transition


def diary(rng, steps, outcome):
    """Steps in random pairs of 6 states and 2 actions; ``outcome(t, state, action)`` says what follows."""
    found = Diary()
    for t in range(steps):
        state, action = int(rng.integers(6)), int(rng.integers(2))
        onto, reward = outcome(t, state, action)
        found.write(Transition(state, action, reward, onto, False, False))
    return found


@pytest.mark.parametrize("outcomes", ["aabb", "aaabc"])
def test_the_excess_of_all_orders_is_zero_and_its_variance_is_true(outcomes):
    orders = list(itertools.permutations(outcomes))
    rows = [page_walk(order) for order in orders]
    excess = np.array([row.excess for row in rows])
    assert abs(excess.mean()) < 1e-12
    assert abs(np.mean([excess_of(order) for order in orders])) < 1e-12
    np.testing.assert_allclose((excess**2).mean(), np.mean([row.variance for row in rows]))


def test_a_task_that_keeps_its_rules_is_rarely_warned_of():
    alarms = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        chances = rng.dirichlet(np.ones(6), (6, 2))
        book = diary(rng, 400, lambda t, s, a: (rng.choice(6, p=chances[s, a]), rng.normal()))  # noqa: B023
        alarms += bool(warnings_for({}, {}, book))
    assert alarms <= 2


def test_a_change_is_noticed():
    rng = np.random.default_rng(0)
    book = diary(rng, 400, lambda t, s, a: ((s + a + (t > 200)) % 6, 0.0))
    (warning,) = warnings_for({}, {}, book)
    assert "where actions lead" in warning
    assert "not stationary" in warning


def test_rewards_that_drift_are_noticed():
    rng = np.random.default_rng(0)
    book = diary(rng, 400, lambda t, s, a: (s, rng.normal() + t / 100.0))
    (warning,) = warnings_for({}, {}, book)
    assert "rewards" in warning


def test_something_hidden_that_alternates_is_noticed():
    rng, count = np.random.default_rng(0), np.zeros((6, 2), int)

    def toggle(t, s, a):
        count[s, a] += 1
        return (s + count[s, a] % 2) % 6, 0.0

    (warning,) = warnings_for({}, {}, diary(rng, 300, toggle))
    assert "not Markov" in warning


@pytest.mark.parametrize("states", [1, 2])
def test_whoever_leaves_what_fails_is_not_warned_of(states):
    """Thompson sampling among a hundred coins: pages end with what made it leave."""
    alarms = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        chance, book = rng.random((states, 100)), Diary()
        wins = np.ones((states, 2, 100))
        for step in range(1000 * states):
            state = step % states
            arm = int(rng.beta(*wins[state]).argmax())
            won = bool(rng.random() < chance[state, arm])
            wins[state, int(not won), arm] += 1
            book.write(Transition(state, arm, float(won), 0, False, False))
        alarms += bool(warnings_for({}, {}, book))
    assert alarms <= 1  # of all outcomes of all pages 8, of pages of 16 and more of two states 4


@pytest.mark.parametrize(
    ("before", "after"), [(0.95, 0.55), (0.55, 0.95), (0.05, 0.45), (0.45, 0.05)]
)
@pytest.mark.parametrize("told", ["reward", "end"])
def test_drifting_chances_are_noticed_and_called_so(before, after, told):
    rng, book = np.random.default_rng(0), Diary()
    for step in range(2048):
        won = bool(rng.random() < (before if step < 1024 else after))
        paid, onto = (float(won), 0) if told == "reward" else (0.0, int(won))
        book.write(Transition(0, 0, paid, onto, False, False))
    (warning,) = warnings_for({}, {}, book)
    assert "not stationary" in warning
    assert "times more often" in warning
