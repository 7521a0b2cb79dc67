"""Optimism against the closed form it starts from."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.policy.curiosity import (
    FEATURES,
    Arms,
    Curiosity,
    gittins_deviations,
    index_deviations,
)
from metaql.qlearning.gittins import horizon_table, normal_bonus


def test_the_curve_is_that_of_brezzi_and_lai():
    ratio = jnp.asarray([0.1, 0.5, 3.0, 10.0, 100.0])
    log = np.log(100.0)
    expected = [
        np.sqrt(0.05),
        0.49 - 0.11 / np.sqrt(0.5),
        0.63 - 0.26 / np.sqrt(3.0),
        0.77 - 0.58 / np.sqrt(10.0),
        np.sqrt(2 * log - np.log(log) - np.log(16 * np.pi)),
    ]
    np.testing.assert_allclose(gittins_deviations(ratio), expected, rtol=1e-5)


def test_more_left_means_more_curious_and_nothing_left_not_at_all():
    curve = np.asarray(
        gittins_deviations(jnp.logspace(-4, 4, 9))
    )  # the pieces meet with small steps
    assert (np.diff(curve) > 0).all()
    assert curve[0] < 0.01


def test_untrained_it_is_the_curve_of_steps_left_per_visit_and_state():
    visits = jnp.asarray([[0.0, 3.0]])
    got = Curiosity()(
        visits, jnp.asarray(1.0), jnp.asarray(40.0), jnp.asarray(2.0), jnp.ones(FEATURES)
    )
    np.testing.assert_allclose(got, gittins_deviations(20.0 / (visits + 1.0)), rtol=1e-5)


@pytest.mark.parametrize(
    ("noise", "error"), [(0.5, 0.11), (0.5**0.5, 0.06), (1.0, 0.06), (2.0, 0.06)]
)
def test_the_index_of_normal_arms_is_that_of_the_pulls_left(noise, error):
    left, made = (x.reshape(-1) for x in np.mgrid[1:101, 0:41])
    pulls = made + noise**2  # the prior is worth so many
    exact = normal_bonus(150, 1.0, noise)[left, made] / (noise / np.sqrt(pulls))
    np.testing.assert_allclose(index_deviations(left, pulls), exact, atol=error)


def test_the_index_of_coins_is_that_of_the_pulls_left_in_log_odds():
    left, won, lost = (x.reshape(-1) for x in np.mgrid[1:81, 0:10, 0:10])
    made = won + lost + 2.0
    mean = (won + 1.0) / made
    deviation = np.sqrt(mean * (1.0 - mean) / (made + 1.0)) / (mean * (1.0 - mean))
    index = horizon_table(100)[left, won, lost]
    exact = (np.log(index / (1.0 - index)) - np.log(mean / (1.0 - mean))) / deviation
    found = index_deviations(left, made, 1.0)
    likely = mean > 0.3  # others are not pulled while any is better
    np.testing.assert_allclose(found[likely], exact[likely], atol=0.2)
    assert np.abs(found - exact)[likely].mean() < 0.06


def test_of_arms_the_index_decides_as_far_as_their_scale_is_known():
    visits, none = jnp.asarray([0.0, 3.0]), jnp.zeros(FEATURES)
    arguments = (visits, jnp.asarray(1.0), jnp.asarray(40.0), jnp.asarray(1.0), none)
    closed, index = Curiosity()(*arguments), index_deviations(40.0, visits + 1.0, 0.5)
    for share in (0.0, 0.25, 1.0):
        found = Curiosity()(*arguments, Arms(jnp.asarray(share), jnp.asarray(0.5)))
        np.testing.assert_allclose(found, closed + share * (index - closed), rtol=1e-5)


def test_a_new_state_may_set_a_record_once_in_so_many():
    curiosity = eqx.tree_at(lambda c: c.ambition, Curiosity(), jnp.log(3.0))
    found = [float(curiosity.beyond(jnp.asarray(met), jnp.asarray(2.0))) for met in (0.0, 3.0)]
    np.testing.assert_allclose(found, [36.0, 9.0], rtol=1e-5)


def test_where_episodes_end_by_themselves_the_closed_form_comes_back():
    bent = eqx.tree_at(
        lambda c: (c.level, c.crowd, c.ambition),
        Curiosity(),
        tuple(map(jnp.asarray, (1.0, 2.0, 3.0))),
    )
    going_on, ended = (bent.settled(jnp.asarray(end)) for end in (False, True))
    found = [(float(c.level), float(c.crowd), float(c.ambition)) for c in (going_on, ended)]
    assert found == [(1.0, 2.0, 3.0), (0.0, 1.0, 0.0)]
