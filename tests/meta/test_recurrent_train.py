"""RecurrentQ from training to adaptation: same seed, same bits; saved, loaded, used on Gymnasium."""

from __future__ import annotations

import gymnasium
import jax
import numpy as np
import pytest

import metaql
from metaql.errors import (
    CheckpointError,
    ConfigError,
    EnvironmentFaultError,
    UnknownNameError,
    UnsupportedSpaceError,
    UsageError,
)
from metaql.evaluation.compare import AGENT, compare
from metaql.meta.config import MetaTrainConfig, settings_for
from metaql.meta.recurrent_agent import RecurrentAgent
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.recurrent_train import train_recurrent
from metaql.meta.train import meta_train
from metaql.runs import read_metrics
from metaql.tasks.families import (
    Acrobot,
    CartPole,
    Chain,
    GridNavi,
    KeyToDoor,
    Pendulum,
    RandomMDP,
)
from metaql.tasks.families.changing import Changing

ITERATIONS = 6
SETTINGS = {
    "lifetimes": 8,
    "segment_steps": 8,
    "minibatches": 2,
    "bank": 8,
    "refresh": 4,
    "hidden": 8,
    "width": 8,
    "checkpoint_every": 2,
    "episodes": (2, 2),
    "env_steps": 8 * 8 * ITERATIONS,
}


def train(family=None, **options):
    settings = {"agent": "recurrent", "seed": 3, **SETTINGS, **options}
    return meta_train(family or CartPole.toy(), **settings)


def bits(agent):
    """Every number of an agent, as bytes."""
    leaves = jax.tree.leaves(agent.learner)
    return b"".join(np.asarray(x).tobytes() for x in leaves if hasattr(x, "dtype"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    return run, train(run=run)


def test_interrupted_and_resumed_it_ends_with_the_same_bits(trained, tmp_path):
    run, agent = trained

    def stop(stage, done, metrics):
        if done >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run=tmp_path, on_progress=stop)
    assert len(read_metrics(tmp_path)) == ITERATIONS // 2
    resumed = train(run=tmp_path, resume=True)
    assert bits(resumed) == bits(agent)
    assert len(read_metrics(tmp_path)) == len(read_metrics(run)) == ITERATIONS


def test_the_seed_decides(trained):
    assert bits(train(seed=4)) != bits(trained[1])


def test_other_sizes_on_resuming_are_named(trained):
    with pytest.raises(CheckpointError, match=r"hidden was \d+, asked for 5"):
        train(run=trained[0], resume=True, hidden=5)


def test_other_settings_of_the_same_shape_are_named_too(trained):
    with pytest.raises(CheckpointError, match=r"discount was 0\.\d+, asked for 0.5\."):
        train(run=trained[0], resume=True, discount=0.5)


def test_how_often_is_saved_may_change(trained):
    assert bits(train(run=trained[0], resume=True, checkpoint_every=1)) == bits(trained[1])


def test_resuming_nothing_is_refused(tmp_path):
    with pytest.raises(CheckpointError):
        train(run=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="run"):
        train(resume=True)


def test_saved_and_loaded_it_is_the_same(trained, tmp_path):
    run, agent = trained
    agent.save(tmp_path / "agent")
    for place in (run, tmp_path / "agent"):
        loaded = metaql.load(place)
        assert isinstance(loaded, RecurrentAgent)
        assert bits(loaded) == bits(agent)
        assert loaded.card["env_steps"] == SETTINGS["env_steps"]
    assert float(agent.learner.epsilon) == 0.0


def test_levels_are_kept(tmp_path):
    agent = train(Pendulum.toy())
    agent.save(tmp_path / "agent")
    loaded = metaql.load(tmp_path / "agent")
    adapted = loaded.adapt("Pendulum-v1", episodes=1)
    assert adapted.lengths.tolist() == [200]
    action, _ = adapted.predict(np.array([1.0, 0.0, 0.0], np.float32))
    assert action in gymnasium.make("Pendulum-v1").action_space


def test_it_adapts_to_gymnasiums_own_environment(trained):
    agent = trained[1]
    told = []
    adapted = agent.adapt("CartPole-v1", episodes=3, seed=1, on_episode=lambda *x: told.append(x))
    assert adapted.returns.tolist() == adapted.lengths.tolist()
    assert [row[0] for row in told] == [0, 1, 2]
    assert float(adapted.memory.clock.episode) == 3
    again = agent.adapt("CartPole-v1", episodes=3, seed=1)
    np.testing.assert_array_equal(adapted.returns, again.returns)
    action, steps = adapted.predict(np.zeros(4, np.float32))
    assert action in (0, 1)
    actions, steps = adapted.predict(np.zeros((5, 4), np.float32))
    assert actions.shape == steps.shape == (5,)
    _, later = adapted.predict(
        np.zeros((5, 4), np.float32), steps + 1, episode_start=np.arange(5) < 2
    )
    assert later.tolist() == [1, 1, 3, 3, 3]


def test_observations_are_checked_when_predicting(trained):
    adapted = trained[1].adapt("CartPole-v1", episodes=1)
    with pytest.raises(UsageError):
        adapted.predict(np.zeros(3))
    with pytest.raises(UsageError, match="3 observations"):
        adapted.predict(np.zeros((3, 4)), state=np.zeros(2))
    with pytest.raises(UsageError, match="deterministic"):
        adapted.predict(np.zeros(4), deterministic=False)


@pytest.mark.parametrize("env", ["FrozenLake-v1", "Acrobot-v1", "Pendulum-v1"])
def test_other_spaces_are_refused(trained, env):
    with pytest.raises(UnsupportedSpaceError):
        trained[1].adapt(env, episodes=1)


def test_what_was_learned_before_a_fault_is_kept(trained):
    class Breaks(gymnasium.Wrapper):
        count = 0

        def step(self, action):
            Breaks.count += 1
            seen, reward, ended, cut, info = self.env.step(action)
            return seen, np.nan if Breaks.count > 30 else reward, ended, cut, info

    with pytest.raises(EnvironmentFaultError, match="nan") as caught:
        trained[1].adapt(Breaks(gymnasium.make("CartPole-v1")), episodes=50)
    assert caught.value.adapted.returns.sum() > 0


def test_finite_families_are_learned_too():
    agent = train(GridNavi.toy())
    task = GridNavi.toy().sample(jax.random.key(0), "test")
    assert agent.learner_for(25, 5) is agent.learner
    with pytest.raises(UnsupportedSpaceError, match="25 states and 5 actions"):
        agent.learner_for(16, 5)
    found = compare(agent, GridNavi.toy(), task, runs=2, episodes=2)
    assert AGENT in found.rows
    assert "optimum" in found.levels


def test_a_task_of_another_kind_is_refused(trained):
    pendulum = Pendulum.toy().sample(jax.random.key(0), "test")
    with pytest.raises(UnsupportedSpaceError, match="3 observation entries"):
        compare(trained[1], Pendulum.toy(), pendulum, runs=2, episodes=1)
    with pytest.raises(UnsupportedSpaceError, match="4 states"):
        trained[1].learner_for(4, 2)  # four states are not four entries
    finite = metaql.load("finite")
    with pytest.raises(UnsupportedSpaceError, match="RecurrentQ"):
        compare(finite, Pendulum.toy(), pendulum, runs=2, episodes=1)


def test_episodes_are_those_of_training_unless_told(trained):
    assert len(trained[1].adapt("CartPole-v1").returns) == 2
    assert trained[1].adapt("CartPole-v1").warnings == []
    assert "asked for 3" in trained[1].adapt("CartPole-v1", episodes=3).warnings[0]


def test_where_nothing_is_finite_the_baseline_acts_at_random(trained):
    task = CartPole.toy().sample(jax.random.key(0), "test")
    beside = {"the same": trained[1]}
    found = compare(trained[1], CartPole.toy(), task, runs=4, episodes=2, beside=beside)
    assert list(found.rows) == [AGENT, "acting at random", "the same"]
    assert found.levels == {}


def test_agents_and_families_that_do_not_fit_are_refused():
    with pytest.raises(UnknownNameError, match="Did you mean 'recurrent'"):
        meta_train(Chain.toy(), agent="recurent")
    with pytest.raises(ConfigError, match="recurrent"):
        meta_train(CartPole.toy(), agent="belief")
    with pytest.raises(ConfigError, match="RecurrentConfig"):
        meta_train(CartPole.toy(), config=metaql.MetaTrainConfig())
    with pytest.raises(
        ConfigError, match=r"'sweeps' is a setting of the agent 'belief'.*Leave it out"
    ):
        meta_train(CartPole.toy(), sweeps=3)
    with pytest.raises(ConfigError, match=r"'trace_gap'.*Keys there are"):
        meta_train(Chain.toy(), trace_gap=3)
    with pytest.raises(
        ConfigError, match=r"'action_gap' is a setting.*'recurrent'.*--agent recurrent"
    ):
        meta_train(Chain.toy(), action_gap=0.5)


@pytest.mark.parametrize("wrong", ["cart_pole", CartPole])
def test_what_is_no_family_is_refused(wrong):
    with pytest.raises(ConfigError, match="family of tasks"):
        meta_train(wrong)


def test_a_typo_in_a_setting_is_named():
    with pytest.raises(ConfigError, match="Did you mean"):
        train(lifetime=8)


def test_train_recurrent_is_what_meta_train_calls():
    config = metaql.RecurrentConfig(**SETTINGS)
    agent = train_recurrent(
        CartPole.toy(), config, seed=3, run=None, resume=False, on_progress=lambda *_: None
    )
    assert bits(agent) == bits(train())


def test_settings_are_those_given_else_what_suits_the_family_else_the_usual_ones():
    usual = RecurrentConfig()
    assert settings_for(Acrobot.toy(), "auto", {}, "here") == RecurrentConfig(
        discount=0.995, episode_discount=0.3
    )
    given = settings_for(Acrobot.toy(), "recurrent", {"discount": 0.9}, "here")
    assert (given.discount, given.episode_discount, given.trace) == (0.9, 0.3, usual.trace)
    moving = settings_for(Changing(Acrobot.toy()), "recurrent", {}, "here")
    assert moving.discount == 0.995
    assert settings_for(GridNavi.toy(), "recurrent", {}, "here") == usual
    # BeliefQ has settings of its own.
    assert settings_for(RandomMDP.toy(), "belief", {}, "here") == MetaTrainConfig()
    assert settings_for(RandomMDP.toy(), "recurrent", {}, "here").trace == 1.0
    family, few = KeyToDoor.toy(), {**SETTINGS, "env_steps": 1}
    assert meta_train(family, **few).card["train"]["episode_discount"] == 0.3
    whole = meta_train(family, config=RecurrentConfig(), **few)
    assert whole.card["train"]["episode_discount"] == usual.episode_discount


def test_features_of_numbered_states_are_refused():
    with pytest.raises(ConfigError, match="`features` are for observations that are vectors"):
        meta_train(GridNavi(5, horizon=20), agent="recurrent", **{**SETTINGS, "features": 4})
