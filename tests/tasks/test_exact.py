"""Exact answers against hand-computed numbers, fixed points and each other."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.toy_text.frozen_lake import generate_random_map
from hypothesis import given, settings
from hypothesis import strategies as st

from metaql.tasks import exact
from metaql.tasks.families.frozen_lake import FrozenLake
from metaql.tasks.finite import FiniteTask, finite_task, pad_task
from metaql.tasks.gymnasium import finite_task_of

LAKE = FrozenLake()


def two_states(termination=0.0, horizon=10):
    """State 0: action 0 stays (reward 1), action 1 goes to state 1 (reward 0). State 1 pays 2."""
    transition = [[[1, 0], [0, 1]], [[0, 1], [0, 1]]]
    reward = [[1.0, 0.0], [2.0, 2.0]]
    return finite_task(transition, reward, termination=termination, horizon=horizon)


def random_task(seed, num_states=5, num_actions=3, horizon=7, low=-1.0):
    rng = np.random.default_rng(seed)
    shape = (num_states, num_actions, num_states)
    return finite_task(
        rng.dirichlet(np.full(num_states, 0.5), shape[:2]),
        rng.uniform(low, 1.0, shape),
        termination=rng.random(shape) * (rng.random(shape) < 0.3),
        initial=rng.dirichlet(np.ones(num_states)),
        horizon=horizon,
    )


def random_policy(seed, task):
    rng = np.random.default_rng(seed)
    num_states, num_actions = task.transition.shape[:2]
    return jnp.asarray(rng.dirichlet(np.ones(num_actions), num_states), jnp.float32)


def return_by_enumeration(task, policy):
    """Expected return by pushing the state distribution forward: no Bellman equation involved."""
    p, r = np.asarray(task.transition, float), np.asarray(task.reward, float)
    go_on = 1.0 - np.asarray(task.termination, float)
    alive, total = np.asarray(task.initial, float), 0.0
    for _ in range(int(task.horizon)):
        flow = alive[:, None, None] * np.asarray(policy, float)[:, :, None] * p
        total += (flow * r).sum()
        alive = (flow * go_on).sum((0, 1))
    return total


# --- by hand ---------------------------------------------------------------------------------


def test_discounted_values_of_two_states_by_hand():
    # gamma 0.9: V(1) = 2 / 0.1 = 20; going there is worth 18, staying once 1 + 16.2 = 17.2.
    q = exact.optimal_q(two_states(), 0.9)
    np.testing.assert_allclose(q, [[17.2, 18.0], [20.0, 20.0]], rtol=3e-5)


def test_a_low_discount_prefers_the_near_reward_by_hand():
    # gamma 0.4: staying for ever is worth 1 / 0.6 = 5/3, going 0.4 * 2 / 0.6 = 4/3.
    q = exact.optimal_q(two_states(), 0.4)
    np.testing.assert_allclose(q, [[5 / 3, 4 / 3], [10 / 3, 10 / 3]], rtol=1e-5)


def test_termination_cuts_the_bootstrap_and_truncation_does_not():
    # Every step ends the task with certainty: only the immediate reward is left.
    q = exact.optimal_q(two_states(termination=1.0), 0.9)
    np.testing.assert_allclose(q, [[1.0, 0.0], [2.0, 2.0]])
    # The horizon is the clock's: discounted values do not know it.
    near, far = two_states(horizon=1), two_states(horizon=100)
    np.testing.assert_array_equal(exact.optimal_q(near, 0.9), exact.optimal_q(far, 0.9))


def test_partial_termination_by_hand():
    # One state, reward 1, ends with probability 1/4: V = 1 / (1 - 0.8 * 3/4) = 2.5.
    task = finite_task([[[1.0]]], [[1.0]], termination=0.25, horizon=3)
    assert exact.optimal_q(task, 0.8)[0, 0] == pytest.approx(2.5, rel=1e-5)
    # Undiscounted, three steps: 1 + 3/4 + 9/16.
    assert exact.optimal_return(task) == pytest.approx(1 + 0.75 + 0.5625)


def test_reward_is_paid_on_the_step_that_terminates():
    task = finite_task([[[0, 1]], [[0, 1]]], [[5.0], [7.0]], termination=[[1.0], [1.0]], horizon=9)
    assert exact.optimal_return(task) == pytest.approx(5.0)


def test_finite_horizon_by_hand():
    # h steps left in state 0: stay and leave never pays, so max(h, 2 (h - 1)) = 1, 2, 4, 6, ...
    for horizon, best in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 6.0), (10, 18.0)):
        assert exact.optimal_return(two_states(horizon=horizon)) == pytest.approx(best)
    q = exact.plan_horizon(exact.model_of(two_states()), 3)
    np.testing.assert_allclose(q, [[3.0, 4.0], [6.0, 6.0]])


def test_the_optimal_policy_depends_on_the_time_left():
    model = exact.model_of(two_states())
    assert exact.plan_horizon(model, 1)[0].argmax() == 0
    assert exact.plan_horizon(model, 3)[0].argmax() == 1


def test_reward_by_arrival_is_averaged_over_arrivals():
    task = finite_task([[[0.25, 0.75]], [[0, 1]]], [[[4.0, 8.0]], [[0.0, 0.0]]], horizon=1)
    assert exact.optimal_return(task) == pytest.approx(7.0)


def test_policy_return_by_hand():
    # Three steps, in state 0 half and half: state 1 is reached before steps 1, 2, 3 with
    # probability 0, 1/2, 3/4; the reward is 1/2 in state 0 (mean) and 2 in state 1.
    task = two_states(horizon=3)
    expected = 0.5 * (1 + 0.5 + 0.25) + 2 * (0 + 0.5 + 0.75)
    assert exact.policy_return(task, exact.uniform_policy(task)) == pytest.approx(expected)


def test_policy_q_by_hand():
    # Always stay in state 0, gamma 0.5: V(0) = 2, V(1) = 4; leaving is worth 0 + 0.5 * 4 = 2.
    policy = jnp.array([[1.0, 0.0], [1.0, 0.0]])
    q = exact.policy_q(two_states(), policy, 0.5)
    np.testing.assert_allclose(q, [[2.0, 2.0], [4.0, 4.0]], rtol=1e-6)


# --- laws on random tasks -------------------------------------------------------------------

seeds = st.integers(0, 10_000)
law = settings(max_examples=15, deadline=None, derandomize=True)
fast = {name: jax.jit(getattr(exact, name)) for name in ("optimal_return", "policy_return")}
plan, evaluate = jax.jit(exact.optimal_q), jax.jit(exact.policy_q)


@law
@given(seeds)
def test_optimal_q_is_the_bellman_fixed_point(seed):
    task = random_task(seed)
    q = plan(task, 0.9)
    again = np.einsum(
        "saz,saz->sa",
        np.asarray(task.transition),
        np.asarray(task.reward)
        + 0.9 * (1 - np.asarray(task.termination)) * np.asarray(q).max(-1)[None, None, :],
    )
    np.testing.assert_allclose(q, again, atol=2e-5)


@law
@given(seeds)
def test_the_greedy_policy_of_q_star_has_q_star(seed):
    task = random_task(seed)
    q = plan(task, 0.9)
    np.testing.assert_allclose(
        evaluate(task, exact.greedy_policy(q, task.action_mask), 0.9), q, atol=5e-5
    )


@law
@given(seeds, seeds)
def test_no_policy_beats_the_optimum(seed, policy_seed):
    task = random_task(seed)
    policy = random_policy(policy_seed, task)
    assert fast["policy_return"](task, policy) <= fast["optimal_return"](task) + 1e-5
    assert (evaluate(task, policy, 0.9) <= plan(task, 0.9) + 5e-5).all()


@law
@given(seeds, seeds)
def test_policy_return_agrees_with_pushing_the_distribution_forward(seed, policy_seed):
    task = random_task(seed)
    policy = random_policy(policy_seed, task)
    assert fast["policy_return"](task, policy) == pytest.approx(
        return_by_enumeration(task, policy), abs=1e-5
    )


@law
@given(seeds)
def test_more_time_never_hurts_where_no_reward_is_negative(seed):
    task = random_task(seed, low=0.0)
    returns = [
        float(fast["optimal_return"](task._replace(horizon=jnp.asarray(h, jnp.int32))))
        for h in (1, 2, 5, 20)
    ]
    assert returns == sorted(returns)
    assert returns[0] > 0


@law
@given(seeds)
def test_padding_changes_no_answer(seed):
    # Negative rewards: a padded action of value 0 would win if the masks were forgotten.
    task = random_task(seed)
    task = task._replace(reward=task.reward - 2.0)
    wide = pad_task(task, 8, 5)
    np.testing.assert_allclose(plan(wide, 0.9)[:5, :3], plan(task, 0.9), rtol=1e-5)
    for name in ("optimal_return", "policy_return"):
        policies = [
            () if name == "optimal_return" else (exact.uniform_policy(t),) for t in (task, wide)
        ]
        narrow, padded = (fast[name](t, *p) for t, p in zip((task, wide), policies, strict=True))
        np.testing.assert_allclose(narrow, padded, rtol=1e-5)


def test_a_padded_action_is_never_greedy():
    task = two_states()
    wide = pad_task(task._replace(reward=task.reward - 9.0), 3, 4)
    policy = exact.greedy_policy(exact.optimal_q(wide, 0.9), wide.action_mask)
    assert (policy[:, 2:] == 0).all()
    assert (exact.uniform_policy(wide)[:, 2:] == 0).all()


def test_relabelling_states_relabels_the_values():
    task = random_task(3)
    order = np.array([3, 0, 4, 1, 2])
    cube = lambda x: x[order][:, :, order]  # noqa: E731
    moved = task._replace(
        transition=cube(task.transition),
        reward=cube(task.reward),
        termination=cube(task.termination),
        initial=task.initial[order],
    )
    np.testing.assert_allclose(plan(moved, 0.9), plan(task, 0.9)[order], atol=1e-5)
    np.testing.assert_allclose(
        fast["optimal_return"](moved), fast["optimal_return"](task), rtol=1e-5
    )


# --- FrozenLake-v1: three known figures -----------------------------------------------------


def test_frozen_lake_optimum_within_100_steps():
    assert exact.optimal_return(LAKE.default()) == pytest.approx(0.744, abs=5e-4)


def test_frozen_lake_at_random():
    lake = LAKE.default()
    assert exact.policy_return(lake, exact.uniform_policy(lake)) == pytest.approx(0.014, abs=5e-4)


def seeded_maps(count):
    """Tasks of Gymnasium's random maps of seeds 0 .. count - 1, repetitions included."""
    rows = [generate_random_map(size=4, seed=seed) for seed in range(count)]
    holes = jnp.asarray([[cell == "H" for cell in "".join(row)] for row in rows])
    return holes, jax.vmap(LAKE.from_holes)(holes)


def plain_average(tasks: FiniteTask):
    """The mean of the tables as they are published, holes' self-loops included."""
    models = jax.vmap(exact.model_of)(tasks)
    return exact.Model(models.reward.mean(0), models.onward.mean(0), tasks.action_mask[0])


def test_frozen_lake_under_the_policy_that_is_optimal_on_the_average_map():
    # Protocol: 400 maps (261 distinct, weighted as drawn), tables averaged, planned for 100 steps.
    holes, tasks = seeded_maps(400)
    assert len(np.unique(holes, axis=0)) == 261
    q = exact.plan_horizon(plain_average(tasks), 100)
    policy = exact.greedy_policy(q, LAKE.default().action_mask)
    assert exact.policy_return(LAKE.default(), policy) == pytest.approx(0.083, abs=5e-4)


def test_average_model_counts_a_state_only_where_it_is_alive():
    # Two maps, state 1 a trap in the first: the average in state 1 is the second map's alone.
    go = np.array([[[0, 1, 0]], [[0, 0, 1]], [[0, 0, 1]]], float)
    trap = go.copy()
    trap[1, 0] = [0, 1, 0]
    ends = lambda dead: np.array([[1.0 if s in dead else 0.0] for s in range(3)])  # noqa: E731
    reward = np.zeros((3, 1, 3))
    reward[1, 0, 2] = 1.0
    first = finite_task(trap, np.zeros((3, 1)), termination=ends({1, 2}), horizon=5)
    second = finite_task(go, reward, termination=ends({2}), horizon=5)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), first, second)
    model = exact.average_model(both)
    np.testing.assert_allclose(model.reward[:, 0], [0.0, 1.0, 0.0])
    np.testing.assert_allclose(model.onward[:, 0], [[0, 1, 0], [0, 0, 1], [0, 0, 0]])


def test_non_adaptive_policy_is_the_optimum_where_all_tasks_are_the_same():
    lake = LAKE.default()
    same = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), lake)
    alone = exact.policy_return(lake, exact.non_adaptive_policy(same))
    assert alone == pytest.approx(float(exact.optimal_return(lake)), abs=5e-3)


def test_published_table_and_own_dynamics_give_the_same_answers():
    published = finite_task_of("FrozenLake-v1")
    assert published is not None
    np.testing.assert_allclose(
        exact.optimal_q(published, 0.95), exact.optimal_q(LAKE.default(), 0.95), atol=1e-6
    )


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_values_scale_with_rewards(scale):
    task = two_states()
    small = task._replace(reward=task.reward * scale)
    np.testing.assert_allclose(
        exact.optimal_q(small, 0.9) / scale, exact.optimal_q(task, 0.9), rtol=1e-4
    )
    found, known = (exact.answers_to(each, 0.9).q for each in (small, task))
    np.testing.assert_allclose(found / scale, known, rtol=1e-3)
