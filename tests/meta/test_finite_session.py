"""FiniteQ trained on one family: its prior, what is kept, and what is refused."""

from __future__ import annotations

import gymnasium
import jax
import numpy as np
import pytest

import metaql
from metaql.errors import ConfigError
from metaql.meta.config import settings_for
from metaql.meta.finite_session import most_successors, sizes
from metaql.meta.lifetime import live
from metaql.tasks.families import Bandit, CartPole, Chain, FrozenLake, Mixture, RandomMDP

KEY = jax.random.key(0)
SHORT = {"agents": 32, "segment_steps": 16, "env_steps": 4 * 32 * 16, "checkpoint_every": 1}


def test_the_prior_is_that_of_the_family():
    agent = metaql.meta_train(Bandit(5, horizon=10), agent="finite", **SHORT)
    (kind, prior), *_ = agent.priors.items()
    assert kind == "one_state"
    assert float(prior.unit) == pytest.approx(1.0)
    assert float(prior.pair_two.mean) == pytest.approx(0.5, abs=0.1)  # coins, uniform in [0, 1]
    assert float(prior.pair_two.between) == pytest.approx(1.0 / 12.0, abs=0.04)
    assert agent.card["range"] == {
        "one_state": {"states": [1, 1], "actions": [5, 5], "horizon": [10, 10]}
    }


def test_a_training_that_was_interrupted_goes_on_to_the_same_agent(tmp_path):
    family = RandomMDP.toy()
    whole = metaql.meta_train(family, agent="finite", seed=3, **SHORT)

    def interrupt(stage, done, row):
        if done == 0.5:
            raise KeyboardInterrupt

    how = {"agent": "finite", "seed": 3, "run": tmp_path, **SHORT}
    with pytest.raises(KeyboardInterrupt):
        metaql.meta_train(family, on_progress=interrupt, **how)
    assert metaql.load(tmp_path).card["env_steps"] == 2 * 32 * 16
    resumed = metaql.meta_train(family, resume=True, **how)
    jax.tree.map(np.testing.assert_array_equal, resumed.priors, whole.priors)
    kept = metaql.load(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, kept.priors, whole.priors)
    assert kept.card == resumed.card == whole.card


def test_no_training_is_no_prior_but_the_broad_one(tmp_path):
    def stop(stage, done, row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        metaql.meta_train(Chain.toy(), agent="finite", run=tmp_path, on_progress=stop, **SHORT)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(metaql.load(tmp_path).priors))


def test_it_adapts_to_environments_and_says_what_is_unlike_its_family():
    agent = metaql.meta_train(FrozenLake.toy(), agent="finite", **SHORT)
    adapted = agent.adapt(gymnasium.make("FrozenLake-v1"), episodes=2)
    assert len(adapted.returns) == 2
    assert "16 (trained with" in adapted.warnings[0]


def test_successors_and_sizes_are_those_of_the_tasks():
    dense = RandomMDP(6, 3).tasks(KEY, 4, "train")
    assert most_successors(dense) == 6
    assert most_successors(Chain.toy().tasks(KEY, 4, "train")) == 4  # as many as there is room for
    assert sizes(dense) == {"states": [6, 6], "actions": [3, 3], "horizon": [10, 10]}
    assert "horizon" not in sizes(dense._replace(horizon=dense.horizon.at[0].set(2**31 - 1)))


def test_as_many_successors_are_remembered_as_the_family_has():
    agent = metaql.meta_train(RandomMDP(12, 2), agent="finite", **SHORT)
    assert agent.learner_for(12, 2).slots == 12
    assert agent.learner_for(12, 2, slots=20).slots == 20


@pytest.mark.parametrize(
    ("family", "settings", "words"),
    [
        (CartPole.toy(), {}, "learn finite families only"),
        (Mixture([Bandit.toy(), Chain.toy()]), {}, "one family"),
        (Chain.toy(), {"agents": 0}, "`agents` must be at least 1"),
        (Chain.toy(), {"lifetimes": 8}, "agent 'belief' and 'recurrent'"),
        (Chain.toy(), {"lifetime": 8}, "lifetime"),
    ],
)
def test_what_does_not_fit_is_refused(family, settings, words):
    with pytest.raises(ConfigError, match=words):
        settings_for(family, "finite", settings, "meta_train")


@pytest.mark.slow
def test_a_prior_of_the_family_is_worth_more_than_that_of_all_tasks():
    family = Bandit(10, horizon=100, kind="deceptive")
    own = metaql.meta_train(family, agent="finite")
    tasks, keys = family.tasks(KEY, 1_024, "validation"), jax.random.split(KEY, 1_024)
    totals = [
        live(agent.learner_for(1, 10), tasks, keys, episodes=1).returns.sum(1)
        for agent in (own, metaql.load("finite"))
    ]
    gain = totals[0] - totals[1]  # 3.2 in 4,000 tasks
    assert gain.mean() > 2.5 * gain.std() / np.sqrt(len(gain))
    assert gain.mean() > 1.5
