"""Bellman targets against numbers worked out by hand and against their definitions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaql.qlearning import td

BOTH = jnp.array([True, True])


@pytest.mark.parametrize(
    ("terminated", "expected"),
    [(False, 0.5 + 0.9 * 2.0), (True, 0.5)],
    ids=["goes on or truncated", "terminated"],
)
def test_q_target_by_hand(terminated, expected):
    discount = td.discount_after(0.9, jnp.asarray(terminated))
    target = td.q_target(jnp.asarray(0.5), discount, jnp.array([2.0, -1.0]), BOTH)
    assert float(target) == pytest.approx(expected)


def test_a_padded_action_never_counts():
    q_t, mask = jnp.array([2.0, 50.0]), jnp.array([True, False])
    one, half = jnp.asarray(1.0), jnp.asarray(0.5)
    assert float(td.q_target(one, half, q_t, mask)) == pytest.approx(2.0)
    double = td.double_q_target(one, half, q_t_value=q_t, q_t_select=q_t, action_mask=mask)
    assert float(double) == pytest.approx(2.0)
    ended = td.q_target(one, jnp.asarray(0.0), jnp.array([2.0, jnp.nan]), mask)
    assert float(ended) == 1.0


def test_double_q_selects_with_one_table_and_values_with_the_other():
    target = td.double_q_target(
        jnp.asarray(1.0),
        jnp.asarray(0.5),
        q_t_value=jnp.array([4.0, 10.0]),
        q_t_select=jnp.array([3.0, 2.0]),
        action_mask=BOTH,
    )
    assert float(target) == pytest.approx(1.0 + 0.5 * 4.0)


def test_traces_fade_after_a_greedy_action_and_vanish_after_an_exploratory_one():
    traces = jnp.array([[1.0, 0.0], [0.5, 0.0]])
    faded = td.watkins_traces(traces, 1, 0, jnp.asarray(True), jnp.asarray(0.6))
    np.testing.assert_allclose(faded, [[0.6, 0.0], [1.0, 0.0]])
    cut = td.watkins_traces(traces, 1, 1, jnp.asarray(False), jnp.asarray(0.6))
    np.testing.assert_allclose(cut, [[0.0, 0.0], [0.0, 1.0]])


def test_lambda_returns_by_hand():
    # Rows: goes on, truncated (lambda 0), goes on, terminated (discount 0).
    r = jnp.array([1.0, 2.0, 3.0, 4.0])
    discount = jnp.array([0.5, 0.5, 0.5, 0.0])
    v = jnp.array([10.0, 20.0, 30.0, 40.0])
    lam = jnp.array([0.5, 0.0, 0.5, 0.5])
    # G3 = 4; G2 = 3 + .5(.5*30 + .5*4) = 11.5; G1 = 2 + .5*20 = 12; G0 = 1 + .5(5 + 6) = 6.5
    np.testing.assert_allclose(td.lambda_returns(r, discount, v, lam), [6.5, 12.0, 11.5, 4.0])


def test_the_last_row_bootstraps_fully():
    returns = td.lambda_returns(jnp.array([1.0]), jnp.array([0.5]), jnp.array([6.0]), 0.9)
    np.testing.assert_allclose(returns, [4.0])


def brute_force(r, discount, v, lam):
    """The lambda-return as the mixture of n-step returns it is defined by, O(T^2)."""
    steps = len(r)
    out = np.zeros(steps)
    for t in range(steps):
        weight, discounted, so_far = 1.0, 1.0, 0.0
        for k in range(t, steps):
            so_far += discounted * r[k]
            discounted *= discount[k]
            stop = 1.0 if k == steps - 1 else 1.0 - lam[k]
            out[t] += weight * stop * (so_far + discounted * v[k])
            weight *= lam[k] if k < steps - 1 else 0.0
    return out


STEPS = 7  # one length: one compilation
rows = st.lists(st.floats(-5, 5, width=32), min_size=STEPS, max_size=STEPS).map(np.array)
shares = st.lists(st.floats(0, 1, width=32), min_size=STEPS, max_size=STEPS).map(np.array)


@settings(max_examples=60, deadline=None)
@given(r=rows, v=rows, discount=shares, lam=shares)
def test_lambda_returns_are_the_mixture_of_n_step_returns(r, v, discount, lam):
    got = td.lambda_returns(*map(jnp.float32, (r, discount, v, lam)))
    np.testing.assert_allclose(got, brute_force(r, discount, v, lam), rtol=1e-4, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(r=rows, v=rows, discount=shares)
def test_lambda_zero_is_one_step_and_lambda_one_is_monte_carlo(r, v, discount):
    arrays = tuple(map(jnp.float32, (r, discount, v)))
    np.testing.assert_allclose(td.lambda_returns(*arrays, 0.0), r + discount * v, atol=1e-4)
    monte_carlo, following = np.zeros(STEPS), v[-1]
    for t in reversed(range(STEPS)):
        following = monte_carlo[t] = r[t] + discount[t] * following
    np.testing.assert_allclose(td.lambda_returns(*arrays, 1.0), monte_carlo, atol=1e-4)


def test_shortfall_by_hand():
    q = jnp.array([2.0, -1.0, -jnp.inf])  # the last action does not exist
    assert [float(td.shortfall(q, jnp.asarray(a))) for a in (0, 1)] == [0.0, 3.0]
    parts = jnp.array([[1.0, 4.0], [0.0, -2.0]])
    assert float(td.shortfall(parts, jnp.array([0, 0]))) == 1.5


def test_an_action_gap_leaves_values_and_widens_differences():
    """Advantage learning in its fixed point: V* stays, and gaps are 1 / (1 - share) times as large."""
    chance = np.random.default_rng(0).dirichlet(np.ones(4), (4, 3))
    reward = np.random.default_rng(1).normal(size=(4, 3))

    every = jax.jit(jax.vmap(jax.vmap(td.shortfall, in_axes=(None, 0)), in_axes=(0, None)))

    def fixed_point(share):
        q = jnp.zeros((4, 3))
        for _ in range(400):
            short = every(q, jnp.arange(3))
            q = reward + 0.9 * chance @ q.max(-1) - share * short
        return np.asarray(q)

    plain, wide = fixed_point(0.0), fixed_point(0.75)
    np.testing.assert_allclose(plain.max(-1), wide.max(-1), rtol=1e-4)
    gaps = [q.max(-1, keepdims=True) - q for q in (plain, wide)]
    np.testing.assert_allclose(4.0 * gaps[0], gaps[1], atol=1e-3)
