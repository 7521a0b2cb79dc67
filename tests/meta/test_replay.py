"""Whole lifetimes learned from again: values, clocks and losses are those of who lived them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.recurrent import sight_of
from metaql.meta.lifetime import begin_all
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.recurrent_loss import scenes_of, segment_loss
from metaql.meta.recurrent_step import live_segment
from metaql.meta.replay import embeddings, lived_in, noted, replay_loss, replayed
from metaql.policy.network import Sizes
from metaql.policy.recurrentq import RecurrentQ
from metaql.tasks.families import CartPole, GridNavi

KEY = jax.random.key(3)
EPISODES, LENGTH = 3, 60
CONFIG = RecurrentConfig(segment_steps=LENGTH, hidden=8, width=8, discount=0.9)


def learner_for(family, **sizes):
    task = family.sample(KEY, "train")
    actions = task.spec(1).action_mask.shape
    return RecurrentQ(
        KEY, sight=sight_of(task, family.columns), actions=actions, sizes=Sizes(8, 8, **sizes)
    )


def lives(family, learner, number=4):
    tasks, keys = family.tasks(KEY, number), jax.random.split(KEY, number)
    return tasks, keys, lived_in(learner, tasks, keys, episodes=EPISODES, length=LENGTH)


@pytest.mark.parametrize("family", [CartPole(horizon=20), GridNavi(5, horizon=20)])
@pytest.mark.parametrize("sizes", [{}, {"context": False}, {"generated": True}])
def test_a_replayed_lifetime_loses_what_the_lived_one_does(family, sizes):
    """Clocks, embeddings, values and returns: the same numbers on both paths."""
    learner = learner_for(family, **sizes)
    tasks, keys, lived = lives(family, learner)
    starts = begin_all(learner, tasks, keys, EPISODES)
    after, segments = jax.vmap(live_segment, in_axes=(None, 0, 0, None))(
        learner, tasks, starts, CONFIG
    )
    alive = np.asarray(segments.alive)
    assert alive.sum(1).min() > 10
    np.testing.assert_array_equal(lived.alive, alive)
    for a, b in zip(jax.tree.leaves(lived.note), jax.tree.leaves(segments.note), strict=True):
        np.testing.assert_array_equal(a[alive], b[alive])
    np.testing.assert_allclose(
        replay_loss(learner, lived, CONFIG),
        segment_loss(learner, starts.memory, segments, scenes_of(learner, starts.memory, segments)),
        rtol=1e-4,
    )
    rewards = np.asarray(segments.note.transition.reward) * alive
    np.testing.assert_allclose(lived.returns(EPISODES).sum(1), rewards.sum(1), rtol=1e-5)
    hidden = jax.vmap(lambda life: embeddings(learner, life))(lived)
    full = alive.all(1)  # where the lifetime filled the segment, its memory is the last embedding
    np.testing.assert_allclose(hidden[full, -1], after.memory.hidden[full], atol=1e-5)
    if sizes == {"context": False}:
        assert not np.asarray(hidden).any()


def test_what_is_not_alive_does_not_count():
    family = CartPole(horizon=20)
    learner = learner_for(family)
    lived = lives(family, learner)[2]
    seen = lived.note.transition
    spoilt = seen._replace(
        reward=jnp.where(lived.alive, seen.reward, 1e3),
        state=jnp.where(lived.alive[..., None], seen.state, 7.0),
    )
    other = lived._replace(note=lived.note._replace(transition=spoilt))
    assert not lived.alive.all()
    np.testing.assert_allclose(
        replay_loss(learner, lived, CONFIG), replay_loss(learner, other, CONFIG), rtol=1e-5
    )


def test_gradients_do_not_go_through_the_returns():
    """One step of one episode: the slope is that of the squared error to a fixed target."""
    family = CartPole(horizon=20)
    learner = learner_for(family)
    life = jax.tree.map(lambda leaf: leaf[0], lives(family, learner)[2])
    target = replayed(learner, life, CONFIG)

    def loss(bias):
        import equinox as eqx

        moved = eqx.tree_at(lambda q: q.network.out.bias, learner, learner.network.out.bias + bias)
        return 0.5 * (replayed(moved, life, CONFIG).error ** 2).sum()

    slope = jax.grad(loss)(jnp.zeros(2))
    taken = jax.nn.one_hot(life.note.transition.action, 2)
    np.testing.assert_allclose(slope, target.error @ taken, rtol=1e-4)


def test_conservatism_is_the_gap_to_a_soft_maximum():
    family = CartPole(horizon=20)
    learner = learner_for(family)
    lived = lives(family, learner)[2]
    values = jax.vmap(lambda life: replayed(learner, life, CONFIG).values)(lived)
    taken = jnp.take_along_axis(values, lived.note.transition.action[..., None], -1)[..., 0]
    gap = (jax.nn.logsumexp(values, -1) - taken)[lived.alive].mean()
    found = replay_loss(learner, lived, CONFIG, conservative=0.5) - replay_loss(
        learner, lived, CONFIG
    )
    np.testing.assert_allclose(found, 0.5 * gap, rtol=1e-4)


def test_notes_of_the_host_become_lifetimes():
    """Of different lengths, padded to a power of two."""
    family = CartPole(horizon=20)
    learner = learner_for(family)
    tasks, _, lived = lives(family, learner)
    host = jax.tree.map(np.asarray, lived.note.transition)
    count = np.asarray(lived.alive).sum(1)
    rows = [
        [jax.tree.map(lambda leaf, i=i, t=t: leaf[i, t], host) for t in range(count[i])]
        for i in range(4)
    ]
    task = jax.tree.map(lambda leaf: leaf[0], tasks)
    found = noted(rows, task.spec(EPISODES))
    assert found.alive.shape == (4, 64)
    np.testing.assert_array_equal(found.returns(EPISODES), lived.returns(EPISODES))
    alive = np.asarray(lived.alive)
    np.testing.assert_array_equal(
        found.note.clock.step[:, :60][alive], lived.note.clock.step[alive]
    )
