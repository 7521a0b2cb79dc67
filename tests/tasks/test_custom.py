"""Families of one's own: from a function of arrays, from a function that makes environments."""

from __future__ import annotations

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
from gymnasium.wrappers import TimeLimit

from metaql.errors import InvalidTaskError, UnknownNameError, UnsupportedSpaceError, UsageError
from metaql.tasks import exact
from metaql.tasks.families.base import SPLITS
from metaql.tasks.families.custom import ArrayFamily, EnvironmentFamily, environment_family
from metaql.tasks.finite import FiniteTask, finite_task

TEMPLATE = finite_task(np.eye(3)[:, None, :].repeat(2, 1), np.zeros((3, 2)), horizon=4)
ONE_EACH = {"train": 1, "validation": 1, "test": 1}


def draw(key):
    """Three states that are never left, six rewards drawn anew: the optimum is known."""
    reward = jax.random.normal(key, (3, 2))
    return TEMPLATE._replace(reward=jnp.broadcast_to(reward[:, :, None], (3, 2, 3)))


def prints(tasks: FiniteTask):
    """One hashable value for every task of a batch."""
    leaves = [np.asarray(leaf) for leaf in tasks]
    return [b"".join(leaf[i].tobytes() for leaf in leaves) for i in range(len(leaves[0]))]


@jax.jit
@jax.vmap
def optimum_and_random(task):
    return exact.optimal_return(task), exact.policy_return(task, exact.uniform_policy(task))


# --- from arrays ----------------------------------------------------------------------------


def test_array_family_draws_what_the_function_draws():
    family = ArrayFamily(draw, name="rewards", summary="three rewards", shares_states=True)
    assert (family.name, family.summary, family.shares_states) == ("rewards", "three rewards", True)
    tasks = family.tasks(jax.random.key(0), 50)
    assert tasks.transition.shape == (50, 3, 2, 3)
    best = jax.vmap(exact.optimal_return)(tasks)
    np.testing.assert_allclose(best, 4 * tasks.reward[:, 0, :, 0].max(-1), rtol=1e-5)


def test_array_family_splits_never_share_a_task():
    family = ArrayFamily(draw)
    seen = [prints(family.tasks(jax.random.key(0), 40, split)) for split in SPLITS]
    assert len(set().union(*seen)) == 120
    with pytest.raises(UnknownNameError, match="'dev'"):
        family.tasks(jax.random.key(0), 1, "dev")


def test_array_family_repeats_with_its_key():
    family = ArrayFamily(draw)
    first, second, other = (family.tasks(jax.random.key(k), 3) for k in (1, 1, 2))
    assert prints(first) == prints(second)
    assert prints(first) != prints(other)


def test_two_array_families_do_not_share_a_compiled_program():
    double = ArrayFamily(lambda key: draw(key)._replace(horizon=jnp.asarray(8, jnp.int32)))
    assert ArrayFamily(draw).tasks(jax.random.key(0), 2).horizon.tolist() == [4, 4]
    assert double.tasks(jax.random.key(0), 2).horizon.tolist() == [8, 8]


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (lambda key: 3, "must return a `FiniteTask`"),
        (lambda key: tuple(draw(key)), "must return a `FiniteTask`"),
        (lambda key: finite_task(jnp.eye(2)[:, None], jax.random.normal(key, (2, 1))), "jax.numpy"),
        (lambda key: draw(key) if jax.random.bernoulli(key) else TEMPLATE, "jax.numpy"),
        (lambda key: TEMPLATE._replace(reward=jnp.zeros((3, 2))), r"`reward`.*\(3, 2, 3\)"),
        (lambda key: TEMPLATE._replace(horizon=jnp.ones(3)), r"`horizon`.*shape \(\)"),
        (lambda key: TEMPLATE._replace(transition=0.9 * TEMPLATE.transition), "sums to 0.9"),
        (lambda key: draw(key)._replace(termination=jnp.full((3, 2, 3), 2.0)), "termination"),
        (lambda key: TEMPLATE._replace(reward=jnp.full((3, 2, 3), jnp.nan)), "finite"),
    ],
)
def test_a_function_that_draws_no_task_is_refused(sample, words):
    with pytest.raises(InvalidTaskError, match=words):
        ArrayFamily(sample)


def test_errors_of_the_function_itself_are_not_hidden():
    def broken(key):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        ArrayFamily(broken)


# --- from environments ----------------------------------------------------------------------


def lake(rows, horizon=10):
    return TimeLimit(FrozenLakeEnv(desc=list(rows), is_slippery=False), horizon)


def test_environment_family_holds_the_tables_of_its_environments():
    # Down is action 1, right is 2; where the next cell on one way is a hole, the other way is best.
    maps = [("SF", "FG"), ("SH", "FG"), ("SF", "HG")]
    best = {"train": [1, 2], "validation": [1], "test": [2]}
    family = environment_family(lambda seed: lake(maps[seed]), num_tasks=ONE_EACH)
    for split in SPLITS:
        task = jax.tree.map(lambda leaf: leaf[0], family.tasks(jax.random.key(0), 1, split))
        q = exact.plan_horizon(exact.model_of(task), 2)[0]
        assert np.flatnonzero(q == 1.0).tolist() == best[split]


def test_environment_family_pads_to_the_largest():
    maps = [("SF", "FG"), ("SFF", "FFF", "FFG")]
    family = environment_family(
        lambda seed: lake(maps[seed % 2], 10 + seed), num_tasks={**ONE_EACH, "train": 2}
    )
    pool = family.pools["train"]
    assert pool.transition.shape == (2, 9, 4, 9)
    assert pool.state_mask.sum(-1).tolist() == [4, 9]
    assert pool.horizon.tolist() == [10, 11]
    np.testing.assert_allclose(jax.vmap(exact.optimal_return)(pool), [1.0, 1.0])


def test_a_task_of_an_earlier_split_is_left_out_of_later_ones():
    # Horizons 1 1 2 | 2 3 | 1 3 4: repetitions stay within a split, never across splits.
    horizons = [1, 1, 2, 2, 3, 1, 3, 4]
    family = environment_family(
        lambda seed: lake(("SF", "FG"), horizons[seed]),
        num_tasks={"train": 3, "validation": 2, "test": 3},
    )
    kept = {split: family.pools[split].horizon.tolist() for split in SPLITS}
    assert kept == {"train": [1, 1, 2], "validation": [3], "test": [4]}


def test_a_split_with_nothing_new_is_a_usage_error():
    with pytest.raises(UsageError, match="must not share") as caught:
        environment_family(lambda seed: lake(("SF", "FG")), num_tasks=ONE_EACH)
    assert "`validation`" in caught.value.evidence
    assert caught.value.remedy


def test_tasks_are_drawn_uniformly_from_the_pool():
    family = environment_family(
        lambda seed: lake(("SF", "FG"), 1 + seed), num_tasks={**ONE_EACH, "train": 4}
    )
    drawn = np.asarray(family.tasks(jax.random.key(3), 4000).horizon)
    counts = np.bincount(drawn, minlength=5)[1:]
    # Chi-square with 3 degrees of freedom: 16.3 is exceeded once in a thousand.
    assert ((counts - 1000) ** 2 / 1000).sum() < 16.3
    assert set(family.tasks(jax.random.key(3), 50, "test").horizon.tolist()) == {6}


def test_seeds_run_on_from_the_first():
    seen = []

    def make_env(seed):
        seen.append(seed)
        return lake(("SF", "FG"), seed)

    environment_family(make_env, num_tasks={"train": 2, "validation": 1, "test": 2}, seed=30)
    assert seen == [30, 31, 32, 33, 34]


def test_environments_without_a_table_are_estimated_and_closed(corridor):
    closed = []

    class Counted(corridor):
        def close(self):
            closed.append(self.patience)

    family = environment_family(
        lambda seed: Counted(patience=5 + seed), num_tasks=ONE_EACH, estimate_steps=200
    )
    assert closed == [5, 6, 7]
    task = jax.tree.map(lambda leaf: leaf[0], family.pools["test"])
    assert int(task.horizon) == 7
    assert exact.optimal_return(task) == pytest.approx(1.0)


def test_equal_environments_without_a_table_have_equal_estimates(corridor):
    with pytest.raises(UsageError, match="must not share"):
        environment_family(lambda seed: corridor(), num_tasks=ONE_EACH, estimate_steps=100)


def test_ids_are_environments_too():
    ids = ["FrozenLake-v1", "FrozenLake8x8-v1", "CliffWalking-v1"]
    family = environment_family(lambda seed: ids[seed], num_tasks=ONE_EACH, name="mixed")
    assert (family.name, family.shares_states) == ("mixed", False)
    sizes = [int(family.pools[split].state_mask.sum()) for split in SPLITS]
    assert sizes == [16, 64, 48]


@pytest.mark.parametrize("thing", [None, 3, gymnasium.Env, (None, {})])
def test_what_is_no_environment_is_refused(thing):
    with pytest.raises(InvalidTaskError, match=r"make_env\(0\)` returned"):
        environment_family(lambda seed: thing, num_tasks=ONE_EACH)


def test_wrong_spaces_and_wrong_counts_are_refused():
    with pytest.raises(UnsupportedSpaceError, match="Discrete"):
        environment_family(lambda seed: "CartPole-v1", num_tasks=ONE_EACH)
    with pytest.raises(UnknownNameError, match="'dev'"):
        environment_family(lambda seed: lake(("SF", "FG")), num_tasks={**ONE_EACH, "dev": 1})
    for counts in ({"train": 5}, {**ONE_EACH, "test": 0}):
        with pytest.raises(UsageError, match=r"none for .*test"):
            environment_family(lambda seed: lake(("SF", "FG")), num_tasks=counts)


# --- both -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ArrayFamily, EnvironmentFamily])
def test_toys_are_families_with_separate_splits(kind):
    family = kind.toy()
    tasks = {split: family.tasks(jax.random.key(0), 30, split) for split in SPLITS}
    marks = {split: set(prints(batch)) for split, batch in tasks.items()}
    assert not marks["train"] & marks["test"]
    assert not marks["train"] & marks["validation"]
    assert not marks["validation"] & marks["test"]
    for batch in tasks.values():
        np.testing.assert_allclose(batch.transition.sum(-1), 1.0, atol=1e-6)
        best, random = optimum_and_random(batch)
        assert (best > random).all()
