"""BeliefQ: exact where it knows, keys spent once, padding left alone, notes that are true."""

from __future__ import annotations

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.embed import posterior_mask
from metaql.embedding.prior import fit_prior
from metaql.embedding.statistics import Scores, Statistics, Tally, empty, observe
from metaql.meta.lifetime import advance, begin, begin_all, live_step, turn
from metaql.policy.beliefq import BeliefConfig, BeliefQ, spread_of, task_discount
from metaql.tasks import exact
from metaql.tasks.finite import NO_HORIZON, finite_task, pad_task
from metaql.types import Learner, Transition

# Few sweeps a step: what is tested does not depend on their number, compile time does.
CONFIG = BeliefConfig(embedding=4, hidden=8, sweeps=1)
NUM_MODES = 5


def fresh(**settings):
    return BeliefQ(jax.random.key(0), config=CONFIG, **settings)


def shaken(seed=0, noise=0.3):
    """Random weights in every layer: fresh ones are zero where it matters."""
    rng = np.random.default_rng(seed)

    def shake(leaf):
        return leaf + rng.normal(0, noise, leaf.shape) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(shake, fresh()).with_epsilon(0.0)


def toy_task(seed=0, horizon=10):
    """Rewards and certain terminations by pair."""
    rng = np.random.default_rng(seed)
    return finite_task(
        rng.dirichlet(np.ones(4), (4, 2)),
        rng.normal(size=(4, 2)),
        termination=rng.random((4, 2)) < 0.2,
        horizon=horizon,
    )


def evidence_of(task, counts):
    """Statistics of these counts ``[S, A, S]``; rewards and terminations are the pair's."""
    r, d = np.asarray(task.reward)[..., :1], np.asarray(task.termination)[..., :1]
    sums = [counts, counts * r, counts * d]
    steps = counts.sum()
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32),
        Statistics(
            transitions=counts,
            pair=Tally(*(x.sum(-1) for x in sums)),
            arrival=Tally(*(x.sum((0, 1)) for x in sums)),
            scores=Scores(0.0, steps, -10.0, -10.0),
            reward_square=(sums[1] * r).sum(),
            reward_peak=np.abs(r).max(),
            steps=steps,
        ),
    )


@eqx.filter_jit
def settle(learner, spec, evidence, sweeps):
    """The belief after planning for long on this evidence, and what it says."""
    belief = learner.init(jax.random.key(0), spec)._replace(evidence=evidence)
    belief = learner.replan(belief, sweeps)
    return belief, learner.outlooks(belief), learner.act(jax.random.key(0), belief, jnp.int32(1))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_much_evidence_gives_the_exact_q_star_whatever_the_weights(seed):
    task = toy_task(seed)
    evidence = evidence_of(task, 1e6 * np.asarray(task.transition))
    belief, outlook, decision = settle(shaken(seed), task.spec(1), evidence, 300)
    truth = exact.optimal_q(task, task_discount(belief.spec))
    np.testing.assert_allclose(belief.q[0], truth, atol=1e-3)
    # The head moves values along what is in doubt: next to nothing is.
    np.testing.assert_allclose(outlook.mean, truth, atol=0.02)
    assert int(decision.estimate.argmax()) == int(truth[1].argmax())


def test_a_strong_family_prior_is_planned_on_before_the_first_step():
    """All tasks of the family are the same one: what the prior says is the truth."""
    task = toy_task(2)
    rng = np.random.default_rng(0)
    rows = np.asarray(task.transition, np.float64)
    rows = rows / rows.sum(-1, keepdims=True)
    lives = [evidence_of(task, rng.multinomial(500, rows).astype(float)) for _ in range(8)]
    prior = fit_prior(jax.tree.map(lambda *x: jnp.stack(x), *lives))
    init = eqx.filter_jit(lambda learner: learner.init(jax.random.key(0), task.spec(1)))
    informed, blank = init(fresh(prior=prior)), init(fresh())
    truth = exact.optimal_q(task, task_discount(task.spec(1)))
    spread = float(truth.max() - truth.min())
    np.testing.assert_allclose(informed.q[0], truth, atol=0.1 * spread)
    assert float(jnp.abs(blank.q[0] - truth).max()) > 0.5 * spread


def test_a_prior_that_does_not_foresee_what_happens_is_given_up():
    """The prior of a family in which nothing ever moves; a task that always moves on."""
    stays = finite_task(np.eye(3)[:, None, :].repeat(2, 1), np.zeros((3, 2)), horizon=20)
    lived = evidence_of(stays, 50.0 * np.asarray(stays.transition))
    learner = fresh(prior=fit_prior(jax.tree.map(lambda x: jnp.stack([x] * 6), lived)))
    init, update = eqx.filter_jit(learner.init), eqx.filter_jit(learner.update)
    trust = []
    for shift in (0, 1):  # as the prior says, and otherwise
        belief = init(jax.random.key(0), stays.spec(1))
        for t in range(6):
            no = jnp.bool_(False)
            ends = (jnp.float32(0.0), jnp.int32((t + shift) % 3), no, no)
            step = Transition(jnp.int32(t % 3), jnp.int32(0), *ends)
            belief = update(jax.random.key(t), belief, step)
        trust.append(float(learner.known(belief)[1]))
    assert trust[0] > 0.9
    assert trust[1] < 0.1


def test_it_is_a_learner():
    assert isinstance(fresh(), Learner)


def test_no_key_is_used_twice():
    task = toy_task(horizon=1)  # every step ends an episode: a mode is chosen anew
    learner = shaken().with_prior(evidence_of(task, np.ones((4, 2, 4)))).with_epsilon(0.5)

    def live_a_little(key):
        key_life, key_turn = jax.random.split(key)
        life = begin(learner, task, key_life, 5)
        life, record = live_step(learner, task, life, life.memory)
        return turn(learner, key_turn, life.memory, record.transition, life.state)[1].action

    with jax.debug_key_reuse(True):
        jax.jit(live_a_little)(jax.random.key(3))


TASK = pad_task(toy_task(horizon=3), 6, 4)


@cache
def walk():
    """Sixteen lives in a padded task, epsilon one half: memories before every step, and records."""
    learner = shaken().with_epsilon(0.5)
    lives = begin_all(learner, TASK, jax.random.split(jax.random.key(0), 16), 100)
    memories, records = [lives.memory], []
    for _ in range(20):
        lives, record = advance(learner, TASK, lives, 1)
        memories.append(lives.memory)
        records.append(record)
    stack = lambda trees: jax.tree.map(lambda *x: np.stack(x), *trees)  # noqa: E731
    records = jax.tree.map(lambda *x: np.concatenate(x), *records)
    return stack(memories), records


def test_padding_is_never_chosen_and_memory_stays_finite():
    memories, record = walk()
    assert record.decision.action.max() == 1
    assert np.isneginf(record.decision.values[..., 2:]).all()
    assert np.isneginf(record.decision.estimate[..., 2:]).all()
    assert np.isfinite(record.decision.values[..., :2]).all()
    real = np.asarray(posterior_mask(TASK.spec(1)))
    assert not memories.q[..., ~real].any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(memories))


def test_an_action_is_greedy_on_the_values_of_the_mode():
    memories, record = walk()
    channels = np.moveaxis(memories.q[:-1], 2, 0)  # [C, T, N, S, A]
    at = np.indices(record.transition.state.shape)
    rows = channels[:, at[0], at[1], record.transition.state]  # [C, T, N, A]
    followed = np.concatenate([rows, record.decision.estimate[None]])
    values = followed[memories.mode[:-1], at[0], at[1]]
    np.testing.assert_allclose(record.decision.values[..., :2], values[..., :2], rtol=1e-5)
    greedy = record.decision.values.argmax(-1)
    np.testing.assert_array_equal(record.decision.action, greedy)


def test_a_mode_lasts_one_episode_and_epsilon_tries_them_all():
    memories, record = walk()
    ended = record.transition.terminated | record.transition.truncated
    changed = memories.mode[1:] != memories.mode[:-1]
    assert not (changed & ~ended).any()
    assert changed.any()
    assert set(np.unique(memories.mode).tolist()) == set(range(NUM_MODES))


def test_the_clock_and_the_starts_follow_the_episodes():
    memories, record = walk()
    ended = record.transition.terminated | record.transition.truncated
    assert record.transition.terminated.any()
    assert record.transition.truncated.any()
    np.testing.assert_array_equal(memories.clock.episode[1:], ended.cumsum(0))
    step, starts = np.zeros(16), np.zeros((16, 6))
    for t in range(20):
        starts += (step == 0)[:, None] * np.eye(6)[record.transition.state[t]]
        step = np.where(ended[t], 0, step + 1)
        np.testing.assert_array_equal(memories.clock.step[t + 1], step)
        np.testing.assert_array_equal(memories.starts[t + 1], starts)


def test_the_evidence_is_what_was_lived():
    memories, record = walk()

    @jax.jit
    @jax.vmap
    def count(rows):
        return jax.lax.scan(lambda s, row: (observe(s, row), None), empty(6, 4), rows)[0]

    counted = count(jax.tree.map(lambda x: jnp.moveaxis(jnp.asarray(x), 0, 1), record.transition))
    last = jax.tree.map(lambda x: x[-1], memories.evidence)
    assert (last.steps == 20).all()
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4), last, counted)


@pytest.mark.parametrize(("horizon", "expected"), [(10, 0.9), (1, 0.5), (NO_HORIZON, 0.99)])
def test_the_discount_belongs_to_the_horizon(horizon, expected):
    task = finite_task([[[1.0]]], [[0.0]], horizon=None if horizon == NO_HORIZON else horizon)
    assert float(task_discount(task.spec(1))) == pytest.approx(expected)


def test_fresh_weights_follow_the_planner_and_the_spread_is_never_zero():
    task = toy_task()
    learner = fresh()
    belief, _, decision = settle(learner, task.spec(3), empty(4, 2), 300)
    assert float(spread_of(jnp.zeros((4, 2)), belief.evidence)) > 0
    assert int(belief.mode) == CONFIG.first_mode
    np.testing.assert_allclose(decision.values, belief.q[CONFIG.first_mode, 1], rtol=1e-6)
    np.testing.assert_allclose(decision.estimate, belief.q[0, 1], rtol=1e-6)
