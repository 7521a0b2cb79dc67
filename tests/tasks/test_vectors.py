"""Environments whose observations are vectors, on the host."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from metaql.errors import EnvironmentFaultError, UnsupportedSpaceError, UsageError
from metaql.tasks.actions import Actions
from metaql.tasks.host import open_environment
from metaql.tasks.vectors import open_vectors


class Scripted(gymnasium.Env):
    """Answers with the observations and rewards it is given."""

    def __init__(self, observations, rewards=(0.0,), space=None, actions=None):
        low = np.array([-1.0, -np.inf], np.float32)
        self.observation_space = space or spaces.Box(low, -low)
        self.action_space = actions or spaces.Discrete(2, start=3)
        self.observations, self.rewards, self.taken = list(observations), list(rewards), []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observations[0], {}

    def step(self, action):
        self.taken.append(action)
        number = len(self.taken)
        return self.observations[number], self.rewards[number - 1], False, False, {}


def vector(*entries):
    return np.array(entries, np.float32)


def test_observations_come_back_as_float32_vectors():
    host = open_vectors(Scripted([vector(0.5, 9.0), np.array([1.0, -3.0])]))
    assert (host.num_states, host.num_actions) == (2, 2)
    np.testing.assert_array_equal(host.reset(0), vector(0.5, 9.0))
    answer = host.step(1)
    np.testing.assert_array_equal(answer.next_state, vector(1.0, -3.0))
    assert answer.next_state.dtype == np.float32
    assert host.env.taken == [4]  # action 1 of a space that starts at 3


def test_a_dictionary_is_flattened():
    space = spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(-1, 1, (2,))})
    host = open_vectors(Scripted([{"a": 1, "b": vector(0.25, -0.5)}], space=space))
    assert host.num_states == 5
    np.testing.assert_allclose(host.reset(0), [0, 1, 0, 0.25, -0.5])


def test_levels_are_what_the_environment_gets():
    torque = spaces.Box(-2.0, 2.0, (1,))
    env = Scripted([vector(0, 0), vector(0, 0)], actions=torque)
    host = open_vectors(env, (-1.0, 0.0, 1.0))
    assert host.num_actions == 3
    host.reset(0)
    host.step(0)
    np.testing.assert_array_equal(env.taken[0], vector(-2.0))
    assert env.taken[0] in torque


def test_an_action_of_several_parts():
    """Two joints of other ranges: levels are shares of each; every part is checked."""
    low, high = vector(-2.0, 0.0), vector(2.0, 1.0)
    env = Scripted([vector(0, 0)] * 2, actions=spaces.Box(low, high))
    host = open_vectors(env, (-1.0, 0.5, 1.0))
    assert host.spec(1).action_mask.shape == (2, 3)
    host.reset(0)
    host.step(np.array([0, 1]))
    np.testing.assert_allclose(env.taken[0], [-2.0, 0.75])
    assert env.taken[0] in env.action_space
    host.reset(0)
    for wrong in (1, np.array([0, 3]), np.array([-1, 0]), np.zeros(2), np.zeros(3, int)):
        with pytest.raises(UsageError, match="2 parts"):
            host.step(wrong)


def test_parts_with_fewer_actions_are_padded():
    env = Scripted([vector(0, 0)] * 2, actions=spaces.MultiDiscrete([2, 3], start=[0, 5]))
    host = open_vectors(env)
    np.testing.assert_array_equal(host.spec(1).action_mask, [[1, 1, 0], [1, 1, 1]])
    host.reset(0)
    with pytest.raises(UsageError):
        host.step(np.array([2, 2]))
    host.step(np.array([1, 2]))
    np.testing.assert_array_equal(env.taken[0], [1, 7])
    assert env.taken[0] in env.action_space


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (vector(0.0, np.nan), "nan"),
        (vector(2.0, 0.0), r"2\."),
        (vector(0.0), r"step 1 of an episode of Scripted"),
        ("north", "north"),
    ],
)
def test_an_observation_outside_its_space_is_named(bad, words):
    host = open_vectors(Scripted([vector(0, 0), bad]))
    host.reset(0)
    with pytest.raises(EnvironmentFaultError, match=words):
        host.step(0)


def test_a_reward_that_is_no_number_is_named():
    host = open_vectors(Scripted([vector(0, 0)] * 2, rewards=[np.inf]))
    host.reset(0)
    with pytest.raises(EnvironmentFaultError, match="inf"):
        host.step(0)


@pytest.mark.parametrize(
    ("actions", "levels"),
    [
        (spaces.Box(-np.inf, np.inf, (2,)), (0.0,)),
        (spaces.Box(-1.0, 1.0, (1,)), None),
        (spaces.Box(-1.0, 1.0, (1,)), ()),
        (spaces.Box(-1.0, 1.0, (1,)), (0.0, 3.0)),
        (spaces.MultiBinary(3), None),
    ],
)
def test_action_spaces_that_cannot_be_used_are_refused(actions, levels):
    with pytest.raises(UnsupportedSpaceError):
        open_vectors(Scripted([vector(0, 0)], actions=actions), levels)


def test_observations_without_a_fixed_size_are_refused():
    words = spaces.Text(5)
    space = spaces.Sequence(words)
    with pytest.raises(UnsupportedSpaceError, match="flattens"):
        open_vectors(Scripted(["a"], space=space))


def test_a_batch_is_checked_and_told_from_a_single_one():
    host = open_vectors("CartPole-v1")
    rows, single = host.batch(np.zeros((3, 4), np.float32))
    assert rows.shape == (3, 4)
    assert not single
    rows, single = host.batch(np.zeros(4))
    assert rows.shape == (1, 4)
    assert single
    with pytest.raises(UsageError):
        host.batch(np.full(4, np.nan))


@pytest.mark.parametrize("wrong", [[[0.0] * 4, [0.0] * 3], np.zeros((2, 2, 4)), "north", None])
def test_what_is_no_observation_is_refused(wrong):
    with pytest.raises(UsageError):
        open_vectors("CartPole-v1").batch(wrong)


def test_no_observations_are_a_batch_too():
    rows, single = open_vectors("CartPole-v1").batch(np.zeros((0, 4)))
    assert rows.shape == (0, 4)
    assert not single


def test_an_opened_environment_is_opened_again_as_it_is_needed():
    lake = open_environment("FrozenLake-v1")
    as_vectors = open_vectors(lake)
    assert as_vectors.num_states == 16
    assert open_environment(as_vectors).spec(1).state_mask.shape == (16,)
    with pytest.raises(UnsupportedSpaceError):
        open_environment(open_vectors("CartPole-v1"))
    with pytest.raises(UsageError, match="max_episode_steps"):
        open_vectors(as_vectors, max_episode_steps=5)
    weak, strong = (-0.5, 0.0, 0.5), (-1.0, 0.0, 1.0)
    assert open_vectors(open_vectors("Pendulum-v1", weak), strong).action(0) == -2.0


def test_whole_actions_are_the_nearest_ones_and_found_again():
    actions = Actions(spaces.Box(0, 3, (1,), np.int32), (-1.0, -0.5, 0.0, 0.5, 1.0))
    taken = [int(actions(index)[0]) for index in range(5)]
    assert taken == [0, 1, 2, 2, 3]
    found = actions.indices(np.array(taken)[:, None])
    assert [int(actions(index)[0]) for index in found] == taken


def test_an_entry_that_cannot_move_has_its_value_at_every_level():
    low, high = np.array([-1.0, 2.0]), np.array([1.0, 2.0])
    actions = Actions(spaces.Box(low, high, dtype=np.float64), (-1.0, 0.0, 1.0))
    taken = np.array([[1.0, 2.0], [-1.0, 2.0], [0.0, 3.5]])
    found = actions.indices(taken)
    assert found[:, 0].tolist() == [2, 0, 1]
    assert (found[:2, 1] >= 0).all()
    assert found[2, 1] == -1
