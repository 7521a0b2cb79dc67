"""Families of logs: episodes and actions are those that were logged, and what is wrong is named."""

from __future__ import annotations

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from metaql.errors import DatasetError, UnsupportedSpaceError, UsageError
from metaql.tasks.logged import LoggedFamily


class Plain(gymnasium.Env):
    """Spaces and nothing else."""

    def __init__(self, observation, action):
        self.observation_space, self.action_space = observation, action


def log(lengths=(3, 2), entries=4, actions=None, **other):
    """Episodes of these lengths, the first one truncated, all others terminated."""
    steps = sum(lengths)
    ends = np.zeros(steps, bool)
    ends[np.cumsum(lengths) - 1] = True
    cut = ends & (np.arange(steps) < lengths[0])
    seen = np.arange(steps, dtype=np.float32)[:, None] * np.ones(entries, np.float32) * 0.01
    columns = {
        "observations": seen,
        "actions": np.arange(steps) % 2 if actions is None else actions,
        "rewards": np.arange(steps, dtype=float),
        "next_observations": seen + 0.005,
        "terminations": ends & ~cut,
        "truncations": cut,
    }
    return columns | other


def test_tasks_follow_one_another_and_episodes_are_found():
    family = LoggedFamily({"a": log(), "b": log((1, 4, 2))}, "CartPole-v1")
    logs = family.logs
    np.testing.assert_array_equal(logs.starts, [0, 3, 5, 6, 10, 12])
    np.testing.assert_array_equal(logs.first, [0, 2])
    np.testing.assert_array_equal(logs.episodes, [2, 3])
    assert [logs.longest(n) for n in (1, 2, 3, 9)] == [4, 6, 7, 7]
    assert logs.transition.state.shape == (12, 4)
    np.testing.assert_array_equal(logs.transition.reward[5:], np.arange(7))
    assert family.horizon == 500


def test_the_episode_that_a_log_breaks_off_in_is_left_out():
    broken = log()
    broken["terminations"] = np.zeros(5, bool)
    logs = LoggedFamily({0: broken}, "CartPole-v1").logs
    np.testing.assert_array_equal(logs.transition.truncated, [0, 0, 1])
    np.testing.assert_array_equal(logs.starts, [0, 3])
    assert logs.episodes.tolist() == [1]


def test_an_episode_as_long_as_they_last_is_over_and_a_log_of_one_is_kept():
    broken = log()
    broken["terminations"] = np.zeros(5, bool)
    logs = LoggedFamily({0: broken}, "CartPole-v1", horizon=2).logs
    np.testing.assert_array_equal(logs.transition.truncated, [0, 0, 1, 0, 1])
    broken["truncations"] = np.zeros(5, bool)
    logs = LoggedFamily({0: broken}, "CartPole-v1", horizon=9).logs
    np.testing.assert_array_equal(logs.transition.truncated, [0, 0, 0, 0, 1])


def test_actions_of_a_box_are_the_nearest_levels():
    box = Plain(spaces.Box(-1, 1, (4,)), spaces.Box(-2.0, 2.0, (2,)))
    taken = np.array([[-2, 2], [-0.9, 0.1], [0.6, 1.9], [0, 0], [1.1, -1.6]])
    family = LoggedFamily({0: log(actions=taken)}, box, levels=(-1.0, 0.0, 1.0), horizon=9)
    np.testing.assert_array_equal(
        family.logs.transition.action, [[0, 2], [1, 1], [1, 2], [1, 1], [2, 0]]
    )


def test_numbered_actions_are_counted_from_where_their_space_begins():
    several = Plain(spaces.Box(-1, 1, (4,)), spaces.MultiDiscrete([2, 3], start=[1, 5]))
    taken = np.array([[1, 5], [2, 7], [1, 6], [2, 5], [2, 6]])
    wrong = taken + np.array([0, 1])
    found = LoggedFamily({0: log(actions=taken)}, several, horizon=9).logs.transition.action
    np.testing.assert_array_equal(found, taken - [1, 5])
    with pytest.raises(DatasetError, match="Step 1 of task 'x'"):
        LoggedFamily({"x": log(actions=wrong)}, several, horizon=9)


def test_observations_that_gymnasium_flattens():
    space = spaces.Discrete(3, start=1)
    cells = np.array([1, 2, 3, 3, 2])
    family = LoggedFamily(
        {0: log(observations=cells, next_observations=cells)},
        Plain(space, spaces.Discrete(2)),
    )
    np.testing.assert_array_equal(family.logs.transition.state, np.eye(3)[cells - 1])
    assert family.horizon == 3  # of the episode that was truncated


def test_minari_is_read_by_its_episodes():
    episode = SimpleNamespace(
        observations=np.zeros((3, 4), np.float32),
        actions=np.array([1, 0]),
        rewards=np.ones(2),
        terminations=np.zeros(2, bool),
        truncations=np.zeros(2, bool),
    )
    dataset = SimpleNamespace(iterate_episodes=lambda: iter([episode, episode]))
    np.testing.assert_array_equal(LoggedFamily({0: dataset}, "CartPole-v1").logs.episodes, [2])


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        ({"actions": np.array([0, 1, 2, 0, 1])}, "Step 2 of task 'x' has"),
        ({"actions": np.full(5, 0.5)}, "Actions must lie in"),
        ({"observations": np.full((5, 4), 99.0)}, "Step 0 in `observations` of task 'x'"),
        ({"next_observations": np.full((5, 4), np.nan)}, "`next_observations`"),
        ({"observations": np.zeros((5, 3))}, "Observations must lie in"),
        ({"observations": np.full((5, 4), "far")}, "Observations must lie in"),
        ({"observations": np.zeros((4, 4))}, "one entry per step"),
        ({"rewards": np.full(5, np.inf)}, "finite numbers, 1e\\+15 at most. Task 'x': Step 0"),
    ],
)
def test_what_is_wrong_is_named(spoilt, words):
    with pytest.raises(DatasetError, match=words):
        LoggedFamily({"x": log(**spoilt)}, "CartPole-v1")


def test_without_logs_or_ends_there_is_nothing_to_learn():
    with pytest.raises(DatasetError, match="map every task"):
        LoggedFamily({}, "CartPole-v1")
    with pytest.raises(DatasetError, match="Got list of 1"):
        LoggedFamily([log()], "CartPole-v1")
    endless = Plain(spaces.Box(-1, 1, (4,)), spaces.Discrete(2))
    whole = log(truncations=np.zeros(5, bool), terminations=np.array([0, 0, 1, 0, 1], bool))
    broken = log(terminations=np.array([0, 0, 1, 0, 0], bool), truncations=np.zeros(5, bool))
    longer = log((2, 4))
    for logs in ({0: whole}, {0: broken}, {0: log(), 1: longer}):
        with pytest.raises(UnsupportedSpaceError, match="horizon"):
            LoggedFamily(logs, endless)
    with pytest.raises(DatasetError, match=r"Got NoneType\."):
        LoggedFamily(None, endless)
    for horizon in (0, -5, 2.5):
        with pytest.raises(UsageError, match="`horizon` must be"):
            LoggedFamily({0: whole}, endless, horizon=horizon)


@pytest.mark.parametrize("parts", [tuple, lambda pair: dict(zip("ab", pair, strict=True))])
def test_minari_has_an_array_for_each_part_of_an_observation(parts):
    seen = np.arange(3), np.arange(6, dtype=np.float32).reshape(3, 2) / 10
    episode = SimpleNamespace(
        observations=parts(seen), actions=np.array([1, 0]), rewards=np.ones(2),
        terminations=np.array([False, True]), truncations=np.zeros(2, bool),
    )  # fmt: skip
    dataset = SimpleNamespace(iterate_episodes=lambda: iter([episode]))
    held = spaces.Discrete(3), spaces.Box(-1.0, 1.0, (2,))
    space = (spaces.Tuple if parts is tuple else spaces.Dict)(parts(held))
    family = LoggedFamily({0: dataset}, Plain(space, spaces.Discrete(2)), horizon=9)
    np.testing.assert_allclose(
        family.logs.transition.state, [[1, 0, 0, 0.0, 0.1], [0, 1, 0, 0.2, 0.3]], atol=1e-6
    )
