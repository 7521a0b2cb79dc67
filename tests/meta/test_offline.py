"""Learning from logs: what was logged is learned as if lived, and what is no log is named."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium import spaces

from metaql.errors import DatasetError, UsageError
from metaql.meta.offline import read_dataset
from metaql.tasks.finite import NO_HORIZON


def corridor(steps=60):
    """Three cells, right is action 1; the last one pays 1 and ends."""
    rng, cell, rows = np.random.default_rng(0), 0, []
    for _ in range(steps):
        action = int(rng.integers(2))
        onto = max(cell + 2 * action - 1, 0)
        rows.append((cell, action, float(onto == 2), onto, onto == 2, False))
        cell = 0 if onto == 2 else onto
    names = ("observations", "actions", "rewards", "next_observations", "terminations")
    return dict(zip((*names, "truncations"), map(np.array, zip(*rows, strict=True)), strict=True))


def test_a_log_teaches_without_acting(make_agent):
    adapted = make_agent().adapt(corridor(), horizon=20)
    np.testing.assert_array_equal(adapted.predict(np.array([0, 1]))[0], [1, 1])
    assert adapted.q_table()[1, 1] > adapted.q_table()[0, 1]
    assert adapted.returns.sum() == corridor()["rewards"].sum()
    assert adapted.warnings == []
    assert float(adapted.memory.evidence.steps) == 60


def test_a_log_in_which_nothing_ends_is_warned_of(make_agent):
    log = {name: column[:1] for name, column in corridor().items()}
    found = make_agent().adapt(log, num_states=3, num_actions=2)
    assert len(found.returns) == 0
    assert "No episode ends in this log" in found.warnings[-1]


def test_a_log_of_a_lifetime_is_as_good_as_the_lifetime(make_agent, maze):
    agent, rows = make_agent(), []
    env = maze()
    good_step, good_reset = env.step, env.reset
    now = []

    def reset(**options):
        answer = good_reset(**options)
        now[:] = [answer[0]]
        return answer

    def step(action):
        answer = good_step(action)
        rows.append((now[0], int(action), answer[1], *answer[:1], *answer[2:4]))
        now[:] = [answer[0]]
        return answer

    env.step, env.reset = step, reset
    lived = agent.adapt(env, episodes=4)
    names = ("observations", "actions", "rewards", "next_observations", "terminations")
    columns = map(np.array, zip(*rows, strict=True))
    log = dict(zip((*names, "truncations"), columns, strict=True))
    read = agent.adapt(log, num_states=12, num_actions=2)
    assert int(read.memory.spec.horizon) == int(lived.memory.spec.horizon)
    np.testing.assert_allclose(read.q_table(), lived.q_table(), atol=2e-3)
    np.testing.assert_allclose(read.returns, lived.returns, rtol=1e-5)


def test_minari_is_read_by_its_episodes():
    episode = SimpleNamespace(
        observations=np.array([3, 4, 5]),
        actions=np.array([1, 1]),
        rewards=np.array([0.0, 1.0]),
        terminations=np.array([False, False]),
        truncations=np.array([False, False]),
    )
    dataset = SimpleNamespace(
        iterate_episodes=lambda: iter([episode, episode]),
        observation_space=spaces.Discrete(4, start=3),
        action_space=spaces.Discrete(2),
    )
    log = read_dataset(dataset)
    np.testing.assert_array_equal(log.states, [0, 1, 0, 1])
    np.testing.assert_array_equal(log.truncated, [False, True, False, True])
    assert (log.num_states, log.num_actions, log.first_state, log.horizon) == (4, 2, 3, 2)


def test_a_log_that_contradicts_itself_is_warned_of(make_agent):
    """Rows of a replay buffer, observations off by one, a time limit that is none."""
    log = corridor()
    mixed = np.random.default_rng(0).permutation(60)
    shuffled = {name: column[mixed] for name, column in log.items()}
    moved = log | {"observations": np.roll(log["observations"], 1)}
    for wrong in (shuffled, moved):
        (words,) = read_dataset(wrong).warnings
        assert "rows do not begin where the row before ended" in words
    cut = corridor() | {"truncations": np.arange(60) == mixed[0]}
    cut["terminations"] = np.zeros(60, bool)
    assert read_dataset(cut | {"observations": np.zeros(60, int)}).horizon == NO_HORIZON
    longest = int(np.diff(np.flatnonzero(log["terminations"]), prepend=-1).max())
    assert read_dataset(log, horizon=longest).warnings == ()
    (words,) = read_dataset(log, horizon=longest - 1).warnings
    assert words == (
        f"An episode of the log lasts {longest} steps, longer than the `horizon` given, {longest - 1}."
    )
    assert words in make_agent().adapt(log, horizon=longest - 1).warnings


def test_a_space_that_numbers_nothing_says_no_sizes():
    """MultiDiscrete has a first value for each entry."""
    episode = SimpleNamespace(
        observations=np.zeros((3, 2), int), actions=np.zeros(2, int), rewards=np.zeros(2),
        terminations=np.array([False, True]), truncations=np.zeros(2, bool),
    )  # fmt: skip
    dataset = SimpleNamespace(
        iterate_episodes=lambda: iter([episode]),
        observation_space=spaces.MultiDiscrete([3, 3]),
        action_space=spaces.Discrete(2),
    )
    with pytest.raises(DatasetError, match="`observations` must be integers"):
        read_dataset(dataset)


def episodes(*rows):
    """A log of episodes: how many steps, and what becomes of it in the last one, if anything."""
    flags = {"terminated": [], "truncated": []}
    for length, end in rows:
        for name, column in flags.items():
            column.extend([False] * (length - 1) + [name == end])
    count = len(flags["terminated"])
    zero = np.zeros(count, int)
    return {
        "observations": zero, "actions": zero, "rewards": zero, "next_observations": zero,
        "terminations": np.array(flags["terminated"]), "truncations": np.array(flags["truncated"]),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "horizon"),
    [
        ([(50, "terminated"), (50, "terminated"), (3, "truncated")], NO_HORIZON),  # stopped by hand
        ([(7, "terminated"), (50, "truncated"), (3, "truncated")], 50),
        ([(50, "terminated"), (50, "truncated")], 50),
        ([(50, "truncated"), (60, "")], NO_HORIZON),  # the log breaks off in a longer one
        ([(50, "truncated"), (20, "")], 50),
        ([(50, "terminated")], NO_HORIZON),
        ([(50, "")], NO_HORIZON),
    ],
)
def test_the_horizon_is_that_of_the_longest_episode_if_it_was_truncated(rows, horizon):
    assert read_dataset(episodes(*rows)).horizon == horizon


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"truncation": np.zeros(60, bool)}, "Did you mean 'truncations'"),
        ({"rewards": np.full(60, np.nan)}, "finite"),
        ({"rewards": 1.0}, "one entry per step"),
        ({"rewards": np.zeros(59)}, "one entry per step"),
        ({"actions": np.full(60, 2)}, "`actions` must be integers from 0 to 1"),
        ({"observations": np.linspace(0, 59, 60) // 30 + np.eye(60)[7] / 2}, "Step 7 has 0.5"),
        ({"observations": np.full(60, np.nan)}, "Step 0 has nan"),
        ({"observations": np.full(60, np.inf)}, "Step 0 has inf"),
        ({"observations": np.zeros((60, 2))}, "`observations` must be integers"),
        ({"terminations": np.full(60, "no")}, "`terminations`"),
    ],
)
def test_what_is_no_log_is_named(change, words):
    plain = {name: column for name, column in corridor().items() if name != "truncations"}
    with pytest.raises(DatasetError, match=words):
        read_dataset(plain | change, num_states=3, num_actions=2)


def test_whole_numbers_are_numbers_however_they_are_kept():
    """As a table read from a file has them, or an array of single-entry actions."""
    plain = corridor()
    kept = plain | {"observations": plain["observations"].astype(float)}
    kept |= {"actions": plain["actions"][:, None]}
    log, expected = (read_dataset(each, num_states=3, num_actions=2) for each in (kept, plain))
    np.testing.assert_array_equal(log.states, expected.states)
    np.testing.assert_array_equal(log.actions, expected.actions)


@pytest.mark.parametrize("sizes", [{"num_states": 12.0}, {"num_actions": 0}, {"horizon": True}])
def test_sizes_are_whole_numbers(sizes):
    with pytest.raises(UsageError, match=f"`{next(iter(sizes))}` must be an integer, at least 1"):
        read_dataset(corridor(), **sizes)


@pytest.mark.parametrize("name", ["num_states", "num_actions", "horizon"])
def test_sizes_that_no_array_has_are_refused(name):
    with pytest.raises(UsageError, match=f"`{name}` must be below"):
        read_dataset(corridor(), **{name: 3_000_000_000})


def test_a_limit_beyond_all_plans_is_one_still():
    assert read_dataset(corridor(), horizon=2**31 - 1).horizon < NO_HORIZON


def test_one_stray_action_does_not_make_a_million_others():
    log = corridor()
    stray = log | {"actions": np.append(log["actions"][:-1], 10_000_000)}
    with pytest.raises(DatasetError, match="has action 10,000,000"):
        read_dataset(stray)


def test_sizes_that_are_given_go_before_those_of_a_space():
    episode = SimpleNamespace(
        observations=np.array([0, 1, 2]), actions=np.zeros(2, int), rewards=np.zeros(2),
        terminations=np.array([False, True]), truncations=np.zeros(2, bool),
    )  # fmt: skip
    dataset = SimpleNamespace(
        iterate_episodes=lambda: iter([episode]),
        observation_space=spaces.Discrete(5),
        action_space=spaces.Discrete(3),
    )
    assert (read_dataset(dataset).num_states, read_dataset(dataset).num_actions) == (5, 3)
    log = read_dataset(dataset, num_states=50, num_actions=9)
    assert (log.num_states, log.num_actions) == (50, 9)


def test_an_incomplete_or_empty_log_is_named():
    with pytest.raises(DatasetError, match="Missing: rewards"):
        read_dataset({k: v for k, v in corridor().items() if k != "rewards"})
    with pytest.raises(DatasetError, match="at least one step"):
        read_dataset({name: np.zeros(0, int) for name in corridor()})
