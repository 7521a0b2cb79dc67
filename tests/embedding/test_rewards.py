"""The scale of rewards, by hand."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.evidence import no_evidence
from metaql.embedding.hyperprior import broad
from metaql.embedding.judging import observe
from metaql.embedding.rewards import pair_means, reward_scale
from metaql.types import TaskSpec, Transition

SEE = eqx.filter_jit(observe)


def paid(*rewards, states=1, unit=0.0):
    """Evidence of a task of five actions in which these were paid, each by another arm."""
    exists = jnp.arange(2) < states
    spec = TaskSpec(exists, jnp.ones(5, bool), jnp.asarray(100), jnp.asarray(1))
    prior = eqx.tree_at(lambda p: p.unit, broad(), jnp.asarray(unit))
    seen, here, no = no_evidence(spec, None), jnp.asarray(0), jnp.asarray(False)
    for arm, reward in enumerate(rewards):
        last = Transition(here, jnp.asarray(arm), jnp.float32(reward), here, no, no)
        seen = SEE(seen, prior, spec, last)
    return seen, prior


def scale(*rewards, **how):
    zero, unit = reward_scale(*paid(*rewards, **how))
    return float(zero), float(unit)


def growth(number):
    """Of the largest of normal rewards."""
    return np.sqrt((0.6 + 1.6 * np.log(500)) / (0.6 + 1.6 * np.log(number)))


def test_where_there_are_states_the_unit_is_the_largest_reward():
    assert scale(0.5, -2.0, 1.0, states=2) == (0.0, 2.0)
    assert scale(states=2) == scale() == (0.0, 1.0)


def test_arms_on_both_sides_of_nothing_keep_their_zero():
    np.testing.assert_allclose(scale(3.0, -4.0, 1.0, 2.0), (0.0, 4.0 * growth(4)), rtol=1e-5)


def test_arms_close_to_each_other_have_a_zero_of_their_own():
    share = 1.0 - 0.75**2  # three arms within the upper three quarters
    unit = growth(3) * (2.0 - share * (2.0 - 0.75))
    np.testing.assert_allclose(scale(0.5, 2.0, 1.0), (share * 1.25, unit), rtol=1e-5)
    np.testing.assert_allclose(
        scale(1001.0, 1003.0, 1002.0), (1002.0, growth(3)), rtol=1e-4, atol=0.02
    )


def test_two_values_are_a_unit_apart_once_they_are_told():
    assert scale(5.0, 6.0) == (0.0, 6.0)
    assert scale(5.0, 6.0, 5.0) == (5.0, 1.0)
    assert scale(1.0, 0.0, 1.0) == (0.0, 1.0)


def test_a_known_unit_stays():
    assert scale(0.5, 2.0, 1.0, unit=3.0) == (0.0, 3.0)


@pytest.mark.parametrize("factor", [1000.0, -1.0])
def test_the_scale_of_arms_follows_that_of_rewards(factor):
    rewards = np.asarray([0.5, 2.0, 1.0, 1.2])
    zero, unit = scale(*rewards)
    np.testing.assert_allclose(
        scale(*factor * rewards), (factor * zero, abs(factor) * unit), rtol=1e-5
    )


def test_after_many_rewards_the_range_is_known():
    seen, prior = paid(3.0, -4.0, 1.0)
    assert float(reward_scale(seen._replace(steps=jnp.asarray(500.0)), prior).unit) == 4.0


def test_what_is_usual_of_arms_moves_along_with_all_rewards():
    def usual(offset):
        seen, prior = paid(*(np.asarray([0.5, 2.0, 1.0, 1.2]) + offset))
        means = pair_means(seen, prior, reward_scale(seen, prior))
        return float(means.fresh_mean) - offset, float(jnp.sqrt(means.between))

    np.testing.assert_allclose(usual(1000.0), usual(100.0), rtol=0.05)
