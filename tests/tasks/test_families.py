"""What each family is about: dynamics by hand, distributions, splits, baselines, the registry."""

from __future__ import annotations

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.errors import ConfigError, UnknownNameError, UsageError
from metaql.tasks import exact
from metaql.tasks.families import (
    FAMILIES,
    SPLITS,
    Bandit,
    Chain,
    FrozenLake,
    Mixture,
    Navigation,
    RandomMDP,
    frozen_lake,
    make,
)
from metaql.tasks.families.chain import River, river_task
from metaql.tasks.families.frozen_lake import DEFAULT_MAPS

KEY = jax.random.key(0)


def on_host(tree):
    return jax.tree.map(np.asarray, tree)


# --- frozen lakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "lake"),
    [
        ({"map_name": "4x4"}, FrozenLake(4)),
        ({"map_name": "4x4", "is_slippery": False}, FrozenLake(4, success_rate=1.0)),
        ({"map_name": "4x4", "success_rate": 0.6}, FrozenLake(4, success_rate=0.6)),
        ({"map_name": "8x8"}, FrozenLake(8)),
    ],
)
def test_the_default_lake_is_gymnasiums_entry_for_entry(options, lake):
    name = "FrozenLake8x8-v1" if options["map_name"] == "8x8" else "FrozenLake-v1"
    env = gymnasium.make(name, **options)
    task = on_host(lake.default())
    wanted = {x: np.zeros_like(task.transition) for x in ("transition", "reward", "termination")}
    for state, actions in env.unwrapped.P.items():
        for action, entries in actions.items():
            for chance, arrival, reward, ended in entries:
                at = state, action, arrival
                wanted["transition"][at] += chance
                wanted["reward"][at] += chance * reward
                wanted["termination"][at] += chance * ended
    np.testing.assert_allclose(task.transition, wanted["transition"], atol=1e-6)
    for name in ("reward", "termination"):
        got = getattr(task, name) * task.transition
        np.testing.assert_allclose(got, wanted[name], atol=1e-6)
    np.testing.assert_array_equal(task.initial, env.unwrapped.initial_state_distrib)
    assert int(task.horizon) == env.spec.max_episode_steps


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8])
def test_no_lake_is_in_two_splits(size):
    pools = FrozenLake(size).pools
    maps = [row.tobytes() for split in SPLITS for row in np.asarray(pools[split])]
    assert len(maps) == len(set(maps))
    assert all(len(pools[split]) > 0 for split in SPLITS)
    if size in DEFAULT_MAPS:
        default = np.array([[cell == "H" for cell in row] for row in DEFAULT_MAPS[size]])
        assert default.ravel().tobytes() not in maps
        assert default.T.ravel().tobytes() not in maps


def test_every_small_lake_is_there_and_drawn_as_gymnasium_draws_it():
    lake = FrozenLake(4)
    # 3,828 valid maps, without the default and its transpose.
    assert sum(len(pool) for pool in lake.pools.values()) == 3826
    holes = np.asarray(lake.pools["test"])
    weight = np.exp(np.asarray(lake.log_weights["test"]))
    np.testing.assert_allclose(weight, 0.25 ** holes.sum(-1), rtol=1e-5)
    tasks = on_host(lake.tasks(KEY, 4000, "test"))
    drawn = tasks.termination[:, 0, 0, :].sum(-1) - 1  # the goal ends episodes as well
    assert drawn.mean() == pytest.approx((weight @ holes.sum(-1)) / weight.sum(), abs=0.1)


# --- random MDPs ----------------------------------------------------------------------------------


def test_dense_mdps_have_the_published_distribution():
    tasks = on_host(RandomMDP().tasks(KEY, 400))
    assert tasks.transition.shape == (400, 10, 5, 10)
    assert tasks.transition.mean() == pytest.approx(0.1, abs=1e-4)
    assert tasks.transition.var() == pytest.approx(9 / (100 * 11), rel=0.02)  # of Dirichlet(1)
    assert tasks.transition.max() > 0.6
    mean = tasks.reward[..., 0]
    assert (tasks.reward == mean[..., None]).all()
    assert mean.mean() == pytest.approx(1.0, abs=0.03)
    assert mean.std() == pytest.approx(1.0, abs=0.03)
    assert (tasks.reward_noise == 1.0).all()
    assert (tasks.initial[:, 0] == 1.0).all()
    assert (tasks.horizon == 10).all()


def test_sparse_mdps_are_sparse():
    family = RandomMDP(8, 3, kind="sparse", branching=2, rewarded=3, termination=0.25)
    tasks = on_host(family.tasks(KEY, 300))
    assert ((tasks.transition > 0).sum(-1) == 2).all()
    arrival = tasks.reward[:, 0, 0, :]
    assert (tasks.reward == arrival[:, None, None, :]).all()
    assert ((arrival > 0).sum(-1) == 3).all()
    assert arrival[arrival > 0].min() >= 0.5
    assert arrival.max() <= 1.0
    assert (arrival[:, 0] == 0).all()
    ends = tasks.termination[:, 0, 0, :]
    assert (ends[:, 0] == 0).all()
    assert ends[:, 1:].mean() == pytest.approx(0.25, abs=0.03)


# --- chains and bandits ---------------------------------------------------------------------------


def test_a_river_worked_out_by_hand():
    numbers = (jnp.asarray(x, jnp.float32) for x in (0.35, 0.05, 0.005))
    labels = jnp.asarray([False, True, False, False, True, False])
    task = on_host(river_task(River(jnp.asarray(4), *numbers, labels), None))
    swim = [1, 0, 1, 1]  # action 0 swims where the label says so
    rows = [[0.65, 0.35, 0, 0], [0.05, 0.6, 0.35, 0], [0, 0.05, 0.6, 0.35], [0, 0, 0.05, 0.95]]
    for state, (action, row) in enumerate(zip(swim, rows, strict=True)):
        np.testing.assert_allclose(task.transition[state, action], [*row, 0, 0], atol=1e-6)
        assert task.transition[state, 1 - action, max(state - 1, 0)] == 1.0
    assert np.count_nonzero(task.reward) == 2
    assert task.reward[0, 0, 0] == pytest.approx(0.005)
    assert task.reward[3, 1, 3] == 1.0
    assert task.state_mask.tolist() == [True] * 4 + [False] * 2
    assert int(task.horizon) == 16


def test_chains_differ_in_length_and_labels():
    tasks = on_host(Chain(3, 6).tasks(KEY, 300))
    assert set(tasks.state_mask.sum(-1).tolist()) == {3, 4, 5, 6}
    drifts_first = tasks.transition[:, 1, 0, 0] == 1.0
    assert drifts_first.mean() == pytest.approx(0.5, abs=0.1)
    advance = tasks.transition[:, 1, :, 2].max(-1)
    assert advance.min() >= 0.3
    assert advance.max() <= 0.8
    assert advance.std() > 0.1


def test_bandits_pay_their_best_arm():
    tasks = Bandit(arms=4, horizon=7).tasks(KEY, 500)
    means = np.asarray(tasks.reward[:, 0, :, 0])
    best = jax.vmap(exact.optimal_return)(tasks)
    np.testing.assert_allclose(best, 7 * means.max(-1), rtol=1e-5)
    assert means.mean() == pytest.approx(0.5, abs=0.03)
    assert bool(tasks.reward_binary.all())
    normal = Bandit(arms=4, kind="normal").tasks(KEY, 500)
    assert float(normal.reward.std()) == pytest.approx(1.0, abs=0.06)
    assert float(normal.reward_noise.min()) == 1.0
    assert not bool(normal.reward_binary.any())


def test_items_are_worth_what_tastes_make_of_them():
    tasks = Bandit(arms=8, kind="tastes").tasks(KEY, 4_000)
    means = np.asarray(tasks.reward[:, 0, :, 0])
    np.testing.assert_allclose(means[:, 0], -means[:, 4], atol=1e-5)  # across the circle
    np.testing.assert_allclose(means[:, 1], (means[:, 0] + means[:, 2]) / np.sqrt(2.0), atol=1e-5)
    np.testing.assert_allclose(means.var(0), 1.0, atol=0.1)
    np.testing.assert_allclose(tasks.reward_noise, 1.0)


def test_a_deceptive_bandit_has_one_sure_arm():
    tasks = Bandit(arms=10, kind="deceptive").tasks(KEY, 500)
    means, noise = np.asarray(tasks.reward[:, 0, :, 0]), np.asarray(tasks.reward_noise[:, 0])
    assert (means[:, 0] == 0.5).all()
    assert (noise[:, 0] == 0.0).all()
    assert means[:, 1:].mean() == pytest.approx(0.0, abs=0.05)
    assert means[:, 1:].std() == pytest.approx(1.0, abs=0.05)
    np.testing.assert_allclose(noise[:, 1:] ** 2, 0.5, rtol=1e-6)
    assert not bool(tasks.reward_binary.any())


# --- mixtures -------------------------------------------------------------------------------------


def test_a_mixture_hands_out_every_share_and_says_which():
    family = Mixture([(Bandit.toy(), 1.0), (Chain.toy(), 3.0), (Bandit(arms=4), 4.0)])
    tasks, part = on_host(family.tasks_with_component(KEY, 40))
    assert np.bincount(part).tolist() == [5, 15, 20]
    states, actions = tasks.state_mask.sum(-1), tasks.action_mask.sum(-1)
    assert (states[part != 1] == 1).all()
    assert (states[part == 1] >= 3).all()
    assert [set(actions[part == i].tolist()) for i in range(3)] == [{2}, {2}, {4}]
    assert (np.diff(part) < 0).any()  # shuffled
    rewards = {row.tobytes() for row in tasks.reward}
    assert len(rewards) == 40  # nobody is handed out twice
    plain = family.tasks(KEY, 40)
    np.testing.assert_array_equal(plain.reward, tasks.reward)


def test_shares_that_do_not_divide_are_right_on_average():
    family = Mixture([(Bandit.toy(), 3.0), (Bandit(arms=4), 1.0)])
    parts = [np.asarray(family.tasks_with_component(jax.random.key(i), 2)[1]) for i in range(100)]
    counts = np.stack([np.bincount(part, minlength=2) for part in parts])
    assert set(counts[:, 1].tolist()) == {0, 1}
    assert counts[:, 1].mean() == pytest.approx(0.5, abs=0.15)


def test_one_task_of_a_mixture():
    family = Mixture([(Bandit.toy(), 3.0), (Bandit(arms=4), 1.0)])
    assert family.size() == (1, 4)
    keys = jax.random.split(KEY, 400)
    tasks = jax.jit(jax.vmap(lambda key: family.sample(key, "train")))(keys)
    assert float((tasks.action_mask.sum(-1) == 4).mean()) == pytest.approx(0.25, abs=0.08)


# --- the registry ---------------------------------------------------------------------------------


def test_families_are_made_by_name():
    assert isinstance(make(), Navigation)
    assert make("frozen_lake", size=3, success_rate=1).size == 3
    assert frozen_lake(size=3).size == 3
    assert make("chain", advance=[0.2, 0.4]).advance == (0.2, 0.4)
    assert make("chain", horizon=None).horizon is None


def test_a_mistyped_family_is_named_with_its_neighbour():
    with pytest.raises(UnknownNameError, match=r"'frozen_lak'.*Did you mean 'frozen_lake'\?"):
        make("frozen_lak")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("frozen_lake", {"siz": 4}, r"no option 'siz'.*success_rate.*Did you mean 'size'\?"),
        ("frozen_lake", {"size": "four"}, r"'size'.*int.*'four'"),
        ("frozen_lake", {"size": True}, "'size'.*int.*True"),
        ("frozen_lake", {"size": 1}, "size >= 2.*size=1"),
        ("frozen_lake", {"frozen": 1.0}, r"frozen in \(0, 1\)"),
        ("frozen_lake", {"horizon": 0}, "horizon"),
        ("frozen_lake", {"horizon": 2.5}, "'horizon'.*int"),
        ("frozen_lake", {"size": 8, "frozen": 0.01}, "larger `frozen`"),
        ("navigation", {"min_size": 6}, "min_size=6"),
        ("navigation", {"walls": 0.5, "holes": 0.5}, "walls=0.5"),
        ("navigation", {"max_slip": 1.5}, "1.5"),
        ("navigation", {"stay": 1}, "'stay'.*bool"),
        ("random_mdp", {"num_states": 0}, "num_states"),
        ("random_mdp", {"kind": "sparse", "branching": 11}, "branching=11"),
        ("random_mdp", {"termination": 0.5}, "of sparse"),
        ("navigation", {"max_step_cost": float("inf")}, "'max_step_cost'.*float.*inf"),
        ("chain", {"min_length": 1}, "min_length=1"),
        ("chain", {"advance": (0.5, 0.5)}, "low < high"),
        ("chain", {"advance": (0.5, 0.99)}, "advance"),
        ("chain", {"back": 0.1}, "'back'.*tuple"),
        ("bandit", {"arms": 1}, "arms=1"),
        ("mixture", {"parts": []}, "at least one"),
        ("mixture", {"parts": ["chain"]}, "'chain'"),
        ("mixture", {"parts": 3}, "must list families.*Got 3"),
        ("mixture", {"parts": [(Bandit(), 0.0)]}, "weight > 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(name, options, words):
    with pytest.raises(ConfigError, match=words):
        make(name, **options)


def test_a_negative_seed_of_lakes_is_refused():
    with pytest.raises(UsageError, match=r"`seed`.*-1"):
        make("frozen_lake", seed=-1)


@pytest.mark.parametrize("name", ["bandit", "random_mdp"])
def test_an_unknown_kind_is_refused(name):
    with pytest.raises(UnknownNameError, match=r"`kind`.*'dens'"):
        make(name, kind="dens")


# --- baselines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        name if name != "mixture" else pytest.param(name, marks=pytest.mark.slow)
        for name in FAMILIES
    ],
)
def test_baselines_are_what_the_test_split_gives(name):
    family = FAMILIES[name]()
    tasks = family.tasks(jax.random.key(77), 600, "test")

    def both(task):
        return exact.policy_return(task, exact.uniform_policy(task)), exact.optimal_return(task)

    scores = jax.jit(jax.vmap(both))(tasks)
    for label, score in zip(("random", "optimum"), on_host(scores), strict=True):
        noise = score.std() / np.sqrt(len(score))
        assert noise < 0.1 * max(1.0, abs(family.baselines["optimum"]))
        assert score.mean() == pytest.approx(family.baselines[label], abs=4 * noise)


def test_baselines_of_the_lake_are_exact():
    lake = FrozenLake()
    tasks = lake.distinct("test")
    share = jax.nn.softmax(lake.log_weights["test"])
    fixed = exact.non_adaptive_policy(lake.tasks(KEY, 4000, "train"))
    returns = jax.jit(jax.vmap(exact.policy_return, in_axes=(0, None)))
    best = jax.jit(jax.vmap(exact.optimal_return))(tasks)
    even = returns(tasks, jnp.full((16, 4), 0.25))
    assert float(share @ even) == pytest.approx(lake.baselines["random"], abs=0.002)
    assert float(share @ best) == pytest.approx(lake.baselines["optimum"], abs=0.002)
    # Which of the nearly equal plans wins depends on the sample: 0.230 to 0.239 over three.
    assert float(share @ returns(tasks, fixed)) == pytest.approx(
        lake.baselines["non_adaptive"], abs=0.02
    )
