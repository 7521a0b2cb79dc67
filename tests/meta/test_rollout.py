"""Lived training data: returns over a lifetime by hand, snapshots that are what was believed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.meta.lifetime import Record, advance, begin_all
from metaql.meta.rollout import Step, lifetime_returns, live_segments
from metaql.meta.step import solve
from metaql.policy.beliefq import BeliefConfig, BeliefQ
from metaql.qlearning.td import lambda_returns
from metaql.tasks.families.frozen_lake import FrozenLake
from metaql.types import Transition

SEGMENTS, STEPS, LIVES = 3, 4, 6


def lived(rows):
    """Rows of (advantage, terminated, truncated, resumed, more)."""
    advantage, terminated, truncated, resumed, more = (
        jnp.asarray(column) for column in zip(*rows, strict=True)
    )
    nothing = jnp.zeros(len(rows))
    transition = Transition(nothing, nothing, 99.0 + nothing, nothing, terminated, truncated)
    record = Record(transition, None, nothing, nothing)
    return Step(record, advantage, resumed, more)


LIFE = [
    (-1.0, False, False, -8.0, True),
    (-0.5, True, False, -6.0, True),  # terminated: the next episode follows
    (0.0, False, False, -4.0, True),
    (-2.0, False, True, -3.0, True),  # cut by the clock: the next episode follows all the same
    (-0.25, True, False, -7.0, False),  # the last end of the lifetime: nothing follows
    (-5.0, False, False, -9.0, False),  # what is lived after it does not count above
]


def test_lifetime_returns_by_hand():
    """Lambda one half, 0.8 per episode."""
    g4 = -0.25
    g3 = -2.0 + 0.8 * (0.5 * -3.0 + 0.5 * g4)
    g2 = 0.0 + 1.0 * (0.5 * -4.0 + 0.5 * g3)
    g1 = -0.5 + 0.8 * (0.5 * -6.0 + 0.5 * g2)
    g0 = -1.0 + 1.0 * (0.5 * -8.0 + 0.5 * g1)
    returns = lifetime_returns(lived(LIFE), 0.5, 0.8)
    np.testing.assert_allclose(returns[:5], [g0, g1, g2, g3, g4], rtol=1e-6)


def test_the_last_row_bootstraps_unless_the_lifetime_is_over():
    open_end = lifetime_returns(lived(LIFE[:3]), 0.5, 0.8)
    assert float(open_end[2]) == pytest.approx(0.0 - 4.0)
    at_an_end = lifetime_returns(lived(LIFE[:2]), 0.5, 0.8)
    assert float(at_an_end[1]) == pytest.approx(-0.5 + 0.8 * -6.0)


@pytest.fixture(scope="module")
def data():
    """Lifetimes of two short episodes, so that some end within the segments; and how they began."""
    tasks = FrozenLake(3, horizon=5).tasks(jax.random.key(0), LIVES)
    config = BeliefConfig(embedding=4, hidden=8, sweeps=1)
    learner = BeliefQ(jax.random.key(1), config=config).with_epsilon(0.5)
    lives = begin_all(learner, tasks, jax.random.split(jax.random.key(2), LIVES), 2)
    answers = solve(tasks)
    settings = {"segments": SEGMENTS, "steps": STEPS, "trace": 0.7, "episode_discount": 0.8}
    after, segments, reward = live_segments(learner, tasks, answers, lives, **settings)
    records, beliefs, resumed, more = [], [lives.memory], [], []
    worth = jax.jit(jax.vmap(learner.mode_values))
    for _ in range(SEGMENTS * STEPS):
        lives, record = advance(learner, tasks, lives, 1)
        records.append(record)
        beliefs.append(lives.memory)
        values = worth(lives.memory, jax.nn.one_hot(lives.state, 9))
        resumed.append(jnp.take_along_axis(values, lives.memory.mode[:, None], 1)[:, 0])
        more.append(lives.episode < lives.episodes)
    record = jax.tree.map(lambda *x: np.concatenate(x), *records)
    again = (lives, beliefs, record, np.stack(resumed), np.stack(more))
    return tasks, answers, (after, segments, reward), again


def equal(first, second):
    def one(x, y):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)

    jax.tree.map(one, first, second)


def test_snapshots_are_the_beliefs_before_each_segment(data):
    _, _, (after, segments, _), (lives, beliefs, record, _, _) = data
    for m in range(SEGMENTS):
        equal(jax.tree.map(lambda x, m=m: x[m], segments.beliefs), beliefs[m * STEPS])
    assert not np.allclose(segments.beliefs.evidence.steps[1], beliefs[STEPS + 1].evidence.steps)
    np.testing.assert_array_equal(segments.states, record.transition.state[::STEPS])
    np.testing.assert_array_equal(segments.alive, record.alive[::STEPS])
    assert segments.alive.any()
    assert not segments.alive.all()
    equal(after, lives)


def test_reward_is_the_mean_over_living_steps(data):
    _, _, (_, _, reward), (_, _, record, _, _) = data
    assert float(reward) == pytest.approx(record.transition.reward[record.alive].mean(), abs=1e-6)


def test_targets_are_lambda_returns_of_the_exact_regret(data):
    tasks, answers, (_, segments, _), (_, _, record, resumed, more) = data
    step = record.transition
    q = np.asarray(answers.q)
    at = np.arange(LIVES)
    # What the clock takes away at a truncation is regret as well.
    cut = step.truncated * q[at, step.next_state].max(-1)
    advantage = q[at, step.state, step.action] - q[at, step.state].max(-1) - cut
    assert (cut > 0).any()
    assert (advantage <= 0).all()
    assert (advantage < -1e-3).any()
    onward = np.where(step.terminated | step.truncated, 0.8 * more, 1.0)
    for n in range(LIVES):
        expected = lambda_returns(
            *(jnp.asarray(x[:, n], jnp.float32) for x in (advantage, onward, resumed)), 0.7
        )
        np.testing.assert_allclose(segments.targets[:, n], expected[::STEPS], rtol=1e-3, atol=1e-5)
    del tasks
