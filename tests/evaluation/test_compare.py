"""The comparison: every learner in the same loop, exact levels beside them."""

import jax
import numpy as np
import pytest

from metaql.evaluation.compare import AGENT, baselines, compare, levels
from metaql.meta.agent import Agent
from metaql.policy.beliefq import BeliefQ
from metaql.tasks.families import Bandit, FrozenLake


def agent() -> Agent:
    return Agent(learner=BeliefQ(jax.random.key(0)), priors={}, family_name="none", card={})


def test_every_learner_lives_every_episode_and_none_beats_the_optimum():
    family = FrozenLake.toy()
    task = jax.tree.map(lambda x: x[0], family.tasks(jax.random.key(0), 1, "test"))
    shares = []
    found = compare(
        agent(), family, task, runs=6, episodes=3, on_progress=lambda *a: shares.append(a[1])
    )
    assert list(found.rows) == [AGENT, *baselines(task)]
    for lives in found.rows.values():
        assert lives.returns.shape == lives.lengths.shape == (6, 3)
        assert np.isin(lives.returns, (0.0, 1.0)).all()
        assert lives.lengths.min() >= 1
        assert lives.lengths.max() <= int(task.horizon)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_levels_of_the_default_lake():
    family = FrozenLake()
    found = levels(family, family.default())
    assert found["optimum"] == pytest.approx(0.7442, abs=1e-4)
    assert 0.0 < found["best non-adaptive policy"] < 0.1


def test_no_non_adaptive_policy_where_states_are_not_shared():
    family = Bandit.toy()
    task = jax.tree.map(lambda x: x[0], family.tasks(jax.random.key(0), 1, "test"))
    assert list(levels(family, task)) == ["optimum"]
