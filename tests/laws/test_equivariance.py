"""Laws of BeliefQ with random weights: names, padding and the unit of reward do not matter."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.statistics import Statistics, Tally, empty
from metaql.policy.beliefq import BeliefConfig, BeliefQ
from metaql.types import TaskSpec, Transition

CONFIG = BeliefConfig(embedding=4, hidden=8, sweeps=2, first_sweeps=16)
S, A, T = 4, 3, 40


class Seen(NamedTuple):
    """What a learner thinks after every step of a lifetime, ``[T, ...]``."""

    q: jax.Array
    z: jax.Array
    mean: jax.Array
    log_std: jax.Array
    mode_values: jax.Array
    mode: jax.Array
    values: jax.Array
    action: jax.Array


def shaken(seed, noise=0.3):
    """Random weights in every layer: fresh ones are zero where it matters."""
    rng = np.random.default_rng(seed)

    def shake(leaf):
        return leaf + rng.normal(0, noise, leaf.shape) if eqx.is_inexact_array(leaf) else leaf

    learner = jax.tree.map(shake, BeliefQ(jax.random.key(seed), config=CONFIG))
    return learner.with_epsilon(0.0)


def stream(seed, peak=1.0):
    """A lifetime of transitions: connected, with episodes that terminate and that are cut."""
    rng = np.random.default_rng(seed)
    arrivals = rng.integers(S, size=T)
    terminated = rng.random(T) < 0.15
    truncated = ~terminated & (rng.random(T) < 0.15)
    states = np.where(np.roll(terminated | truncated, 1), 0, np.roll(arrivals, 1))
    states[0] = 0
    # A reward at once: until one is seen, the unit of reward is a guess.
    rewards = np.where(np.arange(T) == 0, 1.0, rng.integers(-4, 5) / 4 * (rng.random(T) < 0.5))
    return Transition(
        states.astype(np.int32),
        rng.integers(A, size=T).astype(np.int32),
        (peak * rewards).astype(np.float32),
        arrivals.astype(np.int32),
        terminated,
        truncated,
    )


def some_prior(seed):
    """Pseudo-observations of every kind."""
    rng = np.random.default_rng(seed)
    pair, arrival = rng.random((S, A)) + 0.5, rng.random(S) + 0.5
    prior = empty(S, A)._replace(
        transitions=2.0 * rng.random((S, A, S)),
        pair=Tally(pair, pair * rng.normal(size=(S, A)), pair * rng.random((S, A))),
        arrival=Tally(arrival, arrival * rng.normal(size=S), arrival * rng.random(S)),
        reward_peak=np.ones(()),
        reward_square=np.ones(()),
    )
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), prior)


def spec_of(state_mask, action_mask):
    return TaskSpec(jnp.asarray(state_mask), jnp.asarray(action_mask), jnp.int32(12), jnp.int32(9))


@eqx.filter_jit
def think(learner, spec, rows):
    """Feed a lifetime to ``update`` and write down what is thought after every step."""
    key_first, key_rest = jax.random.split(jax.random.key(7))

    def body(belief, row_and_key):
        row, key = row_and_key
        key_update, key_act = jax.random.split(key)
        belief = learner.update(key_update, belief, row)
        outlook = learner.outlooks(belief)
        decision = learner.act(key_act, belief, row.next_state)
        worth = learner.mode_values(belief, jax.nn.one_hot(row.next_state, belief.starts.shape[0]))
        seen = Seen(
            belief.q, belief.z, *outlook, worth, belief.mode, decision.values, decision.action
        )
        return belief, seen

    keys = jax.random.split(key_rest, rows.state.shape[0])
    return jax.lax.scan(body, learner.init(key_first, spec), (rows, keys))[1]


def relabel_statistics(known, states, actions) -> Statistics:
    """What ``known`` says when state ``states[i]`` is called ``i``, and likewise the actions."""
    return known._replace(
        transitions=known.transitions[states][:, actions][:, :, states],
        pair=Tally(*(x[states][:, actions] for x in known.pair)),
        arrival=Tally(*(x[states] for x in known.arrival)),
    )


def close(first, second):
    np.testing.assert_allclose(first, second, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("with_prior", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_relabelling_states_and_actions_relabels_every_value(seed, with_prior):
    rng = np.random.default_rng(seed)
    states, actions = rng.permutation(S), rng.permutation(A)
    new_state, new_action = states.argsort(), actions.argsort()
    rows = stream(seed)
    renamed = rows._replace(
        state=new_state[rows.state].astype(np.int32),
        action=new_action[rows.action].astype(np.int32),
        next_state=new_state[rows.next_state].astype(np.int32),
    )
    prior = some_prior(seed) if with_prior else None
    turned = relabel_statistics(prior, states, actions) if with_prior else None
    spec = spec_of([True] * S, [True] * A)
    learner = shaken(seed)
    plain = think(learner.with_prior(prior), spec, rows)
    other = think(learner.with_prior(turned), spec, renamed)
    assert float(jnp.abs(plain.mean - plain.q[:, 0]).max()) > 0.01  # the head does speak
    assert float(plain.log_std.std()) > 0.01
    close(other.z, plain.z)
    close(other.q, plain.q[:, :, states][..., actions])
    close(other.mean, plain.mean[:, states][..., actions])
    close(other.log_std, plain.log_std[:, states][..., actions])
    close(other.mode_values, plain.mode_values)
    np.testing.assert_array_equal(other.mode, plain.mode)
    close(other.values, plain.values[:, actions])


@pytest.mark.parametrize("with_prior", [False, True])
def test_padding_changes_nothing(with_prior):
    rows = stream(3)
    spec = spec_of([True] * S, [True] * A)
    wide = spec_of([True] * S + [False] * 2, [True] * A + [False])
    prior = some_prior(3) if with_prior else None
    grown = with_prior and prior._replace(
        transitions=jnp.pad(prior.transitions, [(0, 2), (0, 1), (0, 2)]),
        pair=Tally(*(jnp.pad(x, [(0, 2), (0, 1)]) for x in prior.pair)),
        arrival=Tally(*(jnp.pad(x, (0, 2)) for x in prior.arrival)),
    )
    learner = shaken(3)
    plain = think(learner.with_prior(prior), spec, rows)
    padded = think(learner.with_prior(grown or None), wide, rows)
    close(padded.z, plain.z)
    close(padded.q[:, :, :S, :A], plain.q)
    close(padded.mean[:, :S, :A], plain.mean)
    close(padded.log_std[:, :S, :A], plain.log_std)
    close(padded.mode_values, plain.mode_values)
    np.testing.assert_array_equal(padded.mode, plain.mode)
    close(padded.values[:, :A], plain.values)
    assert np.isneginf(padded.values[:, A:]).all()
    assert int(padded.action.max()) < A
    assert not np.any(padded.q[:, :, S:])
    assert not np.any(padded.q[..., A:])


@pytest.mark.parametrize("seed", [0, 1])
def test_a_thousandfold_reward_is_a_thousandfold_value_and_the_same_action(seed):
    learner = shaken(seed)
    spec = spec_of([True] * S, [True] * A)
    plain, large = (think(learner, spec, stream(seed, peak)) for peak in (1.0, 1000.0))
    # What was planned before the first reward was planned in units of 1; it fades.
    late = slice(T // 2, None)

    def scaled(first, second):
        np.testing.assert_allclose(first[late], 1000.0 * second[late], rtol=5e-3, atol=0.5)

    close(large.z, plain.z)
    scaled(large.q, plain.q)
    scaled(large.mean, plain.mean)
    np.testing.assert_allclose(large.log_std[late], plain.log_std[late], rtol=5e-3, atol=5e-3)
    scaled(large.mode_values, plain.mode_values)
    np.testing.assert_array_equal(large.mode[late], plain.mode[late])
    np.testing.assert_array_equal(large.action[late], plain.action[late])
