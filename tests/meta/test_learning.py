"""What adapting is worth on maps nobody trained on, and what a stranger's memory leaves of it."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from metaql.embedding.prior import fit_prior
from metaql.meta.experience import q_learning_experience
from metaql.meta.lifetime import live
from metaql.policy.beliefq import BeliefQ
from metaql.tasks import exact
from metaql.tasks.families.frozen_lake import FrozenLake


def normalised(family, maps, *, agents, steps, shuffle=False):
    """(adapted - non-adaptive) / (optimum - non-adaptive) in episodes 11-20 of held-out maps."""
    key_prior, key_tasks, key_lives = jax.random.split(jax.random.key(0), 3)
    prior = fit_prior(q_learning_experience(family, key_prior, agents=agents, steps=steps))
    learner = BeliefQ(jax.random.key(1), prior=prior)
    tasks = family.tasks(key_tasks, maps, "validation")
    lives = live(
        learner, tasks, jax.random.split(key_lives, maps), episodes=20, shuffle=shuffle, chunk=1_000
    )
    average = exact.non_adaptive_policy(family.tasks(key_prior, 512, "train"))
    floor = np.mean(jax.vmap(exact.policy_return, in_axes=(0, None))(tasks, average))
    best = np.mean(jax.vmap(exact.optimal_return)(tasks))
    assert best - floor > 0.2  # there is something to adapt to
    return (lives.returns[:, 10:].mean() - floor) / (best - floor)


@pytest.mark.slow
def test_adapting_from_the_family_prior_nearly_reaches_the_optimum():
    """Without any meta-training: the prior and the planner alone."""
    assert normalised(FrozenLake(), 100, agents=512, steps=1024) >= 0.8


@pytest.mark.slow
def test_with_a_strangers_memory_nothing_is_left():
    """The placebo: what was learned about another map is worth no more than the average map."""
    assert normalised(FrozenLake(), 100, agents=512, steps=1024, shuffle=True) <= 0.1
