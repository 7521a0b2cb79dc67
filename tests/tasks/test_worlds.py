"""Worlds: what varies varies, and no published grid is among them."""

from __future__ import annotations

import gymnasium
import jax
import numpy as np

from metaql.tasks.families import Worlds
from metaql.tasks.gymnasium import finite_task_of

TASKS = Worlds(4).tasks(jax.random.key(0), 512, "train")


def test_what_varies_varies():
    sides = np.sqrt(np.asarray(TASKS.state_mask.sum(-1)))
    assert set(sides) == {3.0, 4.0}
    sure = np.asarray(TASKS.transition).max(-1).min((-1, -2)) == 1.0
    assert 0.2 < sure.mean() < 0.6  # no slip
    assert len(set(np.asarray(TASKS.horizon))) > 10
    assert np.asarray(TASKS.reward).max((1, 2, 3)).min() >= 0.3  # every world has a prize


def test_the_unit_of_reward_varies_only_if_wanted():
    plain = np.abs(np.asarray(TASKS.reward)).max((1, 2, 3))
    scaled = Worlds(4, scaled=True).tasks(jax.random.key(0), 512, "train")
    sizes = np.abs(np.asarray(scaled.reward)).max((1, 2, 3))
    assert plain.max() <= 1.45
    assert sizes.max() / sizes.min() > 100
    np.testing.assert_array_equal(scaled.transition, TASKS.transition)


def test_no_published_lake_is_among_them():
    lake = np.asarray(finite_task_of(gymnasium.make("FrozenLake-v1")).reward)
    rewards = np.asarray(TASKS.reward)
    assert not any(np.array_equal(each, lake) for each in rewards)
    goals = rewards.max((1, 2, 3))
    assert (goals < 1.0).all()  # a published goal pays 1 or 10
