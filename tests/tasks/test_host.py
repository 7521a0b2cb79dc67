"""Host environments: opened, stepped, and every answer checked."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit

from metaql.errors import (
    EnvironmentFaultError,
    UnknownNameError,
    UnsupportedSpaceError,
    UsageError,
)
from metaql.tasks.finite import NO_HORIZON
from metaql.tasks.gymnasium import open_environment
from metaql.tasks.host import ENDLESS_STEPS, lent


@pytest.mark.parametrize(
    ("name", "states", "actions", "horizon"),
    [
        ("FrozenLake-v1", 16, 4, 100),
        ("FrozenLake8x8-v1", 64, 4, 200),
        ("CliffWalking-v1", 48, 4, NO_HORIZON),
        ("Taxi-v4", 500, 6, 200),
    ],
)
def test_sizes_and_time_limits_of_known_environments(name, states, actions, horizon):
    host = open_environment(name)
    assert (host.num_states, host.num_actions, host.horizon) == (states, actions, horizon)
    assert host.name == name
    spec = host.spec(3)
    assert spec.state_mask.shape == (states,)
    assert spec.action_mask.shape == (actions,)
    assert bool(spec.state_mask.all() & spec.action_mask.all())
    assert (int(spec.horizon), int(spec.episodes)) == (horizon, 3)


def test_options_reach_the_environment():
    host = open_environment("FrozenLake-v1", is_slippery=False, max_episode_steps=9)
    assert host.horizon == 9
    assert (host.reset(0), host.step(2).next_state) == (0, 1)


def test_the_time_limit_is_found_under_other_wrappers(corridor):
    env = RecordEpisodeStatistics(TimeLimit(TimeLimit(corridor(patience=99), 6), 8))
    assert open_environment(env).horizon == 6
    assert open_environment(corridor()).horizon == NO_HORIZON


def test_an_opened_environment_is_passed_through():
    host = open_environment("FrozenLake-v1")
    assert open_environment(host) is host


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Gymnasium on Taxi-v3
@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("FrozenLake-v9", "FrozenLake-v1"),
        ("Frozenlake-v1", "FrozenLake-v1"),
        ("frozenlake", "FrozenLake-v1"),
        ("Taxi-v3", "Taxi-v4"),
        ("CliffWalkin-v1", "mean CliffWalking-v1"),  # not tabular/CliffWalking-v0
    ],
)
def test_an_unknown_id_is_answered_with_the_near_ones(name, near):
    with pytest.raises(UnknownNameError) as caught:
        open_environment(name)
    assert repr(name) in caught.value.evidence
    assert "Did you mean" not in caught.value.evidence  # told once
    assert near in caught.value.remedy
    assert caught.value.exit_code == 2


def test_an_id_like_no_other_and_a_missing_module_are_unknown_names():
    for name in ("zzzzqqqq-v0", "Warehouse-v0", "no_such_module:Thing-v0"):
        with pytest.raises(UnknownNameError, match="Got") as caught:
            open_environment(name)
        assert "pprint_registry" in caught.value.remedy


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: "CartPole-v1", "observation space is Box"),
        (lambda: "Blackjack-v1", "observation space is Tuple"),
        (lambda: gymnasium.make("Pendulum-v1"), "observation space is Box"),
    ],
)
def test_other_spaces_are_refused(make, words):
    with pytest.raises(UnsupportedSpaceError, match="Discrete") as caught:
        open_environment(make())
    assert words in caught.value.evidence
    assert caught.value.remedy


def test_an_action_space_that_is_not_finite_is_refused(corridor):
    env = corridor()
    env.action_space = spaces.Box(-1, 1)
    with pytest.raises(UnsupportedSpaceError, match="action space is Box"):
        open_environment(env)


@pytest.mark.parametrize("thing", [None, 3, gymnasium.Env, lambda: None])
def test_what_is_no_environment_is_refused(thing):
    with pytest.raises(UnsupportedSpaceError, match="must be an id"):
        open_environment(thing)


def test_wrong_options_are_a_usage_error(corridor):
    with pytest.raises(UsageError, match="slippy"):
        open_environment("FrozenLake-v1", slippy=True)
    with pytest.raises(UsageError, match="already made"):
        open_environment(corridor(), patience=3)


# --- stepping -------------------------------------------------------------------------------


def test_offset_spaces_are_shifted_both_ways(corridor):
    host = open_environment(corridor())
    assert (host.num_states, host.num_actions) == (5, 2)
    assert host.reset(0) == 0
    assert host.step(1) == (1, 0.0, False, False)
    assert host.step(0) == (0, 0.0, False, False)
    assert host.env.unwrapped.cell == 10
    assert [type(x) for x in host.step(1)] == [int, float, bool, bool]


def test_what_was_opened_by_its_id_is_closed_and_nothing_else(monkeypatch):
    host, closed = open_environment("FrozenLake-v1"), []
    monkeypatch.setattr(host.env, "close", lambda: closed.append(1))
    with lent(host.env, host), lent(host, host):
        pass
    assert closed == []
    with pytest.raises(KeyError), lent("FrozenLake-v1", host):
        raise KeyError
    assert closed == [1]


def test_termination_is_kept_apart_from_truncation(corridor):
    host = open_environment(corridor())
    host.reset(0)
    assert [host.step(1) for _ in range(4)][-1] == (4, 1.0, True, False)
    host.reset()
    assert [host.step(0) for _ in range(7)][-1] == (0, 0.0, False, True)


def test_termination_wins_where_both_flags_are_raised(corridor):
    host = open_environment(corridor(patience=4))
    host.reset(0)
    assert [host.step(1) for _ in range(4)][-1] == (4, 1.0, True, False)


def test_time_limit_truncates_at_the_horizon(corridor):
    host = open_environment(TimeLimit(corridor(patience=99), 3))
    for _ in range(2):
        host.reset(0)
        flags = [host.step(0)[2:] for _ in range(3)]
        assert flags == [(False, False), (False, False), (False, True)]


def test_a_declared_limit_holds_without_a_wrapper(corridor):
    env = corridor(patience=999)
    env.spec = EnvSpec("Corridor-v0", max_episode_steps=20)
    host = open_environment(env)
    assert (host.name, host.horizon) == ("Corridor-v0", 20)
    host.reset(0)
    assert [host.step(0).truncated for _ in range(20)] == [False] * 19 + [True]


def test_a_limit_that_was_taken_off_is_none():
    assert open_environment(gymnasium.make("FrozenLake-v1").unwrapped).horizon == NO_HORIZON
    assert open_environment("FrozenLake-v1", max_episode_steps=-1).horizon == NO_HORIZON


def test_without_a_limit_an_episode_is_truncated_all_the_same(corridor):
    host = open_environment(corridor(patience=10**9))
    assert (host.horizon, host.has_time_limit) == (NO_HORIZON, False)
    assert host.longest == ENDLESS_STEPS
    host.assume(20)  # what an agent knows from its training
    assert (host.horizon, host.longest, host.has_time_limit) == (20, 20, False)
    host.reset(0)
    assert [host.step(0).truncated for _ in range(20)] == [False] * 19 + [True]


def test_nothing_goes_on_for_ever(corridor, monkeypatch):
    monkeypatch.setattr("metaql.tasks.host.ENDLESS_STEPS", 20)
    host = open_environment(corridor(patience=10**9))
    host.reset(0)
    assert [host.step(0).truncated for _ in range(20)] == [False] * 19 + [True]
    assert host.horizon == NO_HORIZON  # what learners are told


def test_what_an_environment_declares_goes_before_what_is_assumed(corridor):
    host = open_environment(TimeLimit(corridor(), ENDLESS_STEPS + 5))
    host.assume(20)
    assert host.longest == host.horizon == ENDLESS_STEPS + 5


def test_a_seed_repeats_the_episode():
    def states(seed):
        host = open_environment("FrozenLake-v1")
        return [host.reset(seed), *(host.step(0).next_state for _ in range(3))]

    assert states(5) == states(5)
    assert len({tuple(states(seed)) for seed in range(20)}) > 1


def test_steps_outside_an_episode_and_unknown_actions_are_usage_errors(corridor):
    host = open_environment(corridor(patience=1))
    with pytest.raises(UsageError, match="running episode"):
        host.step(0)
    host.reset(0)
    for action in (-1, 2):
        with pytest.raises(UsageError, match="0 to 1"):
            host.step(action)
    host.step(0)
    with pytest.raises(UsageError, match="running episode"):
        host.step(0)


FAULTS = [
    ((1, float("nan")), "finite numbers"),
    ((1, float("-inf")), "finite numbers"),
    ((1, 1e39), "finite numbers"),
    ((1, "a lot"), "finite numbers"),
    ((1, None), "finite numbers"),
    ((1, 1j), "finite numbers"),
    ((1, np.zeros(2)), "finite numbers"),
    ((0, 9), "from 10 to 14"),
    ((0, 15), "from 10 to 14"),
    ((0, 11.0), "from 10 to 14"),
    ((0, "11"), "from 10 to 14"),
    ((0, None), "from 10 to 14"),
    ((0, np.array([11])), "from 10 to 14"),
    ((2, "yes"), "`terminated` must be"),
    ((3, None), "`truncated` must be"),
    ((3, float("nan")), "`truncated` must be"),
    ("raises", "RuntimeError"),
    ("old interface", "5 values"),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS, ids=[str(fault) for fault, _ in FAULTS])
def test_faults_are_reported_with_step_state_and_action(fault, words, corridor):
    host = open_environment(corridor(fault))
    host.reset(0)
    host.step(1)
    with pytest.raises(EnvironmentFaultError, match=words) as caught:
        host.step(0)
    error = caught.value
    assert "step 2" in error.evidence
    assert "Corridor (state 1, action 0)" in error.evidence
    assert error.remedy
    assert error.exit_code == 1
    with pytest.raises(UsageError, match="running episode"):
        host.step(0)


def test_the_original_exception_is_chained(corridor):
    host = open_environment(corridor("raises"))
    host.reset(0)
    host.step(0)
    with pytest.raises(EnvironmentFaultError, match="motor stalled") as caught:
        host.step(0)
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize(("fault", "words"), [("reset", "no power"), ("first", "99")])
def test_a_failing_reset_is_reported(fault, words, corridor):
    with pytest.raises(EnvironmentFaultError, match=words) as caught:
        open_environment(corridor(fault)).reset(4)
    assert "reset(seed=4)" in caught.value.evidence


@pytest.mark.parametrize("limit", [NO_HORIZON - 1, NO_HORIZON, NO_HORIZON + 1, 3_000_000_000])
def test_a_limit_beyond_all_plans_is_a_limit(limit):
    host = open_environment("FrozenLake-v1", max_episode_steps=limit)
    assert host.has_time_limit
    assert host.horizon == host.longest == NO_HORIZON - 1


def test_more_states_than_there_are_numbers_are_refused(corridor):
    env = corridor()
    env.observation_space = spaces.Discrete(3_000_000_000)
    with pytest.raises(UnsupportedSpaceError, match="32 bits"):
        open_environment(env)
