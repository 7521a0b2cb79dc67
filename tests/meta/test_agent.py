"""An agent: adapted to host environments, saved, loaded, and clear about what it cannot do."""

from __future__ import annotations

import dataclasses

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import metaql
from metaql.embedding.statistics import Tally, empty
from metaql.errors import (
    CheckpointError,
    ConfigError,
    EnvironmentFaultError,
    UnknownNameError,
    UnsupportedSpaceError,
    UsageError,
)
from metaql.meta.agent import Agent, load
from metaql.meta.lifetime import begin, live_step, turn
from metaql.policy.beliefq import BeliefConfig, BeliefQ
from metaql.tasks.finite import finite_task

CONFIG = BeliefConfig(embedding=4, hidden=8, sweeps=2, first_sweeps=8)


class Corridor(gymnasium.Env):
    """Cells 10 .. 14, from 10; action 5 goes left, 6 right. The right end pays 1 and terminates.

    Truncates after ``patience`` steps; raises on step ``fails_at`` of its life.
    """

    def __init__(self, patience=30, fails_at=None):
        self.observation_space = spaces.Discrete(5, start=10)
        self.action_space = spaces.Discrete(2, start=5)
        self.patience, self.fails_at, self.age = patience, fails_at, 0
        self.resets = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.resets.append(seed)
        self.cell, self.clock = 10, 0
        return self.cell, {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.age, self.clock = self.age + 1, self.clock + 1
        if self.age == self.fails_at:
            raise RuntimeError("motor stalled")
        self.cell = int(np.clip(self.cell + (1 if action == 6 else -1), 10, 14))
        done = self.cell == 14
        return self.cell, float(done), done, self.clock >= self.patience and not done, {}


def corridor_prior(strength=200.0):
    """What an agent knows who has often walked the corridor."""
    moves = np.zeros((5, 2, 5))
    for s in range(5):
        moves[s, 0, max(s - 1, 0)] = moves[s, 1, min(s + 1, 4)] = strength
    moves[4] = 0.0
    arrivals = moves.sum((0, 1))
    goal = np.eye(5)[4]
    pair = moves[..., 4]
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32),
        empty(5, 2)._replace(
            transitions=moves,
            pair=Tally(moves.sum(-1), pair, pair),
            arrival=Tally(arrivals, arrivals * goal, arrivals * goal),
            reward_peak=np.ones(()),
            reward_square=np.ones(()),
        ),
    )


@pytest.fixture(scope="module")
def agent():
    learner = BeliefQ(jax.random.key(0), config=CONFIG)
    priors = {"corridor/5x2": corridor_prior(), "lake/16x4": empty(16, 4)}
    return Agent(learner=learner, priors=priors, family_name="corridor", card={"seed": 0})


@pytest.fixture(scope="module")
def adapted(agent):
    return agent.adapt(Corridor(), episodes=3)


def test_a_known_corridor_is_walked_straight(adapted):
    np.testing.assert_array_equal(adapted.returns, [1.0, 1.0, 1.0])
    np.testing.assert_array_equal(adapted.lengths, [4, 4, 4])
    assert float(adapted.memory.evidence.steps) == 12
    assert float(adapted.memory.evidence.pair.ends[3, 1]) == 3


def test_the_corridor_is_worth_more_the_nearer_the_goal(adapted):
    table = adapted.q_table()
    assert (np.diff(table[:4, 1]) > 0).all()
    assert (table[:4].argmax(1) == 1).all()


def test_q_table_is_what_the_corridor_is_worth(adapted):
    """Horizon unknown: discount 0.99, one step from the goal is worth 1, two steps 0.99."""
    table = adapted.q_table()
    np.testing.assert_allclose(table[:4, 1], 0.99 ** np.array([3, 2, 1, 0]), atol=0.05)
    assert (table[:4, 1] > table[:4, 0]).all()


def test_a_lifetime_unlike_those_in_training_is_a_warning(agent, adapted):
    (endless,) = adapted.warnings
    assert "declares no time limit" in endless
    trained = dataclasses.replace(agent, card={"train": {"episodes": [5, 40]}})
    warning, also = trained.adapt(Corridor(), episodes=3).warnings
    assert also == endless
    assert "5 to 40 episodes, asked for 3" in warning


def test_predict_takes_what_stable_baselines_takes(adapted):
    action, state = adapted.predict(10)
    assert (action, state) == (6, None)  # action 1 of ours is the environment's 6
    assert isinstance(action, int)
    action, _ = adapted.predict(np.int64(13), None, True, deterministic=False)
    assert action in (5, 6)
    memory = object()
    actions, state = adapted.predict(np.array([10, 11, 13]), memory, np.array([True] * 3), True)
    np.testing.assert_array_equal(actions, [6, 6, 6])
    assert state is memory


@pytest.mark.parametrize("obs", [9, 15, -1, 10.5, np.array([10, 15]), np.array([[10]]), "10", None])
def test_an_observation_outside_the_space_is_a_usage_error(adapted, obs):
    with pytest.raises(UsageError, match="from 10 to 14"):
        adapted.predict(obs)


def test_every_episode_is_reported_and_reset_once(agent):
    told, env = [], Corridor()
    agent.adapt(env, episodes=3, seed=11, on_episode=lambda *row: told.append(row))
    assert told == [(0, 1.0, 4), (1, 1.0, 4), (2, 1.0, 4)]
    assert env.resets == [11, None, None]


def test_truncation_ends_an_episode_and_no_task(agent):
    result = agent.adapt(Corridor(patience=2), episodes=2)
    np.testing.assert_array_equal(result.lengths, [2, 2])
    assert float(result.memory.evidence.pair.ends.sum()) == 0
    assert float(result.memory.clock.episode) == 2


def test_what_was_learned_survives_a_failing_environment(agent):
    with pytest.raises(EnvironmentFaultError, match="motor stalled") as caught:
        agent.adapt(Corridor(fails_at=7), episodes=3)
    rest = caught.value.adapted
    np.testing.assert_array_equal(rest.returns, [1.0])
    assert float(rest.memory.evidence.steps) == 6
    assert rest.predict(12)[0] == 6


def test_seeds_of_numpy_are_seeds(agent):
    plain, numpys = (agent.adapt(Corridor(), episodes=2, seed=kind(3)) for kind in (int, np.int64))
    np.testing.assert_array_equal(plain.lengths, numpys.lengths)


def test_an_agent_whose_writer_was_killed_is_found(agent, tmp_path):
    agent.save(tmp_path / "agent")
    (tmp_path / "agent").rename(tmp_path / ".agent.previous")
    for name in (tmp_path, tmp_path / "agent"):
        assert load(name).family_name == agent.family_name


def test_a_prior_is_chosen_by_shape_by_name_or_not_at_all(agent):
    mine = agent.priors["corridor/5x2"].transitions
    assert agent.learner_for(5, 2).prior.transitions is mine
    assert agent.learner_for(5, 2, "corridor/5x2").prior.transitions is mine
    assert agent.learner_for(5, 2, None).prior is None
    assert agent.learner_for(7, 2).prior is None
    with pytest.raises(UnknownNameError, match="corridor/5x2") as caught:
        agent.learner_for(5, 2, "coridor/5x2")
    assert "Did you mean 'corridor/5x2'" in caught.value.remedy
    with pytest.raises(UsageError, match=r"shape \(16, 4\)"):
        agent.learner_for(5, 2, "lake/16x4")


def test_a_prior_is_used_from_the_first_step(agent):
    first = agent.adapt(Corridor(patience=6), episodes=1, prior=None)
    assert first.learner.prior is None
    assert float(agent.adapt(Corridor(), episodes=1).returns[0]) == 1.0


@pytest.mark.parametrize(
    ("env", "options", "error"),
    [
        ("CartPole-v1", {}, UnsupportedSpaceError),
        ("FrozenLake-v77", {}, UnknownNameError),
        ("FrozenLake-v1", {"episodes": 0}, UsageError),
        ("FrozenLake-v1", {"prior": "nobody"}, UnknownNameError),
    ],
)
def test_bad_requests_are_typed_errors(agent, env, options, error):
    with pytest.raises(error):
        agent.adapt(env, **options)


def test_frozen_lake_repeats_with_its_seed(agent):
    runs = [agent.adapt("FrozenLake-v1", episodes=4, seed=seed) for seed in (5, 5, 6)]
    np.testing.assert_array_equal(runs[0].returns, runs[1].returns)
    np.testing.assert_array_equal(runs[0].lengths, runs[1].lengths)
    jax.tree.map(np.testing.assert_array_equal, runs[0].memory, runs[1].memory)
    assert not np.array_equal(runs[0].lengths, runs[2].lengths)


def test_an_agent_comes_back_as_it_was_saved(agent, adapted, tmp_path):
    agent.save(tmp_path / "a")
    again = metaql.load(tmp_path / "a")
    assert again.family_name == "corridor"
    assert again.card == {"seed": 0}
    assert again.learner.config == CONFIG
    old, new = (jax.tree.leaves((x.learner, x.priors)) for x in (agent, again))
    for x, y in zip(old, new, strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y)) if hasattr(x, "dtype") else None
    repeated = again.adapt(Corridor(), episodes=3)
    np.testing.assert_array_equal(repeated.q_table(), adapted.q_table())
    np.testing.assert_array_equal(repeated.lengths, adapted.lengths)


def test_what_is_no_agent_is_a_checkpoint_error(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist") as caught:
        load(tmp_path / "nowhere")
    assert caught.value.exit_code == 2
    with pytest.raises(CheckpointError, match="Did you mean 'finite'"):
        load("finit")
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(CheckpointError, match="holds no agent"):
        load(tmp_path)


def test_an_agent_and_what_became_of_it_are_one_line_each(agent, adapted):
    assert repr(agent).startswith("Agent('corridor'")
    assert repr(adapted) == "Adapted(3 episodes, mean return 1, 5 states, 2 actions)"


@pytest.mark.parametrize("wrong", [{"episodes": 2.5}, {"episodes": 0}, {"seed": -1}])
def test_numbers_that_make_no_sense_are_usage_errors(agent, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        agent.adapt(Corridor(), **wrong)


def test_a_damaged_agent_is_refused(agent, tmp_path):
    agent.save(tmp_path / "a")
    tensors = tmp_path / "a" / "tensors.safetensors"
    raw = bytearray(tensors.read_bytes())
    raw[-5] ^= 4
    tensors.write_bytes(raw)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load(tmp_path / "a")


def test_the_host_path_is_the_scanned_path(agent):
    """The same transitions and keys through `turn` and through `live_step`: the same memory."""
    learner = agent.learner_for(5, 2)
    rng = np.random.default_rng(0)
    task = finite_task(
        rng.dirichlet(np.ones(5), (5, 2)), rng.random((5, 2)), termination=0.1, horizon=6
    )
    key = jax.random.key(4)
    start = jax.jit(lambda key: begin(learner, task, key, 5))(key)

    def body(life, _):
        key_update = jax.random.split(life.key, 5)[3]
        after, record = live_step(learner, task, life, life.memory)
        return after, (record.transition, key_update)

    end, (rows, keys) = jax.jit(lambda life: jax.lax.scan(body, life, length=20))(start)
    hosted = jax.jit(lambda *given: turn(learner, *given))
    memory = start.memory
    for t in range(20):
        last = jax.tree.map(lambda x, t=t: np.asarray(x[t]), rows)
        memory, decision = hosted(keys[t], memory, last, last.next_state)
    assert float(memory.evidence.steps) == 20
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), memory, end.memory)
    assert np.isfinite(decision.values).all()


def test_double_precision_is_named():
    jax.config.update("jax_enable_x64", True)
    try:
        with pytest.raises(ConfigError, match="JAX_ENABLE_X64"):
            load("finite")
    finally:
        jax.config.update("jax_enable_x64", False)
