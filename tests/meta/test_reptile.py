"""Reptile: the weights move to the mean of what gradient steps in every task lead to."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from metaql.errors import ConfigError
from metaql.meta.gradient import GradientSteps
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.reptile import train_reptile
from metaql.tasks.families import CartPole

FAMILY = CartPole(horizon=10)
HOW = GradientSteps(steps=4, batch=0)


def config(**more):
    small = {"lifetimes": 4, "minibatches": 1, "segment_steps": 20, "episodes": (2, 2)}
    return RecurrentConfig(**{**small, "hidden": 8, "width": 8, "context": False, **more})


def weights(agent):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(agent.learner.network)]


def test_no_steps_no_movement():
    still = train_reptile(FAMILY, config(env_steps=80), GradientSteps(steps=0, batch=0), seed=0)
    moved = train_reptile(FAMILY, config(env_steps=80), HOW, seed=0)
    apart = [np.abs(a - b).max() for a, b in zip(weights(still), weights(moved), strict=True)]
    # One iteration at the full rate: as far as four steps of Adam go, in every layer but the embedding's.
    assert max(apart) <= 4 * HOW.learning_rate * 1.01
    assert max(apart) > HOW.learning_rate


def test_the_outer_rate_falls():
    """Five iterations at rates 1, 0.8, ... 0.2: as far as three whole ones at most."""
    still = GradientSteps(steps=0, batch=0)
    start, end = (train_reptile(FAMILY, config(env_steps=400), how, seed=2) for how in (still, HOW))
    # The last layer follows the scale of what was lived: compared at one scale.
    same = start.learner.rescaled(end.learner.scale).network
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(same)]
    apart = [np.abs(a - b).max() for a, b in zip(before, weights(end), strict=True)]
    assert max(apart) <= 3 * 4 * HOW.learning_rate * 1.01


def test_a_run_resumes_to_the_same_weights(tmp_path):
    settings = config(env_steps=400, checkpoint_every=1)
    whole = train_reptile(FAMILY, settings, HOW, seed=1)

    def stop(stage, done, metrics):
        if done > 0.5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train_reptile(FAMILY, settings, HOW, seed=1, run=tmp_path, on_progress=stop)
    again = train_reptile(FAMILY, settings, HOW, seed=1, run=tmp_path, resume=True)
    for a, b in zip(weights(whole), weights(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_it_has_neither_embedding_nor_replay():
    with pytest.raises(ConfigError, match="context=True"):
        train_reptile(FAMILY, config(context=True), HOW, seed=0)
    with pytest.raises(ConfigError, match="batch=8"):
        train_reptile(FAMILY, config(), GradientSteps(), seed=0)


def test_a_segment_must_hold_a_whole_lifetime():
    with pytest.raises(ConfigError, match="a lifetime may last 20 steps"):
        train_reptile(FAMILY, config(segment_steps=10), HOW, seed=0)
