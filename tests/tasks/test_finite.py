"""Finite tasks: what the checked constructor refuses, how steps are drawn, what padding changes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from metaql.errors import InvalidTaskError, UsageError
from metaql.tasks import exact
from metaql.tasks.finite import NO_HORIZON, FiniteTask, finite_task, pad_task

ROWS = np.array(
    [
        [[0.0, 0.5, 0.5], [0.2, 0.0, 0.8]],
        [[0.0, 0.0, 1.0], [0.25, 0.75, 0.0]],
        [[1.0, 0.0, 0.0], [0.1, 0.2, 0.7]],
    ]
)
REWARD = np.arange(18.0).reshape(3, 2, 3) / 20.0
ENDS = np.broadcast_to(np.array([0.0, 0.25, 0.9]), (3, 2, 3))
START = np.array([0.0, 0.3, 0.7])


def small_task(**changes):
    options = {"termination": ENDS, "initial": START, "horizon": 12} | changes
    return finite_task(ROWS, REWARD, **options)


def changed(array, index, value):
    copy = np.array(array, float)
    copy[index] = value
    return copy


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((changed(ROWS, (1, 1, 0), 0.22), REWARD), {}, ["`transition[1, 1]`", "0.9700", "1 of 6"]),
        ((changed(ROWS, (1, 1, 0), np.nan), REWARD), {}, ["transition[1, 1, 0]", "nan"]),
        ((changed(ROWS, (2, 0, 1), -0.1), REWARD), {}, ["transition[2, 0, 1]", "-0.1"]),
        ((ROWS[0], REWARD), {}, ["[S, A, S]", "(2, 3)"]),
        ((ROWS[:, :, :2], REWARD), {}, ["[S, A, S]", "(3, 2, 2)"]),
        ((np.zeros((0, 2, 0)), REWARD), {}, ["S, A >= 1"]),
        ((ROWS, REWARD[:2]), {}, ["`reward`", "(2, 2, 3)"]),
        ((ROWS, np.ones(3)), {}, ["`reward`", "(3,)"]),
        ((ROWS, changed(REWARD, (0, 0, 0), np.inf)), {}, ["`reward`", "finite"]),
        ((ROWS, REWARD), {"termination": 1.5}, ["`termination`", "1.5"]),
        ((ROWS, REWARD), {"termination": -0.5}, ["`termination`", "-0.5"]),
        ((ROWS, REWARD), {"initial": [0.5, 0.5]}, ["`initial`", "(2,)"]),
        ((ROWS, REWARD), {"initial": [0.5, 0.2, 0.2]}, ["`initial", "0.9000"]),
        ((ROWS, REWARD), {"initial": [1.5, -0.5, 0.0]}, ["`initial[1]`", "-0.5"]),
        ((ROWS, REWARD), {"horizon": 0}, ["`horizon`", "0"]),
        ((ROWS, REWARD), {"reward_noise": -1.0}, ["`reward_noise`", "-1"]),
        ((ROWS, REWARD), {"reward_noise": np.nan}, ["`reward_noise`", "nan"]),
        ((ROWS, REWARD), {"reward_noise": [0.1, 0.2]}, ["`reward_noise`", "(3, 2)", "(2,)"]),
        ((ROWS, 2 * REWARD), {"reward_binary": True}, ["`reward_binary`", "1.7"]),
    ],
)
def test_constructor_refuses_and_says_why(arguments, options, words):
    with pytest.raises(InvalidTaskError) as caught:
        finite_task(*arguments, **options)
    assert isinstance(caught.value, UsageError)
    assert caught.value.exit_code == 2
    for word in words:
        assert word in str(caught.value)


def test_constructor_fills_in_what_was_left_out():
    task = finite_task(ROWS, REWARD[:, :, 0])
    assert task.initial.tolist() == [1.0, 0.0, 0.0]
    assert int(task.horizon) == NO_HORIZON
    assert float(task.termination.max()) == 0.0
    np.testing.assert_allclose(task.reward, np.repeat(REWARD[:, :, :1], 3, axis=2), rtol=1e-6)
    assert bool(task.state_mask.all() & task.action_mask.all())


def test_rounding_in_a_row_is_accepted_and_repaired():
    task = finite_task(ROWS * (1 + 5e-5), REWARD)
    np.testing.assert_allclose(task.transition.sum(-1), 1.0, atol=1e-6)


def draw(task, num_draws, seed=0):
    """Outcomes of every state and action, ``[S, A, num_draws]``."""
    states, actions = task.transition.shape[:2]
    keys = jax.random.split(jax.random.key(seed), (states, actions, num_draws))
    one = jax.vmap(FiniteTask.step, in_axes=(None, 0, None, None))
    rows = jax.vmap(jax.vmap(one, in_axes=(None, 0, None, 0)), in_axes=(None, 0, 0, None))
    return jax.jit(rows)(task, keys, jnp.arange(states), jnp.arange(actions))


def test_steps_follow_the_probabilities():
    outcome = draw(small_task(), 20_000)
    seen = np.asarray(outcome.next_state)
    for state, action in np.ndindex(3, 2):
        counts = np.bincount(seen[state, action], minlength=3)
        possible = ROWS[state, action] > 0
        assert counts[~possible].sum() == 0
        expected = ROWS[state, action][possible] * counts.sum()
        assert possible.sum() == 1 or chisquare(counts[possible], expected).pvalue > 1e-4
    # Given where the step arrived: the reward is exact, the end has its probability.
    state, action = np.ogrid[:3, :2]
    rewards = REWARD[state[..., None], action[..., None], seen]
    np.testing.assert_allclose(outcome.reward, rewards, atol=1e-6)
    ended = np.asarray(outcome.terminated)
    for arrival, chance in enumerate((0.0, 0.25, 0.9)):
        assert ended[seen == arrival].mean() == pytest.approx(chance, abs=0.01)


def test_noise_has_its_mean_and_spread():
    outcome = draw(small_task(reward_noise=0.5), 20_000)
    state, action = np.ogrid[:3, :2]
    seen = np.asarray(outcome.next_state)
    noise = np.asarray(outcome.reward) - REWARD[state[..., None], action[..., None], seen]
    assert np.isfinite(noise).all()
    assert noise.mean() == pytest.approx(0.0, abs=0.01)
    assert noise.std() == pytest.approx(0.5, abs=0.01)
    # Where the step arrived says nothing about its noise.
    assert noise[seen == 2].mean() == pytest.approx(0.0, abs=0.015)


def test_every_pair_may_have_noise_of_its_own():
    spread = np.array([[0.0, 0.5], [1.0, 0.0], [2.0, 0.1]])
    outcome = draw(small_task(reward_noise=spread), 20_000)
    state, action = np.ogrid[:3, :2]
    seen = np.asarray(outcome.next_state)
    noise = np.asarray(outcome.reward) - REWARD[state[..., None], action[..., None], seen]
    np.testing.assert_allclose(noise.std(-1), spread, rtol=0.02, atol=1e-6)


def test_binary_rewards_have_the_mean_as_probability():
    outcome = draw(small_task(reward_binary=True), 20_000)
    rewards, seen = np.asarray(outcome.reward), np.asarray(outcome.next_state)
    assert set(np.unique(rewards)) == {0.0, 1.0}
    for state, action, arrival in zip(*np.nonzero(ROWS), strict=True):
        got = rewards[state, action][seen[state, action] == arrival].mean()
        assert got == pytest.approx(REWARD[state, action, arrival], abs=0.04)


def test_episodes_start_as_asked():
    keys = jax.random.split(jax.random.key(3), 20_000)
    starts = np.asarray(jax.vmap(FiniteTask.reset, in_axes=(None, 0))(small_task(), keys))
    counts = np.bincount(starts, minlength=3)
    assert counts[0] == 0
    assert chisquare(counts[1:], START[1:] * 20_000).pvalue > 1e-4


# The smallest and the largest number `jax.random.uniform` can return.
@pytest.mark.parametrize("extreme", [0.0, 1.0 - 2.0**-23])
def test_the_extreme_draws_never_reach_an_impossible_state(monkeypatch, extreme):
    calls = []

    def always(key, shape=(), **_):
        calls.append(shape)
        return jnp.full(shape, extreme, jnp.float32)

    monkeypatch.setattr(jax.random, "uniform", always)
    rows = changed(ROWS, (0, 0), [0.0, 1.0, 0.0])
    task = finite_task(rows, REWARD, termination=ENDS, initial=[0.0, 1.0, 0.0])
    assert int(task.reset(jax.random.key(0))) == 1
    for state, action in np.ndindex(3, 2):
        outcome = task.step(jax.random.key(0), jnp.asarray(state), jnp.asarray(action))
        assert rows[state, action, int(outcome.next_state)] > 0
        assert np.isfinite(float(outcome.reward))
    assert calls


def test_padding_changes_no_exact_answer():
    task = small_task()
    padded = pad_task(task, 7, 4)
    assert padded.state_mask.tolist() == [True] * 3 + [False] * 4
    assert padded.action_mask.tolist() == [True] * 2 + [False] * 2
    np.testing.assert_allclose(padded.transition.sum(-1), 1.0, atol=1e-6)
    for discount in (0.9, 0.99):
        q = exact.optimal_q(task, discount)
        np.testing.assert_allclose(exact.optimal_q(padded, discount)[:3, :2], q, atol=1e-5)
    assert exact.optimal_return(padded) == pytest.approx(
        float(exact.optimal_return(task)), abs=1e-6
    )
    policy = jnp.asarray([[0.2, 0.8], [1.0, 0.0], [0.5, 0.5]])
    grown = jnp.zeros((7, 4)).at[:3, :2].set(policy).at[3:, 0].set(1.0)
    expected = float(exact.policy_return(task, policy))
    assert exact.policy_return(padded, grown) == pytest.approx(expected, abs=1e-6)
    np.testing.assert_array_equal(exact.uniform_policy(padded)[0], [0.5, 0.5, 0.0, 0.0])


@pytest.mark.parametrize("noise", [0.3, [[0.3, 0.0], [0.1, 0.2], [0.5, 0.4]]])
def test_padding_changes_no_step(noise):
    task = small_task(reward_noise=noise)
    padded = pad_task(task, 7, 4)
    keys = jax.random.split(jax.random.key(1), 2_000)
    for state, action in np.ndindex(3, 2):
        both = [
            jax.vmap(FiniteTask.step, in_axes=(None, 0, None, None))(t, keys, state, action)
            for t in (task, padded)
        ]
        for plain, grown in zip(*both, strict=True):
            np.testing.assert_allclose(plain, grown, atol=1e-6)


def test_padding_a_batch_pads_every_task():
    task = small_task()
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), task)
    grown, alone = pad_task(batch, 5, 3), pad_task(task, 5, 3)
    for many, one in zip(jax.tree.leaves(grown), jax.tree.leaves(alone), strict=True):
        np.testing.assert_array_equal(many, np.stack([one, one]))


def test_padding_never_shrinks():
    with pytest.raises(InvalidTaskError, match="only grow"):
        pad_task(small_task(), 2, 2)
    with pytest.raises(InvalidTaskError, match="only grow"):
        pad_task(small_task(), 3, 1)


def test_spec_tells_only_what_a_learner_may_know():
    spec = pad_task(small_task(), 4, 2).spec(5)
    assert spec.state_mask.tolist() == [True, True, True, False]
    assert (int(spec.horizon), int(spec.episodes)) == (12, 5)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"reward": [[1e16]]}, "1e\\+15 at most"), ({"horizon": 2.7}, "whole number")],
)
def test_what_single_precision_or_steps_cannot_be_is_refused(change, words):
    task = {"transition": [[[1.0]]], "reward": [[1.0]], "horizon": 3, **change}
    with pytest.raises(InvalidTaskError, match=words):
        finite_task(**task)
