"""The tasks of the benchmark tables: exact values, by hand or by Gymnasium's own tables."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.tasks.exact import optimal_return, policy_return, uniform_policy
from metaql.tasks.finite import finite_task
from metaql.tasks.gymnasium import finite_task_of

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
tasks = importlib.import_module("_tasks")
hazards = importlib.import_module("_hazards")
lives = importlib.import_module("_lives")

SHORTEST = {
    "3x3: 4 steps": (tasks.walled_grid(3), 10 - 3),
    "5x5: 8 steps": (tasks.walled_grid(5), 10 - 7),
    "lake: 6 steps": (tasks.omnirl_lake(slippery=False), 1 - 5 * 0.05),
    "cliff: 13 steps": (tasks.omnirl_cliff(), 1 - 12 * 0.03),
    "Gymnasium's cliff": (tasks.omnirl_cliff(falls_end=False), 1 - 12 * 0.03),
}


@pytest.mark.parametrize("name", SHORTEST)
def test_the_optimum_is_the_shortest_way(name):
    task, best = SHORTEST[name]
    np.testing.assert_allclose(optimal_return(task), best, atol=1e-5)


def test_the_lake_slips_as_gymnasium_has_it():
    theirs = finite_task_of(gymnasium.make("FrozenLake-v1"))
    ours = tasks.omnirl_lake(slippery=True)
    # Actions west, south, east, north in Gymnasium's order; holes and the goal are over.
    alive = np.asarray(theirs.transition[:, 0].max(-1) < 1)
    np.testing.assert_allclose(
        ours.transition[alive][:, [3, 2, 1, 0]], theirs.transition[alive], atol=1e-6
    )
    np.testing.assert_allclose(tasks.slippery_lake().transition[0, 1, [0, 1, 4]], [0.1, 0.8, 0.1])
    # One time in three into the hole to the east, or to the goal.
    paid = (ours.transition * ours.reward).sum(-1)
    np.testing.assert_allclose(paid[10], [-1 / 3, -1 / 3, -1 / 3, 0.0], atol=1e-6)
    np.testing.assert_allclose(paid[14], [1 / 3, 1 / 3, 1 / 3, 0.0], atol=1e-6)


def test_the_cliff_is_gymnasiums_but_for_what_is_paid_and_that_a_fall_is_the_end():
    theirs = finite_task_of(gymnasium.make("CliffWalking-v1"))
    for falls_end in (False, True):
        ours = tasks.omnirl_cliff(falls_end)
        np.testing.assert_allclose(ours.transition[:37], theirs.transition[:37])
        fell = np.asarray(theirs.transition[:37] * theirs.reward[:37]).sum(-1) == -100
        paid = (ours.transition * ours.reward).sum(-1)[:37]
        np.testing.assert_allclose(paid[fell], -1.0)
        ended = (ours.transition * ours.termination).sum(-1)[:37]
        np.testing.assert_array_equal(ended[fell], float(falls_end))
        np.testing.assert_array_equal(np.argwhere(ended * ~fell), [[35, 2]])


def test_dark_rooms_begin_anywhere_and_end_at_the_goal():
    task = tasks.dark_room(6, goal=14)
    row, col = np.divmod(np.arange(36), 6)
    distance = np.abs(row - 2) + np.abs(col - 2)
    steps = distance[distance > 0]
    np.testing.assert_allclose(optimal_return(task), (1 - 0.01 * (steps - 1)).mean(), atol=1e-5)


def test_garnets_branch_and_stay_what_they_are():
    task = tasks.garnet(16, branching=3, seed=7)
    np.testing.assert_array_equal((task.transition > 0).sum(-1), 3)
    assert 100 <= int(task.horizon) <= 128
    batch = tasks.garnets(16, 2, branching=3)
    np.testing.assert_array_equal(batch.reward[1], tasks.garnet(16, branching=3, seed=1).reward)
    assert abs(float(batch.reward.std()) - 0.1) < 0.01


def test_hazards_by_hand():
    rules = hazards.HAZARDS["11x11"]
    letters = hazards.hazard_map(rules, np.random.default_rng(0))
    assert [len(row) for row in letters] == [11] * 11
    text = "".join(letters)
    assert text[60] == "S"
    assert text.count("G") == 1
    assert text.count("X") == rules.dangers
    assert sum(abs(np.array(divmod(text.index("G"), 11)) - 5)) >= rules.goal_distance
    task = hazards.hazard_grid(rules)
    assert 50 <= float(optimal_return(tasks.with_horizon(task, 100))) <= 100


def test_what_the_ground_does():
    maps = importlib.import_module("_maps")
    ground = maps.Ground(
        {"S": -1.0, "W": -2.0, "G": 5.0}, ends="G", slip={"S": 0.2, "W": 1.0}, blocked="O"
    )
    task = maps.map_task(["SOW", "WSG"], ground, horizon=9, stay=True)
    paid = (task.transition * task.reward).sum(-1)
    # 0: wall to the east, edge to the north and west, water to the south.
    np.testing.assert_allclose(task.transition[0, 1, [0, 3]], [0.9, 0.1], atol=1e-6)
    np.testing.assert_allclose(paid[0], [-1.0, -1.1, -1.8, -1.1, -1.0], atol=1e-6)
    # 3, water: whatever is asked for, one goes to a side; only staying is certain.
    np.testing.assert_allclose(task.transition[3, 0, [3, 4]], [0.5, 0.5])
    np.testing.assert_allclose(paid[3], [-1.5, -1.5, -1.5, -1.5, -2.0])
    np.testing.assert_allclose(task.initial, [0.5, 0, 0, 0, 0.5, 0])
    np.testing.assert_array_equal(paid[5], 0.0)


def test_renaming_and_rescaling_change_nothing_but_names_and_scale():
    task = tasks.hazard_grid(hazards.HAZARDS["11x11"])
    other = tasks.relabelled(task, jax.random.key(3))
    assert not np.array_equal(other.transition, task.transition)
    random, best = tasks.levels(task)
    np.testing.assert_allclose(tasks.levels(other), [random, best], rtol=1e-4)
    np.testing.assert_allclose(
        tasks.levels(tasks.rescaled(task, 1000.0))[1], 1000 * best, rtol=1e-4
    )
    np.testing.assert_allclose(tasks.levels(tasks.rescaled(task, -1.0))[0], -random, rtol=1e-4)


def test_without_end_the_next_episode_is_counted_too():
    # Two steps to the end, worth 1 and 5; in seven steps that is three episodes and a first step.
    flow = np.zeros((3, 1, 3))
    flow[0, 0, 1] = flow[1, 0, 2] = flow[2, 0, 2] = 1.0
    ends = np.zeros((3, 1, 3))
    ends[1, 0, 2] = 1.0
    task = finite_task(flow, [[1.0], [5.0], [0.0]], termination=ends, horizon=50)
    endless = tasks.without_end(task, 7)
    np.testing.assert_allclose(optimal_return(endless), 3 * 6 + 1)
    np.testing.assert_allclose(policy_return(endless, uniform_policy(endless)), 3 * 6 + 1)


def test_the_oracles_variance_by_hand():
    # A coin for 0 or 10, then a sure 1 with noise 2: variance 25 + 4; the other action is worse.
    flow = np.zeros((3, 2, 3))
    flow[0, 0, [1, 2]] = 0.5
    flow[0, 1, 1] = 1.0
    flow[1, :, 0] = flow[2, :, 0] = 1.0
    reward = np.zeros((3, 2, 3))
    reward[0, 0, 2] = 10.0
    reward[1:] = 1.0
    noise = np.array([[0.0, 0.0], [2.0, 2.0], [2.0, 2.0]])
    task = finite_task(flow, reward, reward_noise=noise, horizon=2)
    variants = importlib.import_module("_variants")
    np.testing.assert_allclose(variants.oracle_variance(task), 25.0 + 4.0, rtol=1e-5)


def test_steps_become_episodes():
    reward = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    ended = np.array([[False, True, True, False], [True, False, False, False]])
    lived = lives.by_episode(reward, ended)
    np.testing.assert_array_equal(lived.returns, [[3.0, 3.0], [5.0, np.nan]])
    np.testing.assert_array_equal(lived.ends, [[2.0, 3.0], [1.0, np.nan]])
    np.testing.assert_array_equal(lived.total, [10.0, 26.0])


def test_a_budget_of_steps_is_the_same_abreast_and_in_turn():
    from metaql.qlearning import QLearning

    class InTurn(QLearning):
        plans_between_episodes = True

    task, keys = tasks.slippery_lake(), jax.random.split(jax.random.key(0), 3)
    budget = lives.Budget(60, "steps")
    first, second = (lives.live_through(cls(), task, keys, budget) for cls in (QLearning, InTurn))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_allclose(one, other)
    assert jnp.isfinite(jnp.asarray(first.returns[:, 0])).all()
