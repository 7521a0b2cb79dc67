"""Evaluation across held-out tasks: who lives where, and what is refused."""

from __future__ import annotations

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import metaql
from metaql.embedding.recurrent import Sight
from metaql.errors import ConfigError, UnknownNameError, UnsupportedSpaceError, UsageError
from metaql.evaluation import evaluate as module
from metaql.evaluation.compare import AGENT, baselines, compare, levels
from metaql.evaluation.summary import AT_RANDOM, DIFFERENCE, summarise
from metaql.meta.agent import Agent
from metaql.meta.lifetime import Lives
from metaql.meta.recurrent_agent import RecurrentAgent
from metaql.policy.beliefq import BeliefQ
from metaql.policy.network import Sizes
from metaql.policy.recurrentq import RecurrentQ
from metaql.tasks.exact import non_adaptive_policy, optimal_return, policy_return, uniform_policy
from metaql.tasks.families import FrozenLake


class Paying(gymnasium.Env):
    """Two steps, each of which pays what the task pays, if the action is right."""

    observation_space = spaces.Box(-1.0, 1.0, (3,))

    def __init__(self, pays, actions=None):
        self.pays, self.action_space = pays, actions or spaces.Discrete(2)
        self.clock = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.clock += 1
        return np.zeros(3, np.float32), self.pays, self.clock == 2, False, {}


def paying(pays=(1.0, 2.0, 5.0), *, make=Paying, **options):
    tasks = {"train": [100.0], "test": list(pays)}
    return metaql.SimulatorFamily(make, tasks, horizon=3, **options)


def recurrent(levels=None, entries=3):
    learner = RecurrentQ(
        jax.random.key(0), sight=Sight(entries=entries), actions=(2,), sizes=Sizes(8, 8)
    )
    card = {"train": {"episodes": (2, 2)}}
    return RecurrentAgent(learner=learner, levels=levels, family_name="paying", card=card)


def belief():
    return Agent(learner=BeliefQ(jax.random.key(0)), priors={}, family_name="none", card={})


def test_simulators_take_turns(monkeypatch):
    monkeypatch.setattr(module, "_ABREAST", 4)
    shares = []
    found = metaql.evaluate(
        recurrent(), paying(), lifetimes=7, on_progress=lambda *told: shares.append(told[1])
    )
    in_turn = np.asarray([1.0, 2.0, 5.0, 1.0, 2.0, 5.0, 1.0])
    for name in (AGENT, AT_RANDOM):
        np.testing.assert_array_equal(found.returns[name], np.stack([2 * in_turn] * 2, 1))
        assert found.by_steps[name].x[[0, -1]].tolist() == [2.0, 4.0]
    assert found.runs == 7
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_every_lifetime_has_a_task_of_its_own():
    """Tasks that pay differently whatever one does: each row of returns is that of its task."""
    family = FrozenLake.toy()
    tasks = family.tasks(jax.random.key(0), 3, "test")
    paid = jnp.asarray([1.0, 2.0, 3.0])[:, None, None, None]
    tasks = tasks._replace(
        reward=jnp.broadcast_to(paid, tasks.reward.shape),
        termination=jnp.zeros_like(tasks.termination),
        reward_binary=jnp.zeros(3, bool),
    )
    found = compare(belief(), family, tasks, runs=3, episodes=2)
    for lives in found.rows.values():
        np.testing.assert_array_equal(lives.returns, lives.lengths * [[1.0], [2.0], [3.0]])
    assert found.levels["optimum"] == pytest.approx(2.0 * int(tasks.horizon[0]))


def test_tasks_may_differ_in_how_noisy_every_reward_is(monkeypatch):
    """As those that were estimated: noise by pair, ``[N, S, A]``, beside flags by task."""
    tasks = FrozenLake(3).tasks(jax.random.key(0), 5, "test")
    noise = jnp.zeros((5, *tasks.transition.shape[1:3])).at[2, 0, 0].set(0.5)
    found = baselines(tasks._replace(reward_noise=noise, reward_binary=jnp.zeros(5, bool)))
    assert found["PSRL"].reward_model == "normal"
    assert baselines(tasks._replace(reward_noise=0.0 * noise))["PSRL"].reward_model == "beta"


def test_shown_in_a_notebook_it_is_the_table():
    zeros = np.zeros((3, 2))
    lives = Lives(zeros, zeros.astype(int) + 1, np.full(3, 2), None)
    found = summarise({AGENT: lives, AT_RANDOM: lives}, {})
    assert repr(found) == str(found)


def test_all_lifetimes_may_be_in_one_task(monkeypatch):
    asked = []

    def lived(learner, task, keys, **_):
        asked.append(task)
        zeros = np.zeros((len(keys), 2))
        return Lives(zeros, zeros.astype(int) + 1, np.full(len(keys), 2), None)

    monkeypatch.setattr("metaql.evaluation.compare.live", lived)
    lakes = FrozenLake(3)
    own = lakes.tasks(jax.random.key(5), 1, "test")
    own = jax.tree.map(lambda leaf: leaf[0], own)
    metaql.evaluate(belief(), lakes, lifetimes=3, episodes=2, task=own)
    assert all(task is own for task in asked)
    told = []
    for number in (0, 3):
        metaql.evaluate(belief(), lakes, lifetimes=3, episodes=2, task=number)
        told.append(np.asarray(asked[-1].transition))
    assert told[0].shape == own.transition.shape
    assert not np.array_equal(*told)
    for wrong in (-1, "first", True):
        with pytest.raises(UsageError, match="at least 0"):
            metaql.evaluate(belief(), lakes, lifetimes=3, episodes=2, task=wrong)


def test_simulators_may_all_be_of_one_task():
    found = metaql.evaluate(recurrent(), paying(), lifetimes=3, task=2)
    np.testing.assert_array_equal(found.returns[AGENT], np.full((3, 2), 10.0))
    with pytest.raises(UsageError, match="numbered 0 to 2"):
        metaql.evaluate(recurrent(), paying(), lifetimes=3, task=3)


def test_levels_of_many_tasks_are_means():
    family = FrozenLake.toy()
    tasks = family.tasks(jax.random.key(1), 4, "test")
    alone = [levels(family, jax.tree.map(lambda x, i=i: x[i], tasks)) for i in range(4)]
    found = levels(family, tasks)
    means = {name: np.mean([each[name] for each in alone]) for name in found}
    assert found["optimum"] == pytest.approx(means["optimum"], rel=1e-5)
    # One policy for all, whichever of the two is better in them.
    fixed = non_adaptive_policy(family.tasks(jax.random.key(0), 2_000, "train"))
    blind = uniform_policy(jax.tree.map(lambda x: x[0], tasks))
    both = [jax.vmap(policy_return, (0, None))(tasks, each).mean() for each in (fixed, blind)]
    assert found["best non-adaptive policy"] == pytest.approx(float(max(both)), rel=1e-5)


def test_tasks_come_from_the_split_that_was_asked_for():
    class Seen(FrozenLake):
        def sample(self, key, split):
            asked.add(split)
            return super().sample(key, split)

    asked = set()
    lakes = Seen(size=3)
    found = metaql.evaluate(belief(), lakes, lifetimes=3, episodes=2, split="validation")
    assert asked == {"validation", "train"}  # the second for the best non-adaptive policy
    assert found.returns[AGENT].shape == (3, 2)
    assert 0.0 < found.level_values()["optimum"] <= 1.0
    again = metaql.evaluate(belief(), lakes, lifetimes=3, episodes=2, split="validation")
    np.testing.assert_array_equal(found.returns[AGENT], again.returns[AGENT])


def test_printed_it_is_a_table():
    found = metaql.evaluate(recurrent(), paying([4.0, 4.0 + 1e-9]), lifetimes=2)
    title, head, agent, chance, warning = str(found).splitlines()
    assert title == "Mean return by block of episodes, 2 lifetimes each [95% interval]"
    assert head.endswith(f"  {DIFFERENCE}")
    assert head.split()[:2] == ["episodes", "1-2"]
    assert agent.startswith(f"{AGENT}  8.00 [8.00, 8.00]")
    assert chance.startswith(f"{AT_RANDOM}    8.00 [8.00, 8.00]")
    assert chance.endswith("  0.00 [0.00, 0.00]")
    assert warning.startswith(f"Warning: In episodes 1-2 the {AGENT} is not shown to be better")
    assert found.as_dict()["warnings"] == list(found.warnings)


def test_only_who_is_no_better_than_chance_is_warned_of():
    def lives(*means):
        luck = np.linspace(-0.1, 0.1, 20)
        returns = np.asarray(means)[:, None, None] + np.stack([luck, luck[::-1]])[..., None]
        ones = np.ones((20, 1), np.int64)
        names = ("agent", AT_RANDOM)
        return {
            name: Lives(row, ones, ones[:, 0], None)
            for name, row in zip(names, returns, strict=True)
        }

    assert summarise(lives(1.0, 0.0), {}).warnings == ()
    for better in (0.0, 0.01):
        assert len(summarise(lives(better, 0.0), {}).warnings) == 1
    worse, more = summarise(lives(-1.0, 0.0), {}).warnings
    assert "not shown to be better" in worse
    assert more.startswith(f"{AT_RANDOM} earns more than the agent: 1.00 [")
    alone = {"agent": lives(1.0, 0.0)["agent"]}
    assert summarise(alone, {}).warnings == ()


def test_chance_is_compared_within_a_task_and_to_the_very_end():
    """Better by five in each of tasks that differ by two hundred; or by one, after thirty episodes."""
    tasks, ones = np.linspace(0.0, 200.0, 30)[:, None], np.ones((30, 1), np.int64)
    rows = {"agent": tasks + 5.0, AT_RANDOM: tasks}
    assert (
        summarise({k: Lives(v, ones, ones[:, 0], None) for k, v in rows.items()}, {}).warnings == ()
    )
    late = np.repeat([[0.0] * 30 + [1.0] * 70], 5, 0)
    steps = np.ones((5, 100), np.int64)
    rows = {"agent": late, AT_RANDOM: 0.0 * late}
    found = summarise({k: Lives(v, steps, steps[:, 0], None) for k, v in rows.items()}, {})
    assert found.warnings == ()
    assert found.blocks == ("1-2", "3-5", "6-10", "11-20", "21-50", "51-100")
    assert found.learners[0].cells[-2].mean == pytest.approx(2 / 3)


def test_differences_are_those_within_a_task():
    """Tasks differ a hundred times as much as learners: intervals overlap, the difference is sure."""
    tasks = np.linspace(0.0, 100.0, 30)[:, None]
    ones = np.ones((30, 2), np.int64)
    rows = {"agent": tasks + np.asarray([1.0, 3.0]), "other": tasks + np.asarray([0.0, 1.0])}
    found = summarise(
        {name: Lives(row, ones, ones[:, 0], None) for name, row in rows.items()}, {"optimum": 200.0}
    )
    first, second = (row.cells[-1] for row in found.learners)
    assert first.low < second.high
    told = found.as_dict()["minus_agent"]
    assert told == {"other": pytest.approx({"mean": -1.5, "low": -1.5, "high": -1.5})}
    assert [line[-1] for line in found.table()] == [DIFFERENCE, "", "-1.50 [-1.50, -1.50]", ""]


def continuous(pays):
    return Paying(pays, spaces.Box(-1.0, 1.0, (1,)))


@pytest.mark.parametrize(
    ("agent", "family", "options", "error", "words"),
    [
        (recurrent(), paying(), {"lifetimes": 1}, UsageError, "lifetimes"),
        (recurrent(), paying(), {"episodes": 0}, UsageError, "episodes"),
        (recurrent(), paying(), {"seed": -1}, UsageError, "seed"),
        (recurrent(), paying(), {"seed": 2**32}, UsageError, "seed"),
        (recurrent(), paying(), {"beside": {"b": recurrent()}}, UsageError, "one agent after"),
        (recurrent(), paying(), {"split": "validation"}, UnknownNameError, "train"),
        (recurrent(), FrozenLake.toy(), {"split": "tests"}, UnknownNameError, "test"),
        (recurrent(entries=4), paying(), {}, UnsupportedSpaceError, "3 observation entries"),
        (belief(), paying(), {}, UnsupportedSpaceError, "RecurrentQ"),
        (recurrent(levels=(-1.0, 1.0)), paying(make=continuous, levels=(-0.5, 0.5)), {},
         UsageError, "Levels of the agent"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_refused(agent, family, options, error, words):
    with pytest.raises(error, match=words):
        metaql.evaluate(agent, family, **{"lifetimes": 2, **options})


@pytest.mark.parametrize(
    ("agent", "beside", "words"),
    [
        ("finite", None, "Load it first"),
        (None, {"finite": "finite"}, "Load it first"),
        (None, ["finite"], "must name"),
    ],
)
def test_a_name_is_no_agent(agent, beside, words):
    with pytest.raises(UsageError, match=words):
        metaql.evaluate(agent or belief(), FrozenLake(3), beside=beside)


def test_tasks_without_a_limit_are_refused():
    """Whoever acts by chance there may never come to an end."""
    task = metaql.finite_task(np.ones((1, 2, 1)), np.ones((1, 2)))
    family = metaql.ArrayFamily(lambda key: task)
    with pytest.raises(UsageError, match=r"time limit\. 3 of 3 have none"):
        metaql.evaluate(belief(), family, lifetimes=3)


def test_of_logs_there_is_nothing_to_live_in():
    env = Paying(1.0)
    log = {
        "observations": np.zeros((2, 3)), "next_observations": np.zeros((2, 3)),
        "actions": np.zeros(2, int), "rewards": np.ones(2),
        "terminations": [False, True], "truncations": [False, False],
    }  # fmt: skip
    family = metaql.LoggedFamily({"a": log}, env, horizon=3)
    with pytest.raises(UsageError, match="logs alone"):
        metaql.evaluate(recurrent(), family)


def test_the_optimum_is_that_of_the_tasks_lived_in():
    family = FrozenLake.toy()
    found = metaql.evaluate(belief(), family, lifetimes=5, episodes=1, seed=3)
    keys = np.random.default_rng(3).integers(2**31, size=2).tolist()
    tasks = family.tasks(jax.random.key(keys[0]), 5, "test")
    assert found.level_values()["optimum"] == pytest.approx(
        float(jax.vmap(optimal_return)(tasks).mean()), rel=1e-6
    )


def test_a_name_is_no_family():
    with pytest.raises(ConfigError, match="must be a family"):
        metaql.evaluate(metaql.load("finite"), "FrozenLake-v1")
