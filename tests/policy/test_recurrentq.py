"""RecurrentQ: a learner like the others."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.chart import Chart
from metaql.embedding.ledger import Ledger
from metaql.embedding.recurrent import Sight
from metaql.meta.lifetime import advance, begin_all, live
from metaql.policy.network import ActionHead, Sizes
from metaql.policy.recurrentq import RecurrentQ
from metaql.qlearning.td import greedy_value, value_of
from metaql.tasks.families import CartPole, GridNavi
from metaql.types import Learner, TaskSpec, Transition

KEY = jax.random.key(0)


def learner(**options):
    return RecurrentQ(KEY, sight=Sight(numbers=25), actions=(5,), sizes=Sizes(8, 8), **options)


def spec(mask=(True,) * 5):
    return TaskSpec(jnp.ones(25, bool), jnp.asarray(mask), jnp.asarray(8), jnp.asarray(3))


def test_it_is_a_learner():
    assert isinstance(learner(), Learner)


def test_actions_that_do_not_exist_are_never_chosen():
    wild = eqx.tree_at(lambda q: q.epsilon, learner(), jnp.ones(()))
    for each in (wild, learner()):
        memory = each.init(KEY, spec((False, True, False, True, False)))
        act = jax.vmap(lambda key, each=each, memory=memory: each.act(key, memory, jnp.asarray(3)))
        decision = act(jax.random.split(KEY, 100))
        assert set(np.asarray(decision.action).tolist()) <= {1, 3}
        assert np.isneginf(np.asarray(decision.values)[:, [0, 2, 4]]).all()


def test_epsilon_is_the_share_of_random_actions():
    half = eqx.tree_at(lambda q: q.epsilon, learner(), jnp.asarray(0.5))
    memory = half.init(KEY, spec())
    decision = jax.vmap(lambda key: half.act(key, memory, jnp.asarray(3)))(
        jax.random.split(KEY, 4000)
    )
    greedy = np.asarray(decision.values[0]).argmax()
    share = (np.asarray(decision.action) == greedy).mean()
    assert abs(share - (0.5 + 0.5 / 5)) < 0.03


def test_every_part_of_an_action_explores_by_itself():
    """So what one joint's move is worth is seen beside the best that the others know."""
    sight, chance = Sight(entries=2), 0.5 * 3 / 4
    arm = RecurrentQ(KEY, sight=sight, actions=(2, 4), sizes=Sizes(8, 8))
    arm = eqx.tree_at(lambda q: q.epsilon, arm, jnp.asarray(0.5))
    facts = jnp.zeros(0, bool), jnp.ones((2, 4), bool), jnp.asarray(8), jnp.asarray(3)
    memory = arm.init(KEY, TaskSpec(*facts))
    decision = jax.vmap(lambda key: arm.act(key, memory, jnp.zeros(2)))(jax.random.split(KEY, 4000))
    other = np.asarray(decision.action) != np.asarray(decision.values[0]).argmax(-1)
    np.testing.assert_allclose(other.mean(0), chance, atol=0.03)
    assert abs(other.all(1).mean() - chance**2) < 0.03


def test_every_episode_has_a_share_of_random_actions_of_its_own():
    """From epsilon to epsilon to the power of 1 + spread, kept to until the episode ends."""
    bold = eqx.tree_at(lambda q: q.epsilon, learner(epsilon_spread=4.0), jnp.asarray(0.5))
    keys = jax.random.split(KEY, 4000)

    def power_after(key, ended):
        memory = bold.init(KEY, spec())
        return bold.update(key, memory, moved(ended=ended)).power

    first = jax.vmap(lambda key: bold.init(key, spec()).power)(keys)
    again = jax.vmap(lambda key: power_after(key, True))(keys)
    for powers in (first, again):
        np.testing.assert_allclose(np.quantile(powers, (0, 0.25, 0.5, 1)), (1, 2, 3, 5), atol=0.1)
    kept = jax.vmap(lambda key: power_after(key, False))(keys)
    assert np.unique(kept).tolist() == [float(bold.init(KEY, spec()).power)]
    memory = bold.init(KEY, spec())._replace(power=jnp.asarray(3.0))
    decision = jax.vmap(lambda key: bold.act(key, memory, jnp.asarray(3)))(keys)
    strange = np.asarray(decision.action) != np.asarray(decision.values[0]).argmax()
    assert abs(strange.mean() - 0.5**3 * 4 / 5) < 0.02
    assert learner().init(KEY, spec()).power is None


def on_a_grid(**sizes):
    sight = Sight(numbers=25, columns=5)
    return RecurrentQ(KEY, sight=sight, actions=(5,), sizes=Sizes(8, 8, **sizes))


def moved(reward=1.0, ended=False):
    """From cell 7 to cell 12."""
    off, last = jnp.asarray(False), jnp.asarray(ended)
    there = (jnp.asarray(1), jnp.asarray(reward), jnp.asarray(12))
    return Transition(jnp.asarray(7), *there, terminated=off, truncated=last)


def test_a_chart_is_of_where_one_arrived():
    q = eqx.tree_at(lambda q: q.unit, on_a_grid(), jnp.asarray(4.0))
    chart = q.update(KEY, q.init(KEY, spec()), moved(reward=2.0)).counts
    assert np.flatnonzero(np.asarray(chart.paid)).tolist() == [12]
    assert float(chart.paid[2, 2]) == 0.5  # in units of the largest reward
    assert bool(chart.rewarded)


def test_a_chart_outlives_the_end_of_an_episode():
    q = on_a_grid()
    chart = q.update(KEY, q.init(KEY, spec()), moved(ended=True)).counts
    assert not bool(chart.rewarded)
    assert float(chart.met[0, 2, 2]) == 1.0


def test_the_network_sees_the_chart_from_its_cell():
    q = on_a_grid()
    empty = q.init(KEY, spec())
    drawn = empty._replace(counts=q.update(KEY, empty, moved()).counts)
    cells = jnp.arange(25)
    differ = jax.vmap(lambda s: jnp.abs(q.values(drawn, s) - q.values(empty, s)).max())(cells)
    assert float(differ.min()) > 0.0


def test_what_is_counted():
    """A chart on a grid, a ledger of other numbers; nothing of vectors, or without a context."""

    def kind(q):
        return type(q.init(KEY, spec()).counts)

    vectors = RecurrentQ(KEY, sight=Sight(entries=4), actions=(5,), sizes=Sizes(8, 8))
    parts = RecurrentQ(KEY, sight=Sight(numbers=25), actions=(2, 3), sizes=Sizes(8, 8))
    found = [kind(q) for q in (on_a_grid(), learner(), on_a_grid(context=False), vectors, parts)]
    assert found == [Chart, Ledger, type(None), type(None), type(None)]


def test_what_was_counted_of_an_action_speaks_for_it_alone():
    """Where nothing else is looked at, trying an action moves its own value, and no other."""
    q = learner()
    q = eqx.tree_at(lambda q: q.network.first.weight, q, jnp.zeros_like(q.network.first.weight))
    empty = q.init(KEY, spec())
    tried = empty._replace(counts=q.update(KEY, empty, moved()).counts)
    here, there = jnp.asarray(7), jnp.asarray(12)
    change = np.asarray(q.values(tried, here) - q.values(empty, here))
    assert np.flatnonzero(change).tolist() == [1]
    np.testing.assert_array_equal(q.values(tried, there), q.values(empty, there))


def test_relabelled_actions_are_relabelled_values():
    head = ActionHead(KEY, width=8, facts=3)
    x, facts = jax.random.normal(KEY, (8,)), jax.random.normal(KEY, (3, 5))
    order = jnp.asarray([3, 0, 4, 1, 2])
    np.testing.assert_allclose(head(x, facts)[order], head(x, facts[:, order]), rtol=1e-6)


def test_parts_of_an_action_are_chosen_by_themselves():
    """What does not exist in one part may exist in another; the value is the mean over parts."""
    parts = RecurrentQ(KEY, sight=Sight(numbers=25), actions=(2, 3), sizes=Sizes(8, 8))
    mask = jnp.asarray([[True, True, False], [False, True, True]])
    task = TaskSpec(jnp.ones(25, bool), mask, jnp.asarray(8), jnp.asarray(3))
    memory = parts.init(KEY, task)
    values = parts.values(memory, jnp.asarray(3))
    assert values.shape == (2, 3)
    best = parts.act(KEY, memory, jnp.asarray(3)).action
    np.testing.assert_array_equal(best, np.asarray(values).argmax(-1))
    mean = np.asarray(values).max(-1).mean()
    np.testing.assert_allclose(greedy_value(values), mean, rtol=1e-6)
    finite = jnp.where(mask, values, 0.0)
    np.testing.assert_allclose(value_of(finite, best), mean, rtol=1e-6)
    wild = eqx.tree_at(lambda q: q.epsilon, parts, jnp.ones(()))
    keys = jax.random.split(KEY, 200)
    action = jax.vmap(lambda key: wild.act(key, memory, jnp.asarray(3)).action)(keys)
    found = {tuple(row) for row in np.asarray(action).tolist()}
    assert found == {(a, b) for a in (0, 1) for b in (1, 2)}


@pytest.mark.parametrize("generated", [False, True])
def test_another_scale_keeps_the_values(generated):
    sizes = Sizes(8, 8, generated=generated)
    usual = RecurrentQ(KEY, sight=Sight(numbers=25), actions=(5,), sizes=sizes)
    other = usual.rescaled(jnp.asarray(37.0))
    memory = usual.init(KEY, spec())._replace(hidden=jax.random.normal(KEY, (8,)))
    before, after = (each.values(memory, jnp.asarray(3)) for each in (usual, other))
    np.testing.assert_allclose(before, after, rtol=1e-5)
    assert float(other.scale) == 37.0


def test_memory_survives_the_end_of_an_episode():
    family = GridNavi.toy()
    tasks = family.tasks(KEY, 4)
    lives = begin_all(learner(), tasks, jax.random.split(KEY, 4), 3)
    assert np.all(np.asarray(lives.memory.hidden) == 0)
    lives, _ = advance(learner(), tasks, lives, family.horizon)
    assert np.all(np.asarray(lives.memory.clock.episode) == 1)
    assert np.all(np.asarray(lives.memory.clock.step) == 0)
    assert np.abs(np.asarray(lives.memory.hidden)).min(axis=1).max() > 0


def test_it_lives_where_observations_are_vectors():
    family = CartPole.toy()
    tasks = family.tasks(KEY, 3)
    cart = RecurrentQ(KEY, sight=Sight(entries=4), actions=(2,), sizes=Sizes(8, 8))
    lives = live(cart, tasks, jax.random.split(KEY, 3), episodes=2)
    np.testing.assert_array_equal(lives.returns, lives.lengths)  # 1 per step
    assert lives.lengths.max() <= family.horizon
