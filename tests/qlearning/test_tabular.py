"""Tabular agents: single updates by hand, and the exact Q* on toy and random tasks."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.meta.lifetime import live
from metaql.qlearning import Constant, Decay, DoubleQLearning, Harmonic, QLambda, QLearning
from metaql.qlearning.schedules import epsilon_greedy
from metaql.tasks.exact import optimal_q
from metaql.tasks.finite import finite_task
from metaql.types import TaskSpec, Transition

LEARNERS = [QLearning, DoubleQLearning, QLambda]
KEY = jax.random.key(0)


def toy_task():
    """State 0: stay for 0.05 or go on to state 1; state 1: end with 1 or go back."""
    transition = np.zeros((2, 2, 2))
    transition[0, 0, 0] = transition[0, 1, 1] = transition[1, 0, 1] = transition[1, 1, 0] = 1.0
    return finite_task(
        transition, [[0.05, 0.0], [1.0, 0.0]], termination=[[0.0, 0.0], [1.0, 0.0]], horizon=5
    )


TOY_Q = [[0.05 + 0.9 * 0.9, 0.9], [1.0, 0.81]]
"""By hand for gamma = 0.9: V(1) = 1, V(0) = 0.9."""


def random_task(seed, states=4, actions=3):
    """Dirichlet(1) transitions, rewards in [0, 1], every second pair ends with probability 0.2."""
    rng = np.random.default_rng(seed)
    ends = 0.2 * (np.arange(states * actions).reshape(states, actions) % 2)
    return finite_task(
        rng.dirichlet(np.ones(states), (states, actions)),
        rng.random((states, actions)),
        termination=ends,
        initial=np.ones(states) / states,
        horizon=6,
    )


def spec(states=3, actions=2, real_actions=None):
    mask = jnp.arange(actions) < (actions if real_actions is None else real_actions)
    return TaskSpec(jnp.ones(states, bool), mask, jnp.asarray(9), jnp.asarray(5))


def transition(s, a, r, s2, *, terminated=False, truncated=False):
    ints = [jnp.asarray(x, jnp.int32) for x in (s, a, s2)]
    return Transition(
        ints[0], ints[1], jnp.float32(r), ints[2], jnp.asarray(terminated), jnp.asarray(truncated)
    )


ROWS = {
    "mid-episode": ({}, 0.2 + 0.9 * 0.5),
    "truncated": ({"truncated": True}, 0.2 + 0.9 * 0.5),
    "terminated": ({"terminated": True}, 0.2),
}


@pytest.mark.parametrize("cls", LEARNERS)
@pytest.mark.parametrize("row", ROWS)
def test_one_update_by_hand(cls, row):
    flags, target = ROWS[row]
    learner = cls(gamma=0.9, step_size=Constant(0.1), initial_value=0.5)
    memory = learner.update(KEY, learner.init(KEY, spec()), transition(0, 1, 0.2, 1, **flags))
    changed = 0.5 + 0.1 * (target - 0.5)
    q = np.asarray(memory.q).reshape(-1, 3, 2)
    moved = q[np.argmax(np.abs(q - 0.5).max((1, 2)))]  # the table that learned
    np.testing.assert_allclose(moved, [[0.5, changed], [0.5, 0.5], [0.5, 0.5]], rtol=1e-6)
    assert (q != 0.5).sum() == 1
    assert int(memory.visits.sum()) == 1
    assert int(memory.episodes) == bool(flags)


@pytest.mark.parametrize("cls", LEARNERS)
def test_padded_actions_are_not_bootstrapped_from_nor_chosen(cls):
    learner = cls(gamma=0.9, step_size=Constant(1.0), epsilon=Constant(0.5))
    memory = learner.init(KEY, spec(actions=4, real_actions=2))
    memory = memory._replace(q=memory.q.at[..., 2:].set(99.0))
    after = learner.update(KEY, memory, transition(0, 1, 0.2, 1))
    assert float(after.q[..., :2].max()) == pytest.approx(0.2)
    decide = jax.vmap(lambda key: learner.act(key, memory, jnp.asarray(0)))
    decisions = decide(jax.random.split(KEY, 500))
    assert set(np.unique(decisions.action)) == {0, 1}
    assert np.isneginf(decisions.values[:, 2:]).all()
    assert np.isneginf(decisions.estimate[:, 2:]).all()


def test_double_q_trains_both_tables_about_equally_and_from_each_other():
    learner = DoubleQLearning(gamma=0.5, step_size=Constant(1.0))
    memory = learner.init(KEY, spec())
    memory = memory._replace(q=memory.q.at[0, 1].set(jnp.array([4.0, 3.0])).at[1, 1, 0].set(8.0))
    update = jax.vmap(lambda key: learner.update(key, memory, transition(0, 0, 1.0, 1)))
    after = update(jax.random.split(KEY, 2000))
    learned = np.asarray(after.visits[:, 0, 0, 0])
    assert 0.45 < learned.mean() < 0.55
    # Table 0 is worth 1 + .5 * 8 (valued by table 1), table 1 1 + .5 * 4.
    np.testing.assert_allclose(after.q[learned == 1, 0, 0, 0], 5.0)
    np.testing.assert_allclose(after.q[learned == 0, 1, 0, 0], 3.0)


def test_q_lambda_by_hand():
    learner = QLambda(gamma=0.8, trace=0.5, step_size=Constant(0.5))
    memory = learner.init(KEY, spec())
    memory = learner.update(KEY, memory, transition(0, 0, 1.0, 1))
    np.testing.assert_allclose(memory.q, [[0.5, 0], [0, 0], [0, 0]])
    # Error 2; the first pair's trace is 0.8 * 0.5.
    memory = learner.update(KEY, memory, transition(1, 1, 2.0, 2))
    np.testing.assert_allclose(memory.q, [[0.9, 0], [0, 1.0], [0, 0]], rtol=1e-6)
    # Exploratory (0 < 0.9): older traces are cut. Error 1 + 0.8 * 1; truncation bootstraps.
    memory = learner.update(KEY, memory, transition(0, 1, 1.0, 1, truncated=True))
    np.testing.assert_allclose(memory.q, [[0.9, 0.9], [0, 1.0], [0, 0]], rtol=1e-6)
    assert not memory.traces.any()


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_traces_do_not_reach_into_the_last_episode(end):
    learner = QLambda(gamma=0.8, trace=0.9, step_size=Constant(0.5))
    memory = learner.init(KEY, spec())
    memory = learner.update(KEY, memory, transition(0, 0, 0.0, 1, **{end: True}))
    memory = learner.update(KEY, memory, transition(1, 1, 1.0, 2))
    np.testing.assert_allclose(memory.q, [[0, 0], [0, 0.5], [0, 0]])


def test_equals_are_drawn_fairly_and_exploration_has_its_rate():
    keys = jax.random.split(KEY, 20_000)
    mask = jnp.array([True, True, True, False])
    draw = jax.vmap(lambda k, v, e: epsilon_greedy(k, v, mask, e), in_axes=(0, None, None))
    share = lambda v, e: np.bincount(draw(keys, jnp.asarray(v), e), minlength=4) / 20_000  # noqa: E731
    np.testing.assert_allclose(share([0.0, 0.0, -1.0, 5.0], 0.0), [0.5, 0.5, 0, 0], atol=0.015)
    np.testing.assert_allclose(share([0.0, 2.0, -1.0, 5.0], 0.3), [0.1, 0.8, 0.1, 0], atol=0.015)


def test_schedules_by_hand():
    assert float(Constant(0.3)(jnp.asarray(7))) == pytest.approx(0.3)
    assert float(Harmonic()(jnp.asarray(4))) == pytest.approx(0.25)
    assert float(Harmonic(9.0)(jnp.asarray(1))) == pytest.approx(1.0)
    assert float(Harmonic(9.0)(jnp.asarray(11))) == pytest.approx(0.5)
    decay = Decay(start=1.0, end=0.2, half_life=10.0)
    assert float(decay(jnp.asarray(0))) == pytest.approx(1.0)
    assert float(decay(jnp.asarray(10))) == pytest.approx(0.6)


@pytest.mark.parametrize("explore_by", ["episodes", "visits"])
def test_exploration_follows_what_it_is_told_to_count(explore_by):
    learner = QLearning(epsilon=Decay(1.0, 0.0, 1e-3), explore_by=explore_by)
    memory = learner.init(KEY, spec())
    memory = memory._replace(q=memory.q.at[:, 0].set(1.0))
    keys = jax.random.split(KEY, 400)
    explores = jax.vmap(lambda k, s: learner.act(k, memory, s).action, in_axes=(0, None))
    assert 0.4 < explores(keys, jnp.asarray(0)).mean() < 0.6
    if explore_by == "episodes":
        memory = memory._replace(episodes=memory.episodes + 1)
        assert explores(keys, jnp.asarray(0)).mean() < 0.02
    else:
        memory = memory._replace(visits=memory.visits.at[0, 1].add(1))
        assert explores(keys, jnp.asarray(0)).mean() < 0.02
        assert 0.4 < explores(keys, jnp.asarray(1)).mean() < 0.6


@pytest.mark.parametrize("cls", LEARNERS)
def test_two_thousand_agents_reach_the_toy_q_star(cls):
    task = toy_task()
    np.testing.assert_allclose(optimal_q(task, 0.9), TOY_Q, atol=1e-5)
    learner = cls(gamma=0.9, step_size=Constant(0.5), epsilon=Constant(0.6))
    lives = live(learner, task, jax.random.split(KEY, 2048), episodes=120)
    q = jax.vmap(learner.table)(lives.memory)
    # Deterministic, so nothing but too few visits keeps an agent from the fixed point.
    worst = np.abs(q - np.asarray(TOY_Q)).max((1, 2))
    assert np.quantile(worst, 0.99) < 1e-3


@pytest.mark.parametrize("cls", LEARNERS)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_agents_reach_q_star_of_a_random_task(cls, seed):
    task = random_task(seed)
    exact = np.asarray(optimal_q(task, 0.8))
    learner = cls(
        gamma=0.8,
        step_size=Harmonic(5.0),
        epsilon=Constant(0.7),
        **({"trace": 0.5} if cls is QLambda else {}),
    )
    lives = live(learner, task, jax.random.split(KEY, 128), episodes=3000, chunk=4096)
    q = np.asarray(jax.vmap(learner.table)(lives.memory))
    assert np.abs(q.mean(0) - exact).max() < 0.02 * np.abs(exact).max()  # hardly any bias
    assert np.quantile(np.abs(q - exact).max((1, 2)), 0.9) < 0.1 * np.abs(exact).max()


def test_a_wide_start_is_forgotten_where_it_was_tried():
    learner = QLearning(
        gamma=0.9, initial_value=5.0, epsilon=Constant(0.0), step_size=Constant(0.5)
    )
    lives = live(learner, toy_task(), jax.random.split(KEY, 2048), episodes=120)
    greedy = np.asarray(lives.memory.q.argmax(-1))
    np.testing.assert_array_equal(greedy, np.tile([1, 0], (2048, 1)))


def test_hyper_parameters_can_be_vmapped_over():
    task = toy_task()
    keys = jax.random.split(KEY, 3)

    def after_one(alpha):
        learner = QLearning(gamma=0.9, step_size=Constant(alpha))
        memory = learner.init(KEY, task.spec(1))
        return learner.update(KEY, memory, transition(1, 0, 1.0, 1, terminated=True)).q[1, 0]

    alphas = jnp.array([0.1, 0.5, 1.0])
    np.testing.assert_allclose(jax.vmap(after_one)(alphas), alphas)
    learners = jax.vmap(lambda a: QLearning(gamma=0.9, step_size=Constant(a)))(alphas)
    runs = eqx.filter_vmap(
        lambda lrn, key: lrn.act(key, lrn.init(key, task.spec(1)), jnp.asarray(0))
    )
    assert runs(learners, keys).values.shape == (3, 2)
