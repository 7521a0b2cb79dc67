"""Meta-training from logs: lifetimes are those of the logs, and what they show is learned."""

from __future__ import annotations

import gymnasium
import jax
import numpy as np
import pytest

from metaql.errors import CheckpointError, DatasetError
from metaql.meta.logged_train import LoggedSession, drawn
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.replay import replayed
from metaql.meta.train import meta_train
from metaql.tasks.logged import LoggedFamily

SETTINGS = {
    "episodes": (2, 3),
    "hidden": 8,
    "width": 16,
    "lifetimes": 32,
    "minibatches": 2,
    "epochs": 2,
    "learning_rate": 1e-2,
}


class Lever(gymnasium.Env):
    """Two steps; one of two levers pays 1, which one is the task."""

    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, task):
        self.task = task

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.clock += 1
        pays = float(action == self.task)
        return np.full(1, self.clock / 2, np.float32), pays, self.clock == 2, False, {}


def lever(task):
    return gymnasium.wrappers.TimeLimit(Lever(task), 5)


def random_log(task, episodes=40):
    """Somebody who acts at random."""
    rng = np.random.default_rng(task)
    actions = rng.integers(0, 2, 2 * episodes)
    late = np.arange(2 * episodes) % 2
    return {
        "observations": (late[:, None] / 2).astype(np.float32),
        "actions": actions,
        "rewards": (actions == task).astype(float),
        "next_observations": ((late[:, None] + 1) / 2).astype(np.float32),
        "terminations": late == 1,
    }


@pytest.fixture(scope="module")
def family():
    return LoggedFamily({task: random_log(task) for task in (0, 1)}, lever(0), name="levers")


def test_lifetimes_are_successive_episodes_of_one_task(family):
    config = RecurrentConfig(episodes=(2, 3), segment_steps=6)
    lives = drawn(family.logs, family.host.spec(1), jax.random.key(1), config, 64)
    budget = np.asarray(lives.spec.episodes)
    assert set(budget) == {2, 3}
    alive = np.asarray(lives.alive)
    np.testing.assert_array_equal(alive.sum(1), 2 * budget)
    seen = jax.tree.map(np.asarray, lives.note.transition)
    # Reward and action tell the task: in a lifetime it is one, over lifetimes both.
    task = np.where(seen.reward == 1, seen.action, 1 - seen.action)
    for row, live in zip(task, alive, strict=True):
        assert len(set(row[live])) == 1
    assert set(task[:, 0]) == {0, 1}
    np.testing.assert_array_equal(np.asarray(lives.episode)[:, :4], [[0, 0, 1, 1]] * 64)
    np.testing.assert_array_equal(np.asarray(lives.note.clock.step)[:, :4], [[0, 1, 0, 1]] * 64)
    starts = seen.state[:, 0, 0]
    np.testing.assert_array_equal(starts, 0.0)


@pytest.mark.slow
def test_what_random_logs_show_is_enough_to_adapt(family):
    """One pull tells the task: all later ones pay."""
    agent = meta_train(family, env_steps=60_000, seed=0, **SETTINGS)
    assert agent.family_name == "levers"
    for task in (0, 1):
        returns = agent.adapt(lever(task), episodes=3).returns
        np.testing.assert_array_equal(returns[1:], 2.0)


def test_the_trace_is_cut_where_another_action_was_taken(family):
    """With a trace of 1, returns go on through greedy actions only."""
    session = LoggedSession(
        family, RecurrentConfig(**SETTINGS, trace=1.0), 0, None, lambda *_: None
    )
    learner = session.start().learner
    lives = drawn(session.logs, session.spec, jax.random.key(2), session.config, 16)
    for index in range(16):
        life = jax.tree.map(lambda leaf, i=index: leaf[i], lives)
        found = replayed(learner, life, session.config, cut=True)
        values = np.asarray(found.values)
        action = np.asarray(life.note.transition.action)
        reward = np.asarray(life.note.transition.reward)
        steps = 2 * int(life.spec.episodes)
        expected, value = np.zeros(steps), 0.0
        for t in reversed(range(steps)):
            last = t == steps - 1
            discount = 0.95 * (0.8 if t % 2 else 1.0) * (not last)
            if not last and action[t + 1] != values[t + 1].argmax():
                value = values[t + 1].max()  # bootstrap: it goes on otherwise than was lived
            value = reward[t] / float(learner.scale) + discount * value
            expected[t] = value
        target = np.asarray(found.taken - found.error)[:steps]
        np.testing.assert_allclose(target, expected, rtol=1e-4, atol=1e-5)


def test_a_resumed_run_gives_the_same_weights(family, tmp_path):
    settings = {**SETTINGS, "env_steps": 5_000, "checkpoint_every": 2}
    whole = meta_train(family, seed=3, **settings)

    def stop(stage, done, metrics):
        if done > 0.6:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        meta_train(family, seed=3, run=tmp_path, on_progress=stop, **settings)
    again = meta_train(family, seed=3, run=tmp_path, resume=True, **settings)
    for a, b in zip(jax.tree.leaves(whole.learner), jax.tree.leaves(again.learner), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_run_is_neither_written_over_nor_resumed_with_another_seed(family, tmp_path):
    settings = {**SETTINGS, "env_steps": 500, "run": tmp_path}
    first = meta_train(family, seed=3, **settings)
    with pytest.raises(CheckpointError, match="without checkpoints"):
        meta_train(family, seed=4, **settings)
    with pytest.raises(CheckpointError, match="of seed 3, asked for 4"):
        meta_train(family, seed=4, resume=True, **settings)
    again = meta_train(family, seed=3, resume=True, **settings)
    np.testing.assert_array_equal(
        first.learner.network.out.weight, again.learner.network.out.weight
    )


def test_a_log_shorter_than_a_lifetime_is_named(family):
    with pytest.raises(DatasetError, match="Task 0 has 40"):
        meta_train(family, **{**SETTINGS, "episodes": (2, 41)})
