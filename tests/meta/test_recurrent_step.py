"""One iteration of RecurrentQ's meta-training, part by part."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.recurrent import sight_of
from metaql.errors import ConfigError
from metaql.meta.lifetime import begin, live_step
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.recurrent_loss import replayed_values, scenes_of, seen_again, segment_loss
from metaql.meta.recurrent_step import (
    RecurrentState,
    _later,
    adjusted,
    begin_lives,
    live_segment,
    optimizer_for,
    recurrent_step,
    split_learner,
)
from metaql.policy.network import Sizes
from metaql.policy.recurrentq import RecurrentQ
from metaql.qlearning.td import lambda_returns
from metaql.tasks.families import CartPole, Chain, GridNavi, KeyToDoor

BEGIN, START = eqx.filter_jit(begin), eqx.filter_jit(begin_lives)
LIVE, REPLAYED = eqx.filter_jit(live_segment), eqx.filter_jit(replayed_values)
SEEN = eqx.filter_jit(seen_again)
ABREAST = eqx.filter_jit(jax.vmap(live_segment, in_axes=(None, 0, 0, None)))
ADJUSTED = eqx.filter_jit(adjusted)
STEP, LOSS = eqx.filter_jit(live_step), eqx.filter_jit(segment_loss)
KEY = jax.random.key(0)
CONFIG = RecurrentConfig(
    lifetimes=8, segment_steps=24, minibatches=2, hidden=8, width=8, bank=16, episodes=(2, 3)
)


def learner_for(family, epsilon=0.3):
    task = family.sample(KEY, "train")
    actions, sight = task.spec(1).action_mask.shape, sight_of(task, family.columns)
    learner = RecurrentQ(KEY, sight=sight, actions=actions, sizes=Sizes(8, 8))
    return eqx.tree_at(
        lambda q: (q.epsilon, q.unit, q.scale),
        learner,
        (jnp.asarray(epsilon), jnp.asarray(2.0), jnp.asarray(3.0)),
    )


def state_for(family, config=CONFIG):
    learner, bank = learner_for(family), family.tasks(KEY, config.bank)
    tasks, lives = START(learner, bank, KEY, config, first=True)
    optimizer = optimizer_for(config).init(split_learner(learner)[0])
    zero = jnp.zeros((), jnp.int32)
    return bank, RecurrentState(learner, optimizer, tasks, lives, KEY, zero)


@pytest.mark.parametrize("family", [GridNavi.toy(), KeyToDoor.toy(), CartPole.toy(), Chain.toy()])
def test_a_replayed_segment_has_the_values_of_the_steps(family):
    """What `adapt` computes step by step is what training sees, to rounding."""
    learner, task = learner_for(family), family.sample(KEY, "train")
    first, _ = LIVE(learner, task, BEGIN(learner, task, KEY, 9), CONFIG)
    life, values, actions = first, [], []
    for _ in range(CONFIG.segment_steps):
        values.append(learner.values(life.memory, task.observe(life.state)))
        life, record = STEP(learner, task, life, life.memory)
        actions.append(int(record.transition.action))
    again, segment = LIVE(learner, task, first, CONFIG)
    assert np.asarray(segment.note.transition.action).tolist() == actions
    np.testing.assert_allclose(again.memory.hidden, life.memory.hidden, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, again.memory.counts, life.memory.counts)
    scenes = SEEN(learner, first.memory, segment.note)
    replayed = learner.scale * REPLAYED(learner, first.memory, segment.note, scenes)
    np.testing.assert_allclose(replayed, np.stack(values), atol=2e-5)


def test_staggered_ends_in_a_batch_change_nothing():
    """A lifetime in a batch, whose episodes end at other times than the others', is as it is alone."""
    family = CartPole()
    learner, tasks = learner_for(family, epsilon=1.0), family.tasks(KEY, 6)
    keys = jax.random.split(KEY, 6)
    lives = jax.vmap(begin, in_axes=(None, 0, 0, None))(learner, tasks, keys, 3)
    later, batch = ABREAST(learner, tasks, lives, _long())
    ends = np.asarray(batch.note.transition.terminated)
    assert len({tuple(row) for row in ends}) > 3
    for index in range(6):
        task = jax.tree.map(lambda x, i=index: x[i], tasks)
        life, alone = LIVE(learner, task, BEGIN(learner, task, keys[index], 3), _long())
        np.testing.assert_array_equal(ends[index], alone.note.transition.terminated)
        np.testing.assert_allclose(batch.target[index], alone.target, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(later.memory.hidden[index], life.memory.hidden, atol=1e-5)


def _long():
    return RecurrentConfig(lifetimes=8, segment_steps=60, minibatches=2)


def test_returns_go_on_across_episodes_and_end_with_the_lifetime():
    family = GridNavi.toy()  # 8 steps an episode
    learner, task = learner_for(family), family.sample(KEY, "train")
    _, segment = LIVE(learner, task, BEGIN(learner, task, KEY, 2), CONFIG)
    reward, alive = (np.asarray(x) for x in (segment.note.transition.reward, segment.alive))
    assert alive.tolist() == [True] * 16 + [False] * 8
    start = BEGIN(learner, task, KEY, 2).memory
    scenes = SEEN(learner, start, segment.note)
    best = np.asarray(REPLAYED(learner, start, segment.note, scenes))
    best = 3.0 * best.max(-1)  # the scale
    expected = np.zeros(17)
    for t in reversed(range(16)):
        onward = (
            0.0 if t == 15 else (1 - CONFIG.trace) * best[t + 1] + CONFIG.trace * expected[t + 1]
        )
        discount = CONFIG.discount * (CONFIG.episode_discount if t == 7 else 1.0)
        expected[t] = reward[t] + discount * onward
    np.testing.assert_allclose(segment.target[:16], expected[:16], rtol=1e-4, atol=1e-4)


def test_an_action_gap_lowers_targets_by_what_actions_are_worth_less():
    """Baird's advantage learning: the same steps, and nothing is taken from greedy ones."""
    family = GridNavi.toy()
    bold = eqx.tree_at(lambda q: q.epsilon, learner_for(family), jnp.asarray(0.5))
    life = BEGIN(bold, family.sample(KEY, "train"), KEY, 2)
    wide = dataclasses.replace(CONFIG, action_gap=0.75)
    plain, widened = (
        LIVE(bold, family.sample(KEY, "train"), life, config)[1] for config in (CONFIG, wide)
    )
    np.testing.assert_array_equal(plain.note.transition.action, widened.note.transition.action)
    values = 3.0 * np.asarray(
        REPLAYED(bold, life.memory, plain.note, SEEN(bold, life.memory, plain.note))
    )
    taken = values[np.arange(24), np.asarray(plain.note.transition.action)]
    short = (values.max(-1) - taken)[:16]
    assert (short == 0).any()
    assert short.max() > 0.1
    np.testing.assert_allclose(
        (plain.target - widened.target)[:16], 0.75 * short, rtol=1e-4, atol=1e-4
    )


def test_the_last_step_of_a_segment_bootstraps_from_what_follows():
    family = GridNavi.toy()
    learner, task = learner_for(family), family.sample(KEY, "train")
    config = RecurrentConfig(lifetimes=8, segment_steps=8, minibatches=2)
    life, segment = LIVE(learner, task, BEGIN(learner, task, KEY, 2), config)
    # The episode has just been truncated: the start of the next one is what follows.
    assert bool(segment.note.transition.truncated[-1])
    onward = float(learner.values(life.memory, task.observe(life.state)).max())
    discount = config.discount * config.episode_discount
    last = float(segment.note.transition.reward[-1]) + discount * onward
    assert float(segment.target[-1]) == pytest.approx(last, rel=1e-5)


def test_dead_steps_count_for_nothing():
    family = GridNavi.toy()
    learner, task = learner_for(family), family.sample(KEY, "train")
    life = BEGIN(learner, task, KEY, 2)
    _, segment = LIVE(learner, task, life, CONFIG)
    starts, batch = jax.tree.map(lambda x: x[None], (life.memory, segment))
    spoilt = batch._replace(target=jnp.where(batch.alive, batch.target, 1e6))
    scenes = scenes_of(learner, starts, batch)
    assert float(LOSS(learner, starts, spoilt, scenes)) == float(
        LOSS(learner, starts, batch, scenes)
    )


EPISODE = RecurrentConfig(
    lifetimes=8, segment_steps=8, minibatches=2, hidden=8, width=8, bank=16, episodes=(2, 2)
)
"""A segment is one episode of the toy grid."""


def test_only_what_is_over_is_renewed():
    bank, state = state_for(GridNavi.toy(), EPISODE)
    budgets = np.asarray(state.lives.episodes)
    assert set(budgets) == {1, 2}  # the first ones are shorter by lot
    once, _ = recurrent_step(bank, state, EPISODE)
    twice, _ = recurrent_step(bank, once, EPISODE)
    np.testing.assert_array_equal(once.lives.episode, np.ones(8))
    np.testing.assert_array_equal(np.asarray(twice.lives.episode), np.where(budgets == 1, 1, 2))
    same = np.array_equal(
        np.asarray(once.tasks.reward)[budgets == 2], np.asarray(twice.tasks.reward)[budgets == 2]
    )
    assert same
    assert (np.asarray(twice.lives.episodes) == 2).all()


def test_units_follow_what_was_lived_and_values_stay():
    family = CartPole.toy()
    learner, tasks = learner_for(family), family.tasks(KEY, 4)
    lives = jax.vmap(begin, in_axes=(None, 0, 0, None))(learner, tasks, jax.random.split(KEY, 4), 3)
    _, segments = ABREAST(learner, tasks, lives, CONFIG)
    after = ADJUSTED(learner, segments, CONFIG)
    assert float(after.unit) == 2.0  # the largest so far; here all are 1
    seen, alive = segments.note.transition, np.asarray(segments.alive)
    rows = np.concatenate([np.asarray(x)[alive] for x in (seen.state, seen.next_state)])
    np.testing.assert_allclose(after.sight.mean, rows.mean(0), atol=1e-5)
    assert float(after.sight.count) == len(rows)


def test_the_scale_of_returns_is_their_standard_deviation_slowly_followed():
    """Discounted by hand, across the ends of episodes, over living steps alone."""
    family = GridNavi.toy()
    learner, tasks = learner_for(family, epsilon=1.0), family.tasks(KEY, 4)
    lives = jax.vmap(begin, in_axes=(None, 0, 0, None))(learner, tasks, jax.random.split(KEY, 4), 2)
    _, segments = ABREAST(learner, tasks, lives, CONFIG)
    seen, alive = segments.note.transition, np.asarray(segments.alive)
    ended = np.asarray(seen.terminated | seen.truncated)
    returns = np.zeros((4, CONFIG.segment_steps + 1))
    for t in reversed(range(CONFIG.segment_steps)):
        discount = CONFIG.discount * np.where(ended[:, t], CONFIG.episode_discount, 1.0)
        returns[:, t] = np.where(alive[:, t], seen.reward[:, t] + discount * returns[:, t + 1], 0.0)
    spread = returns[:, :-1][alive].std()
    after = ADJUSTED(learner, segments, CONFIG)
    assert float(after.scale) == pytest.approx(np.sqrt(0.98 * 3.0**2 + 0.02 * spread**2), rel=1e-5)
    untold = eqx.tree_at(lambda q: (q.unit, q.scale), learner, (jnp.zeros(()), jnp.ones(())))
    assert float(ADJUSTED(untold, segments, CONFIG).scale) == pytest.approx(spread, rel=1e-5)


def test_gradients_move_weights_and_nothing_else():
    bank, state = state_for(GridNavi.toy(), EPISODE)
    start, _ = recurrent_step(bank, state, EPISODE)
    after, figures = recurrent_step(bank, start, EPISODE)
    assert float(figures.epsilon) < 1.0
    before, later = (split_learner(each.learner) for each in (state, after))
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before[0], later[0])
    assert all(jax.tree.leaves(moved))
    assert float(after.learner.scale) != float(start.learner.scale)  # it follows the returns
    assert np.isfinite(float(figures.loss))


def test_keys_are_used_once():
    family = GridNavi.toy()
    learner, bank = learner_for(family), family.tasks(jax.random.key(1), CONFIG.bank)
    with jax.debug_key_reuse(True):
        begin_lives(learner, bank, jax.random.key(2), CONFIG, first=False)
        task = family.sample(jax.random.key(3), "train")
        live_segment(learner, task, begin(learner, task, jax.random.key(4), 2), CONFIG)


def test_lambda_returns_are_the_ones_of_q_learning():
    """One definition per equation: the segment's targets come from `qlearning.td`."""
    rewards, onward = jnp.asarray([1.0, 2.0]), jnp.asarray([5.0, 7.0])
    found = lambda_returns(rewards, jnp.asarray([0.5, 0.0]), onward, 0.5)
    np.testing.assert_allclose(found, [1.0 + 0.5 * (0.5 * 5.0 + 0.5 * 2.0), 2.0])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lifetimes": 10, "minibatches": 4}, "multiple"),
        ({"discount": 1.5}, "discount"),
        ({"action_gap": 1.0}, "action_gap"),
        ({"episodes": (3, 2)}, "low <= high"),
        ({"segment_steps": 0}, "segment_steps"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        RecurrentConfig(**settings)


def test_where_nothing_was_lived_the_rate_falls_all_the_same():
    """Or a training whose episodes end early would end at nearly the rate it began with."""
    tool = optimizer_for(RecurrentConfig(env_steps=1, lifetimes=4, minibatches=2))
    state = tool.init({"w": jnp.ones(2)})

    def counts(state):
        leaves = jax.tree.leaves(state, is_leaf=lambda each: hasattr(each, "_fields"))
        states = [part for each in leaves for part in (each if isinstance(each, tuple) else [each])]
        kept = [each for each in (*leaves, *states) if "count" in getattr(each, "_fields", ())]
        return {type(each).__name__: int(each.count) for each in kept}

    before, after = counts(state), counts(_later(state))
    assert after.pop("ScaleByScheduleState") == before.pop("ScaleByScheduleState") + 1
    assert after == before
