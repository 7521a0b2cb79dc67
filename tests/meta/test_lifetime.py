"""The lifetime loop: what it counts, and that lifetimes do not depend on one another."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.meta.lifetime import (
    advance,
    advance_unrecorded,
    begin_all,
    live,
    live_until,
    turn,
)
from metaql.qlearning import Constant, QLearning
from metaql.tasks.finite import finite_task
from metaql.types import Decision

KEY = jax.random.key(0)


class Seen(NamedTuple):
    """What `Witness` remembers: sums of everything it was told."""

    steps: jax.Array
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    last_next_state: jax.Array
    name: jax.Array


class Witness(eqx.Module):
    """Always takes ``action``, shows its own random name as values, remembers what it was told."""

    action: int = 0

    def init(self, key, spec):
        zero = jnp.zeros(())
        return Seen(zero, zero, zero, zero, jnp.asarray(-1), jax.random.uniform(key))

    def act(self, key, memory, state):
        values = jnp.full(2, memory.name)
        return Decision(jnp.asarray(self.action, jnp.int32), values, values)

    def update(self, key, memory, transition):
        return Seen(
            memory.steps + 1,
            memory.reward + transition.reward,
            memory.terminated + transition.terminated,
            memory.truncated + transition.truncated,
            transition.next_state,
            memory.name,
        )


class WitnessInTurn(Witness):
    plans_between_episodes: ClassVar[bool] = True


class WitnessPlainly(Witness):
    compiles_plainly: ClassVar[bool] = True


class QInTurn(QLearning):
    plans_between_episodes: ClassVar[bool] = True


class QPlainly(QLearning):
    compiles_plainly: ClassVar[bool] = True


def corridor(horizon, cells=4):
    """Action 0 walks right for 1 a step and ends at the last cell; action 1 waits for 0.5."""
    transition = np.zeros((cells, 2, cells))
    for s in range(cells):
        transition[s, 0, min(s + 1, cells - 1)] = transition[s, 1, s] = 1.0
    ends = np.zeros((cells, 2, cells))
    ends[:, 0, cells - 1] = 1.0
    return finite_task(
        transition, np.tile([1.0, 0.5], (cells, 1)), termination=ends, horizon=horizon
    )


def slippery(horizon=7):
    """A random task: lifetimes differ in length and in what happens."""
    rng = np.random.default_rng(0)
    return finite_task(
        rng.dirichlet(np.ones(4), (4, 2)),
        rng.random((4, 2)),
        termination=0.15,
        initial=np.ones(4) / 4,
        horizon=horizon,
        reward_noise=0.3,
    )


CASES = {
    "walks to the end": (0, 10, 3.0, 3, "terminated", 3),
    "cut on the way": (0, 2, 2.0, 2, "truncated", 2),
    "arrives as time is up: terminated": (0, 3, 3.0, 3, "terminated", 3),
    "waits": (1, 6, 3.0, 6, "truncated", 0),
}


@pytest.mark.parametrize(
    "cls", [Witness, WitnessInTurn, WitnessPlainly], ids=["abreast", "in turn", "plainly"]
)
@pytest.mark.parametrize("case", CASES)
def test_returns_lengths_and_ends_by_hand(cls, case):
    action, horizon, episode_return, length, end, last = CASES[case]
    lives = live(cls(action), corridor(horizon), jax.random.split(KEY, 3), episodes=5)
    np.testing.assert_allclose(lives.returns, np.full((3, 5), episode_return))
    np.testing.assert_array_equal(lives.lengths, np.full((3, 5), length))
    other = "truncated" if end == "terminated" else "terminated"
    np.testing.assert_array_equal(getattr(lives.memory, end), [5, 5, 5])
    np.testing.assert_array_equal(getattr(lives.memory, other), [0, 0, 0])
    # The true last state, not the first of the next episode.
    np.testing.assert_array_equal(lives.memory.last_next_state, [last] * 3)


def test_each_lifetime_may_have_its_own_task():
    tasks = jax.tree.map(lambda *x: jnp.stack(x), corridor(10), corridor(2))
    for cls in (Witness, WitnessInTurn):
        lives = live(cls(0), tasks, jax.random.split(KEY, 2), episodes=4)
        np.testing.assert_allclose(lives.returns, [[3.0] * 4, [2.0] * 4])
        # What is lived while waiting for longer lifetimes is neither counted nor learned from.
        np.testing.assert_array_equal(lives.memory.steps, [12, 8])
        np.testing.assert_allclose(lives.memory.reward, lives.returns.sum(1))


@pytest.mark.parametrize("cls", [QInTurn, QPlainly], ids=["in turn", "plainly"])
def test_side_by_side_is_the_same_lifetimes_as_in_other_ways(cls):
    keys = jax.random.split(KEY, 8)
    abreast = live(QLearning(), slippery(), keys, episodes=30)
    otherwise = live(cls(), slippery(), keys, episodes=30)
    np.testing.assert_allclose(abreast.returns, otherwise.returns, rtol=1e-5)
    np.testing.assert_array_equal(abreast.lengths, otherwise.lengths)
    np.testing.assert_allclose(abreast.memory.q, otherwise.memory.q, rtol=1e-5)


def test_a_lifetime_does_not_depend_on_its_batch():
    keys = jax.random.split(KEY, 6)
    batch = live(QLearning(), slippery(), keys, episodes=20)
    assert len(np.unique(batch.lengths.sum(1))) > 1  # they end at different times
    for i in (0, 5):
        alone = live(QLearning(), slippery(), keys[i : i + 1], episodes=20)
        np.testing.assert_allclose(alone.returns[0], batch.returns[i], rtol=1e-5)
        np.testing.assert_allclose(alone.memory.q[0], batch.memory.q[i], rtol=1e-5)
        np.testing.assert_array_equal(alone.memory.visits[0], batch.memory.visits[i])


def test_chunks_do_not_change_a_lifetime_and_report_progress():
    keys, seen = jax.random.split(KEY, 4), []
    whole = live(QLearning(), slippery(), keys, episodes=20)
    parts = live(QLearning(), slippery(), keys, episodes=20, chunk=5, on_progress=seen.append)
    np.testing.assert_allclose(whole.returns, parts.returns, rtol=1e-6)
    assert len(seen) > 3
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_the_placebo_acts_on_the_neighbours_memory_and_learns_into_its_own():
    keys = jax.random.split(KEY, 5)
    lives = begin_all(Witness(), corridor(4), keys, 10)
    names = np.asarray(lives.memory.name)
    after, honest = advance(Witness(), corridor(4), lives, 3)
    np.testing.assert_allclose(honest.decision.values[0, :, 0], names)
    after, record = advance(Witness(), corridor(4), lives, 3, shuffle=True)
    np.testing.assert_allclose(record.decision.values[0, :, 0], np.roll(names, 1))
    np.testing.assert_allclose(after.memory.name, names)
    with pytest.raises(NotImplementedError):
        live(WitnessInTurn(), corridor(4), keys, episodes=2, shuffle=True)


def test_records_say_what_was_lived():
    lives = begin_all(Witness(), corridor(2), jax.random.split(KEY, 2), 2)
    after, record = advance(Witness(), corridor(2), lives, 6)
    one = jax.tree.map(lambda x: np.asarray(x)[:, 0], record)
    np.testing.assert_array_equal(one.transition.state, [0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(one.transition.next_state, [1, 2, 1, 2, 1, 2])
    np.testing.assert_array_equal(one.transition.truncated, [0, 1, 0, 1, 0, 1])
    np.testing.assert_array_equal(one.episode, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(one.alive, [1, 1, 1, 1, 0, 0])
    quiet = advance_unrecorded(Witness(), corridor(2), lives, 6)
    np.testing.assert_array_equal(quiet.memory, after.memory)


def test_a_turn_learns_first_and_then_decides():
    learner = QLearning(gamma=0.9)
    lives = begin_all(learner, slippery(), jax.random.split(KEY, 1), 5)
    _, record = advance(learner, slippery(), lives, 1)
    last = jax.tree.map(lambda x: x[0, 0], record.transition)
    memory = jax.tree.map(lambda x: x[0], lives.memory)
    memory, decision = turn(learner, KEY, memory, last, last.state)
    assert int(memory.visits.sum()) == 1
    np.testing.assert_allclose(decision.values, memory.q[last.state])


@pytest.mark.parametrize(
    "cls", [QLearning, QInTurn, QPlainly], ids=["abreast", "in turn", "plainly"]
)
def test_living_on_episode_by_episode_is_living_at_once(cls):
    learner = cls(epsilon=Constant(0.3))
    task, keys = slippery(), jax.random.split(KEY, 5)
    lives = begin_all(learner, task, keys, 6)
    for episode in (1, 2, 5):
        lives = live_until(learner, task, lives, episode)
        np.testing.assert_array_equal(lives.episode, [episode] * 5)
        np.testing.assert_array_equal(lives.step, [0] * 5)
        at_once = live(learner, task, keys, episodes=episode).memory
        jax.tree.map(np.testing.assert_array_equal, lives.memory, at_once)
    np.testing.assert_array_equal(lives.episodes, [6] * 5)


@pytest.mark.parametrize("cls", [Witness, WitnessInTurn], ids=["abreast", "in turn"])
def test_lifetimes_that_are_there_stand_still_and_others_live_on_past_what_they_were_told(cls):
    tasks = jax.tree.map(lambda *x: jnp.stack(x), corridor(10), corridor(2))
    lives = begin_all(cls(0), tasks, jax.random.split(KEY, 2), 3)
    ahead = live_until(cls(0), tasks, lives, 4)
    mixed = jax.tree.map(lambda new, old: jnp.stack([new[0], old[1]]), ahead, lives)
    after = live_until(cls(0), tasks, mixed, 2)
    np.testing.assert_array_equal(after.episode, [4, 2])
    np.testing.assert_array_equal(after.memory.steps, [3 * 4, 2 * 2])
    # Not even the key of the one that was ahead has moved.
    keys = [jax.random.key_data(life.key)[0] for life in (after, ahead)]
    np.testing.assert_array_equal(*keys)


def test_living_on_compiles_once_for_all_targets():
    traces = []

    class Counting(QLearning):
        def update(self, key, memory, transition):
            traces.append(1)
            return super().update(key, memory, transition)

    learner, task = Counting(), corridor(6)
    lives = live_until(learner, task, begin_all(learner, task, jax.random.split(KEY, 2), 9), 1)
    first = len(traces)
    for episode in (2, 7):
        lives = live_until(learner, task, lives, episode)
    np.testing.assert_array_equal(lives.memory.episodes, [7, 7])
    assert len(traces) == first > 0
