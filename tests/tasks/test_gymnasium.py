"""Gymnasium environments as finite tasks: published tables and estimates."""

from __future__ import annotations

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit, TransformReward

from metaql.errors import (
    EnvironmentFaultError,
    InvalidTaskError,
    UsageError,
)
from metaql.tasks import exact
from metaql.tasks.finite import NO_HORIZON
from metaql.tasks.gymnasium import estimate_task, finite_task_of, open_environment


def play(host, seed, episodes, choose):
    """Returns and lengths of whole episodes."""
    returns, lengths = np.zeros(episodes), np.zeros(episodes, int)
    for e in range(episodes):
        host.reset(seed if e == 0 else None)
        ended = False
        while not ended:
            step = host.step(choose(host.num_actions))
            returns[e] += step.reward
            lengths[e] += 1
            ended = step.terminated or step.truncated
    return returns, lengths


def test_frozen_lake_table_has_the_known_answers():
    task = finite_task_of("FrozenLake-v1")
    assert exact.optimal_return(task) == pytest.approx(0.74419, abs=1e-5)
    assert exact.policy_return(task, exact.uniform_policy(task)) == pytest.approx(0.01394, abs=1e-5)
    # In a corner two of the three ways to slip lead to the same cell: the entries are merged.
    assert task.transition[0, 0, 0] == pytest.approx(2 / 3)
    assert task.transition[0, 0, 4] == pytest.approx(1 / 3)


def test_cliff_walking_table_has_the_known_answers():
    task = finite_task_of("CliffWalking-v1")
    assert int(task.horizon) == NO_HORIZON
    assert int(task.initial.argmax()) == 36
    within = task._replace(horizon=jnp.asarray(200, jnp.int32))
    assert exact.optimal_return(within) == pytest.approx(-13.0)
    # The cliff costs 100 and leads back to the start without ending the episode.
    assert (task.transition[36, 1, 36], task.reward[36, 1, 36]) == (1.0, -100.0)
    assert float(task.termination[36].max()) == 0.0
    # Into the goal from above.
    assert (task.transition[35, 2, 47], task.termination[35, 2, 47]) == (1.0, 1.0)


def test_taxi_table_has_the_known_answers():
    task = finite_task_of("Taxi-v4")
    assert exact.optimal_return(task) == pytest.approx(7.93, abs=2e-3)
    assert int((task.initial > 0).sum()) == 300
    assert float(task.termination.sum()) == 4.0  # one drop-off for each destination


def test_a_rainy_taxi_still_has_a_table_and_a_fickle_passenger_has_none():
    rainy = finite_task_of(gymnasium.make("Taxi-v4", is_rainy=True))
    np.testing.assert_allclose(rainy.transition.sum(-1), 1.0, atol=1e-6)
    assert exact.optimal_return(rainy) < exact.optimal_return(finite_task_of("Taxi-v4"))
    assert finite_task_of(gymnasium.make("Taxi-v4", fickle_passenger=True)) is None


@pytest.mark.parametrize("keys", [(10, 5), (0, 0), (0, 5), (10, 0)])
def test_a_table_may_be_keyed_by_observations_or_from_zero(keys, tabulated):
    task = finite_task_of(TimeLimit(tabulated(*keys), 7))
    assert int(task.horizon) == 7
    np.testing.assert_allclose(exact.optimal_q(task, 0.5)[:4, 1], [0.125, 0.25, 0.5, 1.0])


def test_entries_with_the_same_next_state_are_averaged_by_probability(tabulated):
    env = tabulated()
    env.P[10][5] = [(0.25, 10, 8.0, True), (0.25, 10, 4.0, False), (0.5, 11, 1.0, False)]
    task = finite_task_of(env)
    np.testing.assert_allclose(task.transition[0, 0], [0.5, 0.5, 0, 0, 0])
    np.testing.assert_allclose(task.reward[0, 0], [6.0, 1.0, 0, 0, 0])
    np.testing.assert_allclose(task.termination[0, 0], [0.5, 0, 0, 0, 0])


def test_no_table_no_task(corridor, tabulated):
    assert finite_task_of(corridor()) is None
    assert finite_task_of(TransformReward(tabulated(), lambda r: 2 * r)) is None
    assert finite_task_of(RecordEpisodeStatistics(tabulated())) is not None
    without_start = tabulated()
    del without_start.initial_state_distrib
    assert finite_task_of(without_start) is None
    foreign = tabulated()
    foreign.P = np.eye(5)
    assert finite_task_of(foreign) is None


def test_a_wrong_table_is_refused(tabulated):
    env = tabulated()
    env.P[12][6] = [(0.7, 13, 0.0, False)]
    with pytest.raises(InvalidTaskError, match=r"transition\[2, 1\]` sums to 0.7"):
        finite_task_of(env)
    env.P[12][6] = [(1.0, 15, 0.0, False)]
    with pytest.raises(EnvironmentFaultError, match="one of its 5 states"):
        finite_task_of(env)
    env.P[12][6] = [(1.0, 13, 0.0)]
    with pytest.raises(EnvironmentFaultError, match="4 values"):
        finite_task_of(env)


def test_rolling_the_host_agrees_with_the_table():
    episodes = 4000
    rng = np.random.default_rng(1)
    host = open_environment("FrozenLake-v1")
    returns, lengths = play(host, 7, episodes, lambda n: int(rng.integers(n)))
    task = finite_task_of("FrozenLake-v1")
    expected = float(exact.policy_return(task, exact.uniform_policy(task)))
    error = 4 * np.sqrt(expected * (1 - expected) / episodes)
    assert returns.mean() == pytest.approx(expected, abs=error)
    # A reward of 1 on every step makes the return the length of the episode.
    clock = task._replace(reward=jnp.ones_like(task.reward))
    steps = float(exact.policy_return(clock, exact.uniform_policy(clock)))
    assert lengths.mean() == pytest.approx(steps, abs=4 * lengths.std() / np.sqrt(episodes))


@pytest.mark.parametrize(
    ("name", "episodes", "kwargs"),
    [
        ("CliffWalking-v1", 3, {"max_episode_steps": 50}),
        ("Taxi-v4", 300, {}),
        ("Taxi-v4", 300, {"is_rainy": True}),
    ],
)
def test_the_optimal_policy_earns_on_the_host_what_the_table_says(name, episodes, kwargs):
    host = open_environment(name, **kwargs)
    task = finite_task_of(host)
    best = np.asarray(exact.plan_horizon(exact.model_of(task), task.horizon)).argmax(-1)
    returns = np.zeros(episodes)
    for e in range(episodes):
        state, ended = host.reset(e), False
        while not ended:
            step = host.step(int(best[state]))
            returns[e] += step.reward
            state, ended = step.next_state, step.terminated or step.truncated
    margin = 4 * returns.std() / np.sqrt(episodes) + 1e-3
    assert returns.mean() == pytest.approx(float(exact.optimal_return(task)), abs=margin)


# --- estimates ------------------------------------------------------------------------------


def test_an_estimate_of_a_deterministic_environment_is_exact_where_it_was_tried(
    corridor, tabulated
):
    task = estimate_task(corridor(), 500, seed=0)
    truth = finite_task_of(TimeLimit(tabulated(), 7))
    tried = np.arange(4)  # the last cell ends the episode: nothing is ever tried there
    for name in ("transition", "termination"):
        got, want = getattr(task, name)[tried], getattr(truth, name)[tried]
        np.testing.assert_allclose(np.where(truth.transition[tried] > 0, got, 0), want)
    np.testing.assert_allclose(task.transition[4], [[0, 0, 0, 0, 1]] * 2)
    np.testing.assert_allclose(task.reward[4], 0.0)
    np.testing.assert_allclose(task.initial, truth.initial)
    assert int(task.horizon) == 7  # the longest episode that the environment truncated
    assert exact.optimal_return(task) == pytest.approx(1.0)


def test_an_estimate_approaches_the_table():
    task, truth = estimate_task("FrozenLake-v1", 20_000, seed=3), finite_task_of("FrozenLake-v1")
    assert int(task.horizon) == 100
    near_start = [0, 1, 2, 4, 8]
    np.testing.assert_allclose(task.transition[near_start[0]], truth.transition[0], atol=0.05)
    np.testing.assert_allclose(task.transition[jnp.array(near_start)].sum(-1), 1.0, rtol=1e-5)
    q = exact.plan_horizon(exact.model_of(task), 100)
    policy = exact.greedy_policy(q, task.action_mask)
    assert exact.policy_return(truth, policy) > 0.95 * 0.744


def test_every_action_is_tried_before_any_is_tried_twice_more(corridor):
    truth = estimate_task(TimeLimit(corridor(patience=99), 1), 9, seed=0)
    # Nine one-step episodes from cell 0: 4 or 5 tries of each action, so both outcomes are known.
    np.testing.assert_allclose(truth.transition[0], [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]])


def test_an_estimate_repeats_with_its_seed_and_needs_steps(corridor):
    first, second = (estimate_task("FrozenLake-v1", 300, seed=2) for _ in range(2))
    np.testing.assert_array_equal(first.transition, second.transition)
    with pytest.raises(UsageError, match="at least 1"):
        estimate_task(corridor(), 0)


class Arms(gymnasium.Env):
    """Two arms: the first always pays the same, the second at random."""

    def __init__(self, pays):
        self.observation_space, self.action_space = spaces.Discrete(1), spaces.Discrete(2)
        self.pays = pays

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 0, self.pays(self.np_random, action), False, False, {}


@pytest.mark.parametrize("base", [1000.1, -1e6])
def test_rewards_that_differ_are_noise(base):
    def normal(rng, action):
        return base + action * rng.normal(2.0, 0.5)

    task = estimate_task(TimeLimit(Arms(normal), 50), 4_000, seed=0)
    assert not task.reward_binary
    np.testing.assert_allclose(task.reward[0, :, 0], [base, base + 2], rtol=1e-4)
    assert task.reward_noise[0].tolist() == [0.0, pytest.approx(0.5, rel=0.1)]


def test_what_was_seen_once_is_as_noisy_as_the_rest():
    class Wide(Arms):
        """The second arm leads to a new state every time."""

        def __init__(self):
            super().__init__(None)
            self.observation_space = spaces.Discrete(2000)

        def step(self, action):
            self.count = getattr(self, "count", 0) + 1
            onto = self.count if action else 0
            return onto, self.np_random.normal(0.0, 2.0), action == 1, False, {}

    task = estimate_task(TimeLimit(Wide(), 50), 1_000, seed=0)
    assert task.reward_noise[0, 0] == pytest.approx(2.0, rel=0.1)
    assert task.reward_noise[0, 1] == pytest.approx(2.0, rel=0.1)
    assert float(task.reward_noise[1:].max()) == 0  # never tried


def test_our_own_end_of_what_would_go_on_for_ever_is_no_horizon(monkeypatch):
    monkeypatch.setattr("metaql.tasks.host.ENDLESS_STEPS", 20)
    task = estimate_task(Arms(lambda rng, action: 0.0), 100, seed=0)
    assert int(task.horizon) == NO_HORIZON


@pytest.mark.parametrize(("chance", "binary"), [(0.3, True), (1.0, False)])
def test_rewards_of_0_and_1_are_bernoulli_where_they_differ(chance, binary):
    def lot(rng, action):
        return float(action and rng.random() < chance)

    task = estimate_task(TimeLimit(Arms(lot), 50), 4_000, seed=0)
    assert bool(task.reward_binary) == binary
    assert np.asarray(task.reward_noise).max() == 0
    assert task.reward[0, :, 0].tolist() == [0.0, pytest.approx(chance, abs=0.04)]


@pytest.mark.parametrize(("rewards", "noise"), [((0.0, 1.0), 0.0), ((0.0, 2.0), np.sqrt(0.75))])
def test_a_table_with_two_rewards_for_one_transition_has_noise(rewards, noise):
    env = Arms(None)
    env.initial_state_distrib = np.ones(1)
    lots = [(0.25, 0, rewards[0], False), (0.75, 0, rewards[1], False)]
    env.P = {0: {0: [(1.0, 0, rewards[1], False)], 1: lots}}
    task = finite_task_of(TimeLimit(env, 5))
    assert bool(task.reward_binary) == (noise == 0)
    np.testing.assert_allclose(
        np.broadcast_to(task.reward_noise, (1, 2)), [[0.0, noise]], rtol=1e-6
    )
    np.testing.assert_allclose(task.reward[0, :, 0], [rewards[1], 0.75 * rewards[1]], rtol=1e-6)
