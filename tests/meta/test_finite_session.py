"""FiniteQ trained on one family: its prior, what is kept, and what is refused."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metaql
from metaql.cli.training import tell_if_unfinished
from metaql.config import to_dict
from metaql.embedding.arms import condition
from metaql.errors import CheckpointError, ConfigError, UsageError
from metaql.meta.agent import load_shipped
from metaql.meta.calibrate import verdicts
from metaql.meta.config import CONFIGS, agent_with, config_class, settings_for
from metaql.meta.finite_session import lifetime_in, most_successors, sizes
from metaql.meta.lifetime import live
from metaql.meta.loop import described
from metaql.tasks.families import Bandit, CartPole, Chain, FrozenLake, Mixture, RandomMDP
from metaql.tasks.families.custom import ArrayFamily
from metaql.tasks.finite import NO_HORIZON
from metaql.types import Transition

KEY = jax.random.key(0)
SHORT = {
    "agents": 32,
    "segment_steps": 16,
    "env_steps": 4 * 32 * 16,
    "checkpoint_every": 1,
    "interval_tasks": 0,
}


@pytest.fixture(scope="module")
def of_coins(tmp_path_factory):
    """Trained where a folder has the name of the shipped agent, and is another one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        metaql.load("frozen_lake").save("finite")
        return metaql.meta_train(Bandit(5, horizon=10), agent="finite", **SHORT)


def test_the_prior_is_that_of_the_family(of_coins):
    agent = of_coins
    prior = agent.priors["one_state"]
    assert float(prior.unit) == pytest.approx(1.0)
    assert float(prior.pair_two.mean) == pytest.approx(0.5, abs=0.1)  # coins, uniform in [0, 1]
    assert float(prior.pair_two.between) == pytest.approx(1.0 / 12.0, abs=0.04)
    sizes_of_bandits = {"states": [1, 1], "actions": [5, 5], "horizon": [10, 10]}
    assert sizes_of_bandits.items() <= agent.card["range"]["one_state"].items()


def test_of_tasks_of_the_other_kind_it_believes_what_the_shipped_agent_does(of_coins):
    agent, usual = of_coins, load_shipped("finite")
    own, theirs = (each.priors["many_states"] for each in (agent, usual))
    jax.tree.map(np.testing.assert_array_equal, own, theirs)
    for name in ("curiosities", "calibrations"):
        jax.tree.map(np.testing.assert_array_equal, getattr(agent, name), getattr(usual, name))
    assert agent.card["range"]["many_states"] == usual.card["range"]["many_states"]


def test_where_nothing_was_paid_nothing_is_learned_of_rewards():
    class Silent(Chain):
        def sample(self, key, split):
            task = super().sample(key, split)
            return task._replace(reward=jnp.zeros_like(task.reward))

    agent, usual = metaql.meta_train(Silent(), agent="finite", **SHORT), load_shipped("finite")
    own, before = (each.priors["many_states"] for each in (agent, usual))
    np.testing.assert_array_equal(own.unit, before.unit)
    jax.tree.map(np.testing.assert_array_equal, own.arrival_two, before.arrival_two)
    assert not np.array_equal(own.log_spread, before.log_spread)


@pytest.mark.parametrize("fault", [KeyboardInterrupt, MemoryError])
def test_a_training_that_was_interrupted_goes_on_to_the_same_agent(fault, tmp_path):
    family = RandomMDP.toy()
    whole = metaql.meta_train(family, agent="finite", seed=3, **SHORT)

    def interrupt(stage, done, row):
        if done == 0.5:
            raise fault

    how = {"agent": "finite", "seed": 3, "run": tmp_path, **SHORT, "checkpoint_every": 100}
    with pytest.raises(fault):
        metaql.meta_train(family, on_progress=interrupt, **how)
    assert metaql.load(tmp_path).card["env_steps"] == 2 * 32 * 16
    resumed = metaql.meta_train(family, resume=True, **how)
    jax.tree.map(np.testing.assert_array_equal, resumed.priors, whole.priors)
    kept = metaql.load(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, kept.priors, whole.priors)
    assert kept.card == resumed.card
    assert resumed.card["env_steps"] == whole.card["env_steps"] == 4 * 32 * 16
    with pytest.raises(CheckpointError, match="trained by a FiniteConfig, asked for a Meta"):
        metaql.meta_train(family, agent="belief", resume=True, seed=3, run=tmp_path)
    other = RandomMDP(5, 3, kind="sparse")
    with pytest.raises(CheckpointError, match=r"family it was started with.*'dense'.*'sparse'"):
        metaql.meta_train(other, resume=True, **how)


def test_without_training_it_is_the_shipped_agent(tmp_path):
    def stop(stage, done, row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        metaql.meta_train(Chain.toy(), agent="finite", run=tmp_path, on_progress=stop, **SHORT)
    usual = load_shipped("finite")
    jax.tree.map(np.testing.assert_array_equal, metaql.load(tmp_path).priors, usual.priors)


def test_successors_and_sizes_are_those_of_the_tasks():
    dense = RandomMDP(6, 3).tasks(KEY, 4, "train")
    assert most_successors(dense) == 6
    assert most_successors(Chain.toy().tasks(KEY, 4, "train")) == 4  # as many as there is room for
    assert sizes(dense) == {"states": [6, 6], "actions": [3, 3], "horizon": [10, 10]}
    assert "horizon" not in sizes(dense._replace(horizon=dense.horizon.at[0].set(2**31 - 1)))


def test_as_many_successors_are_remembered_as_the_family_has():
    agent = metaql.meta_train(RandomMDP(12, 2), agent="finite", **SHORT)
    adapted = agent.adapt(gymnasium.make("FrozenLake-v1"), episodes=2)
    assert len(adapted.returns) == 2
    assert "states 16 (trained with 12)" in adapted.warnings[0]
    assert agent.learner_for(12, 2).slots == 12
    assert agent.learner_for(12, 2, slots=20).slots == 20


@pytest.mark.parametrize(
    ("family", "settings", "words"),
    [
        (CartPole.toy(), {}, "learn finite families only"),
        (Mixture([Bandit.toy(), Chain.toy()]), {}, "one family"),
        (Chain.toy(), {"agents": 0}, "`agents` must be at least 1"),
        (Chain.toy(), {"interval_tasks": -1}, "`interval_tasks` must be at least 0"),
        (Chain.toy(), {"lifetimes": 8}, "agent 'belief' or 'recurrent'"),
        (Chain.toy(), {"lifetime": 8}, "lifetime"),
    ],
)
def test_what_does_not_fit_is_refused(family, settings, words):
    with pytest.raises(ConfigError, match=words):
        settings_for(family, "finite", settings, "meta_train")


def test_it_is_the_usual_agent_where_states_have_no_numbers_in_common():
    assert config_class(Chain.toy(), "auto") is metaql.FiniteConfig
    assert config_class(FrozenLake.toy(), "auto") is metaql.MetaTrainConfig
    assert config_class(Mixture([Bandit.toy(), Bandit(3)]), "auto") is metaql.MetaTrainConfig
    assert config_class(CartPole.toy(), "auto") is metaql.RecurrentConfig
    assert config_class(Chain.toy(), "belief") is metaql.MetaTrainConfig


@pytest.mark.parametrize("shared", [False, True])
def test_of_bandits_it_is_the_usual_agent(shared):
    """One state is the same one in every task, and that tells nothing."""
    bandit = Bandit.toy()
    family = ArrayFamily(lambda key: bandit.sample(key, "train"), shares_states=shared)
    assert config_class(family, "auto") is metaql.FiniteConfig


@pytest.mark.parametrize("name", ["belief", "finite", "recurrent"])
def test_settings_tell_the_agent_they_are_of(name):
    settings = to_dict(CONFIGS[name]())
    assert agent_with(settings) == name
    for key in settings:
        older = {other: value for other, value in settings.items() if other != key}
        assert agent_with(older) == name
        assert agent_with({**older, "of_another_version": 1}) == name
    assert agent_with({"of_another_version": 1}) == "auto"


def test_the_remedy_names_an_agent_that_can_learn_the_family():
    several = Mixture([Bandit.toy(), Chain.toy()])
    with pytest.raises(ConfigError) as caught:
        settings_for(several, "recurrent", {"agents": 8}, "meta_train")
    assert "--agent belief" in caught.value.remedy
    assert "--agent finite" not in caught.value.remedy
    with pytest.raises(ConfigError, match="must be a FiniteConfig") as caught:
        metaql.meta_train(Chain.toy(), config=metaql.MetaTrainConfig())
    assert caught.value.remedy == "Ask for agent='belief'."


JUDGED = {**SHORT, "interval_tasks": 8}


def test_intervals_are_fitted_at_the_end_and_for_its_own_kind(tmp_path):
    """Interrupted while they are, it goes on to the same."""
    family, stages = Bandit(3, horizon=10), []
    whole = metaql.meta_train(
        family, agent="finite", on_progress=lambda *at: stages.append(at[:2]), **JUDGED
    )
    usual = load_shipped("finite")
    assert not np.array_equal(
        whole.calibrations["one_state"].weights, usual.calibrations["one_state"].weights
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        whole.calibrations["many_states"],
        usual.calibrations["many_states"],
    )
    assert whole.card["intervals"] == "fitted in 8 lifetimes of 32 steps"
    assert stages[-6:] == [("intervals", done / 16) for done in (0, 1, 2, 4, 8, 16)]

    def interrupt(stage, done, row):
        if stage == "intervals" and done == 0.5:
            raise KeyboardInterrupt

    how = {"agent": "finite", "run": tmp_path, **JUDGED}
    with pytest.raises(KeyboardInterrupt):
        metaql.meta_train(family, on_progress=interrupt, **how)
    assert metaql.load(tmp_path).card["env_steps"] == whole.card["env_steps"]
    told = []
    tell_if_unfinished(metaql.load(tmp_path), tmp_path, told.append)
    assert "without intervals of its own" in told[0]
    resumed = metaql.meta_train(family, resume=True, **how)
    for agent in (resumed, metaql.load(tmp_path)):
        jax.tree.map(np.testing.assert_array_equal, agent.calibrations, whole.calibrations)
        tell_if_unfinished(agent, tmp_path, pytest.fail)


def test_lifetimes_that_intervals_are_fitted_in_suit_the_family():
    assert lifetime_in(Bandit(3, horizon=100).tasks(KEY, 1)) == (96, 1)
    assert lifetime_in(Bandit(3, horizon=30).tasks(KEY, 1)) == (32, 1)
    assert lifetime_in(Bandit(3, horizon=20).tasks(KEY, 1)) == (16, 1)
    assert lifetime_in(Bandit(3, horizon=1).tasks(KEY, 1)) == (32, 32)
    assert lifetime_in(RandomMDP().tasks(KEY, 1)) == (192, 20)
    assert lifetime_in(FrozenLake().tasks(KEY, 1)) == (640, 20)
    over = Bandit(3, horizon=100).tasks(KEY, 1)
    assert lifetime_in(over._replace(termination=jnp.ones_like(over.termination))) == (96, 96)
    endless = RandomMDP().tasks(KEY, 1)
    endless = endless._replace(horizon=jnp.full_like(endless.horizon, NO_HORIZON))
    assert lifetime_in(endless) == (640, 20)


@pytest.mark.slow
def test_intervals_of_its_own_hold_in_nine_of_ten_cases():
    family = Bandit(10, horizon=32, kind="tastes")
    own, usual = metaql.meta_train(family, agent="finite"), load_shipped("finite")
    tasks = family.tasks(KEY, 128, "validation")
    held = [
        verdicts(
            own.learner_for(1, 10), calibration, tasks, KEY, num_steps=32, episodes=1
        ).coverage()
        for calibration in (own.calibrations["one_state"], usual.calibrations["one_state"])
    ]
    assert 0.85 < held[0] < 0.95
    assert held[1] < 0.7  # those of all bandits: arms that tell of each other make them too sure


@pytest.fixture(scope="module")
def of_tastes():
    family = Bandit(6, horizon=10, kind="tastes")
    return metaql.meta_train(family, agent="finite", **{**SHORT, "agents": 64})


def test_arms_that_are_told_apart_are_kept(of_tastes, tmp_path):
    of_tastes.save(tmp_path)
    kept, own = metaql.load(tmp_path).priors["one_state"], of_tastes.priors["one_state"]
    assert own.arms is not None
    assert "6 arms told apart" in repr(of_tastes)
    jax.tree.map(np.testing.assert_array_equal, kept, own)


def test_of_other_numbers_of_arms_none_is_told_apart(of_tastes):
    assert of_tastes.learner_for(1, 6).prior.arms is not None
    assert of_tastes.learner_for(4, 6, prior="one_state").prior.arms is None  # its rows are no arms
    learner = of_tastes.learner_for(1, 4)
    assert learner.prior.arms is None
    lives = live(learner, Bandit(4, horizon=5).tasks(KEY, 2), jax.random.split(KEY), episodes=1)
    assert np.isfinite(lives.returns).all()


class Clinic(gymnasium.Env):
    """Treatments that help for certain, or not at all."""

    observation_space = gymnasium.spaces.Discrete(1)

    def __init__(self, arms):
        self.action_space = gymnasium.spaces.Discrete(arms)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 0, float(action == 1), False, False, {}


@pytest.mark.parametrize(("arms", "told"), [(6, False), (4, True)])
def test_of_arms_that_are_of_no_use_it_says_so(of_tastes, arms, told):
    clinic = gymnasium.wrappers.TimeLimit(Clinic(arms), 10)
    warnings = of_tastes.adapt(clinic, episodes=1).warnings
    assert any("each of 6 arms is of no use here" in words for words in warnings) == told


def test_what_one_pull_of_each_arm_is_worth(of_tastes):
    clinic = gymnasium.wrappers.TimeLimit(Clinic(4), 10)
    found = load_shipped("finite").adapt(clinic, episodes=2).arm_rewards()
    assert found.mean.argmax() == 1
    assert found.low[1] > 0.6
    assert (found.low <= found.mean).all()
    assert (found.mean <= found.high).all()
    assert (found.high - found.low)[1] < (found.high - found.low)[0]  # 1 was pulled most
    with pytest.raises(UsageError, match="a task of one state"):
        of_tastes.adapt("FrozenLake-v1", episodes=1).arm_rewards()


def test_arm_rewards_are_the_joint_posterior(of_tastes):
    clinic = gymnasium.wrappers.TimeLimit(Clinic(6), 10)
    adapted = of_tastes.adapt(clinic, episodes=1)
    tally, found = adapted.memory.evidence.pair, adapted.arm_rewards()
    exact = condition(adapted.learner.prior.arms, tally.visits[0], tally.reward[0])[0]
    np.testing.assert_allclose(found.mean, exact, atol=0.05)  # of two values: within them


def test_what_one_item_paid_tells_of_its_neighbours(of_tastes):
    """Item 0 paid much: the next is a neighbour, and not the one across."""
    learner = of_tastes.learner_for(1, 6)
    task = Bandit(6, horizon=10, kind="tastes").tasks(KEY, 1)
    spec = jax.tree.map(lambda leaf: leaf[0], task).spec(1)
    memory, here, no = learner.init(KEY, spec), jnp.asarray(0), jnp.asarray(False)
    paid = Transition(here, jnp.asarray(0), jnp.float32(3.0), here, no, no)
    estimate = learner.act(KEY, learner.update(KEY, memory, paid), here).estimate
    apart = estimate - estimate[3]
    assert float(apart[0]) > 1.5
    assert min(float(apart[1]), float(apart[5])) > 0.8


def lived_with_and_without(family):
    """Validation bandits of ten arms, and what a prior of the family and that of all tasks earned in them."""
    own = metaql.meta_train(family, agent="finite")
    key_tasks, key_lives = jax.random.split(KEY)
    tasks = family.tasks(key_tasks, 1_024, "validation")
    keys = jax.random.split(key_lives, 1_024)
    return tasks, [
        live(agent.learner_for(1, 10), tasks, keys, episodes=1).returns.sum(1)
        for agent in (own, metaql.load("finite"))
    ]


@pytest.mark.slow
def test_items_that_go_together_are_found_in_half_the_regret():
    tasks, totals = lived_with_and_without(Bandit(10, horizon=20, kind="tastes"))
    best = 20.0 * np.asarray(tasks.reward[:, 0, :, 0].max(-1))
    regrets = [(best - each).mean() for each in totals]
    assert regrets[0] < 0.5 * regrets[1]  # 6.0 and 12.8 in 4,000 tasks


@pytest.mark.slow
def test_a_prior_of_the_family_is_worth_more_than_that_of_all_tasks():
    _, totals = lived_with_and_without(Bandit(10, horizon=100, kind="deceptive"))
    gain = totals[0] - totals[1]  # 3.2 in 4,000 tasks
    assert gain.mean() > 2.5 * gain.std() / np.sqrt(len(gain))
    assert gain.mean() > 1.5


def test_a_family_is_described_alike_in_every_process():
    """Functions are printed with their address, arrays with their shapes."""

    def draw(key):
        return key

    def family():
        return SimpleNamespace(draw=draw, of=functools.partial(draw, key=3), by=lambda key: key)

    assert described(family()) == described(family())
    assert " at 0x" not in described(family())
    assert "\n" not in described(RandomMDP.toy())
    assert described(RandomMDP(9)) != described(RandomMDP(8))


def test_a_run_of_another_version_goes_on(tmp_path, monkeypatch):
    """What describes a family may have changed with the version."""

    def stop(stage, done, row):
        raise KeyboardInterrupt

    how = {"agent": "finite", "run": tmp_path, **SHORT}
    monkeypatch.setattr("metaql.meta.loop.version", lambda name: "0.0.1")
    with pytest.raises(KeyboardInterrupt):
        metaql.meta_train(RandomMDP(5, 3, horizon=9), on_progress=stop, **how)
    monkeypatch.undo()
    agent = metaql.meta_train(RandomMDP(5, 3), resume=True, **how)
    assert agent.card["env_steps"] == SHORT["env_steps"]
