"""What every family promises, whatever it is about."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.errors import UnknownNameError
from metaql.tasks import exact
from metaql.tasks.families import (
    FAMILIES,
    SPLITS,
    Bandit,
    Chain,
    Mixture,
    Navigation,
    RandomMDP,
)

CASES = {name: family.toy() for name, family in FAMILIES.items()} | {
    "navigation of four actions": Navigation(2, 3, stay=False, walls=0.5, horizon=7),
    "sparse random_mdp": RandomMDP(6, 3, kind="sparse", termination=0.3),
    "normal bandit": Bandit(arms=3, kind="normal"),
    "deceptive bandit": Bandit(arms=3, kind="deceptive"),
    "mixture of mixtures": Mixture([Mixture([Chain.toy(), Bandit.toy()]), RandomMDP.toy()]),
    "mixture of noises": Mixture([Bandit(arms=3, kind="deceptive"), RandomMDP.toy()]),
}
COUNT = 64
# One of each family always; the variants, which compile for long, among the slow tests.
every_family = pytest.mark.parametrize(
    "name",
    [name if name in FAMILIES else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)


@cache
def batch(name, split="train", seed=0, count=COUNT):
    """Tasks on the host, drawn once for all tests."""
    tasks = CASES[name].tasks(jax.random.key(seed), count, split)
    return type(tasks)(*(np.asarray(x) for x in tasks))


def fingerprints(tasks):
    """One string of bytes per task: equal exactly when all its arrays are."""
    leaves = [np.ascontiguousarray(x) for x in tasks]
    return [b"".join(x[i].tobytes() for x in leaves) for i in range(len(leaves[0]))]


@every_family
def test_tasks_are_markov_decision_processes(name):
    tasks = batch(name)
    assert all(len(x) == COUNT for x in tasks)
    assert all(np.isfinite(x).all() for x in tasks)
    assert tasks.transition.min() >= 0
    np.testing.assert_allclose(tasks.transition.sum(-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(tasks.initial.sum(-1), 1.0, atol=1e-6)
    assert tasks.initial.min() >= 0
    assert tasks.termination.min() >= 0
    assert tasks.termination.max() <= 1
    assert tasks.horizon.min() >= 1
    assert tasks.reward_noise.min() >= 0
    binary = tasks.reward[tasks.reward_binary]
    assert binary.size == 0 or (binary.min() >= 0 and binary.max() <= 1)


@every_family
def test_masks_keep_padding_out_of_reach(name):
    tasks = batch(name)
    states, actions = tasks.state_mask, tasks.action_mask
    assert states.any(-1).all()
    assert actions.any(-1).all()
    # Real states come first, so that a smaller task is a block of the larger arrays.
    assert (np.diff(states.astype(int)) <= 0).all()
    assert (np.diff(actions.astype(int)) <= 0).all()
    assert tasks.initial[~states].sum() == 0
    real = states[:, :, None] & actions[:, None, :]
    leaks = tasks.transition * real[..., None] * ~states[:, None, None, :]
    assert leaks.max() == 0
    assert np.abs(tasks.reward[~real]).sum() == 0


@jax.jit
def wander(tasks, keys):
    """States visited by 40 steps of random existing actions, ``[N, 40]``."""

    def move(task, state, key):
        key_act, key_step, key_reset = jax.random.split(key, 3)
        action = jax.random.categorical(key_act, jnp.where(task.action_mask, 0.0, -jnp.inf))
        outcome = task.step(key_step, state, action)
        after = jnp.where(outcome.terminated, task.reset(key_reset), outcome.next_state)
        return after, outcome.next_state

    def one(task, key):
        key_first, key_rest = jax.random.split(key)
        first = task.reset(key_first)
        keys = jax.random.split(key_rest, 40)
        return jax.lax.scan(lambda state, k: move(task, state, k), first, keys)[1]

    return jax.vmap(one)(tasks, keys)


@every_family
def test_steps_stay_in_states_that_exist(name):
    tasks = batch(name)
    visited = np.asarray(wander(tasks, jax.random.split(jax.random.key(9), COUNT)))
    assert np.take_along_axis(tasks.state_mask, visited, axis=1).all()


@every_family
def test_a_key_names_its_tasks(name):
    tasks = batch(name)
    again = CASES[name].tasks(jax.random.key(0), COUNT, "train")
    for first, second in zip(tasks, again, strict=True):
        np.testing.assert_array_equal(first, second)
    others = batch(name, seed=1)
    assert fingerprints(others) != fingerprints(tasks)
    assert len(set(fingerprints(tasks))) > 1


@pytest.mark.slow
@every_family
def test_splits_never_share_a_task(name):
    seen = {split: set(fingerprints(batch(name, split, seed=2, count=2000))) for split in SPLITS}
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]
    assert all(len(tasks) > 2 for tasks in seen.values())


@every_family
def test_an_unknown_split_is_refused(name):
    with pytest.raises(UnknownNameError, match=r"Did you mean 'train'\?"):
        CASES[name].tasks(jax.random.key(0), 2, "trian")


@pytest.mark.slow
@every_family
def test_the_optimum_is_no_worse_than_chance(name):
    tasks = jax.tree.map(jnp.asarray, batch(name))

    def both(task):
        return exact.optimal_return(task), exact.policy_return(task, exact.uniform_policy(task))

    best, chance = (np.asarray(x) for x in jax.jit(jax.vmap(both))(tasks))
    assert (best >= chance - 1e-5).all()
    assert best.mean() > chance.mean() + 0.05


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_introduces_itself(name):
    family = FAMILIES[name]
    assert family.name == name
    assert 10 < len(family.summary) < 90
    assert {"random", "optimum"} <= set(family.baselines)
    assert ("non_adaptive" in family.baselines) == family.shares_states
    assert isinstance(family.toy(), family)
