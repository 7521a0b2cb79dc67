"""The comparison: every learner in the same loop, exact levels beside them."""

import jax
import numpy as np
import pytest

from metaql.errors import UsageError
from metaql.evaluation.compare import AGENT, baselines, compare, learners_for, levels
from metaql.meta.agent import Agent, load
from metaql.policy.beliefq import BeliefQ
from metaql.policy.finiteq import FiniteQ
from metaql.tasks.exact import non_adaptive_policy, policy_return, uniform_policy
from metaql.tasks.families import Bandit, FrozenLake, GridNavi
from metaql.tasks.finite import finite_task


def agent() -> Agent:
    return Agent(learner=BeliefQ(jax.random.key(0)), priors={}, family_name="none", card={})


def test_every_learner_lives_every_episode_and_none_beats_the_optimum():
    family = FrozenLake.toy()
    task = jax.tree.map(lambda x: x[0], family.tasks(jax.random.key(0), 1, "test"))
    shares = []
    found = compare(
        agent(), family, task, runs=6, episodes=3, on_progress=lambda *a: shares.append(a[1])
    )
    assert list(found.rows) == [AGENT, *baselines(task)]
    for lives in found.rows.values():
        assert lives.returns.shape == lives.lengths.shape == (6, 3)
        assert np.isin(lives.returns, (0.0, 1.0)).all()
        assert lives.lengths.min() >= 1
        assert lives.lengths.max() <= int(task.horizon)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_other_agents_live_in_the_same_tasks_under_names_of_their_own():
    task = FrozenLake.toy().tasks(jax.random.key(0), 1, "test")
    found = learners_for(agent(), task, {"finite": load("finite"), "the same": agent()})
    assert list(found) == [AGENT, *baselines(task), "finite", "the same"]
    kinds = [type(found[name]) for name in (AGENT, "finite", "the same")]
    assert kinds == [BeliefQ, FiniteQ, BeliefQ]
    for taken in (AGENT, "PSRL"):
        with pytest.raises(UsageError, match="name of its own"):
            learners_for(agent(), task, {taken: agent()})


def test_baselines_live_the_same_beside_whomever():
    family = FrozenLake.toy()
    tasks = family.tasks(jax.random.key(0), 3, "test")
    alone, beside = (
        compare(agent(), family, tasks, runs=3, episodes=2, beside=others).rows
        for others in (None, {"the same": agent()})
    )
    assert list(beside) == [*alone, "the same"]
    for name, lives in alone.items():
        np.testing.assert_array_equal(lives.returns, beside[name].returns)


def test_levels_of_the_default_lake():
    family = FrozenLake()
    found = levels(family, family.default())
    assert found["optimum"] == pytest.approx(0.7442, abs=1e-4)
    assert 0.0 < found["best non-adaptive policy"] < 0.1


def test_no_non_adaptive_policy_where_states_are_not_shared():
    family = Bandit.toy()
    task = jax.tree.map(lambda x: x[0], family.tasks(jax.random.key(0), 1, "test"))
    assert list(levels(family, task)) == ["optimum"]


def test_acting_at_random_is_the_best_without_adapting_where_it_is_worth_more():
    family = GridNavi()  # what is best in training walks past the goals held out
    tasks = family.tasks(jax.random.key(0), 16, "test")
    blind = jax.vmap(lambda task: policy_return(task, uniform_policy(task)))(tasks).mean()
    fixed = non_adaptive_policy(family.tasks(jax.random.key(1), 256, "train"))
    assert blind > jax.vmap(policy_return, in_axes=(0, None))(tasks, fixed).mean()
    found = levels(family, tasks)["best non-adaptive policy"]
    assert found == pytest.approx(float(blind), rel=1e-5)


@pytest.mark.parametrize(
    ("options", "model"),
    [({}, "beta"), ({"reward_noise": 1.0}, "normal"), ({"reward_binary": True}, "beta")],
)
def test_posterior_sampling_takes_noise_for_no_coin(options, model):
    """Mean rewards in [0, 1] are not rewards in [0, 1]: a Beta posterior of those has negative counts."""
    task = finite_task(np.ones((1, 2, 1)), [[0.3, 0.6]], horizon=10, **options)
    assert baselines(task)["PSRL"].reward_model == model
    rare = finite_task([[[0.95, 0.05]], [[1.0, 0.0]]], [[[0, 10.0]], [[0, 0]]], horizon=10)
    assert baselines(rare)["PSRL"].reward_model == "normal"


def test_baselines_are_in_units_of_the_largest_reward():
    for unit in (1.0, 100.0):
        task = finite_task(np.ones((1, 2, 1)), [[-0.5 * unit, unit]], horizon=10)
        rows = baselines(task)
        assert rows["Q-learning, optimistic, tuned"].initial_value == 0.5 * unit
        assert rows["PSRL"].reward_std == unit
