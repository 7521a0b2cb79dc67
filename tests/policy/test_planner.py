"""The planning channels: exact where everything is known, hopeful where nothing is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.statistics import ODDS_LIMIT, Scores, Statistics, Tally, empty
from metaql.policy.planner import (
    Settings,
    novelty,
    operator,
    state_values,
    surprise_unit,
    sweep,
    usual_value,
)
from metaql.tasks import exact
from metaql.tasks.families.frozen_lake import lake_task
from metaql.tasks.finite import finite_task

DISCOUNT = 0.9
SETTINGS = Settings(
    optimism=jnp.array([0.0, 2.0]),
    discount=jnp.full(2, DISCOUNT),
    pseudo=jnp.full(2, 0.3),
    unknown=jnp.array([0.0, 0.9]),
)


def dense(seed=0):
    """Rewards and certain terminations by pair: what you do is what counts."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(5), (5, 3))
    return finite_task(p, rng.normal(size=(5, 3)), termination=rng.random((5, 3)) < 0.2)


def lake():
    """Rewards and certain terminations by arrival: where you get to is what counts."""
    return lake_task(jnp.zeros(9, bool).at[jnp.array([2, 4])].set(True), 3, 1 / 3, 20)


def asked(task):
    """States where something can happen."""
    model = exact.model_of(task)
    return np.asarray((model.onward.sum(-1) > 0).any(-1) | (model.reward != 0).any(-1))


def knowledge(task, visits):
    """Statistics of ``visits`` typical visits to every pair of a task, scores included."""
    p, r, d = (np.asarray(x, np.float64) for x in (task.transition, task.reward, task.termination))
    # Nobody acts where all is over: those who fall into a hole have left.
    n = visits * p * np.asarray(asked(task))[:, None, None]
    tallies, misses = [], []
    for axes in ((2,), (0, 1)):
        total = n.sum(axes)
        sums = [(n * x).sum(axes) for x in (r, d)]
        squares = [(n * x * x).sum(axes) for x in (r, d)]
        floor = np.maximum(total, 1e-12)
        misses.append([(q - m * m / floor).sum() for q, m in zip(squares, sums, strict=True)])
        tallies.append(Tally(total, *sums))
    (reward_pair, ends_pair), (reward_arrival, ends_arrival) = misses
    odds = [
        np.sign(a - b) * ODDS_LIMIT
        for a, b in ((reward_pair, reward_arrival), (ends_pair, ends_arrival))
    ]
    seen = Statistics(
        transitions=n,
        pair=tallies[0],
        arrival=tallies[1],
        scores=Scores(max(reward_pair, 0.0), max(reward_arrival, 0.0), *odds),
        reward_square=(n * r * r).sum(),
        reward_peak=np.abs(r * (p > 0)).max(),
        steps=n.sum(),
    )
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), seen)


@jax.jit
def settled(known):
    """The channels' fixed point."""
    settings, trust, sweeps = SETTINGS, 0.0, 300
    shape = known.pair.visits.shape
    q = jnp.zeros((settings.discount.shape[0], *shape))
    for _ in range(3):  # the doubt about values is taken from the plan before
        values = state_values(q, jnp.ones(shape, bool))
        op = operator(known, settings, jnp.float32(trust), jnp.ones(shape, bool), values)
        q = jax.lax.fori_loop(0, sweeps, lambda _, q, op=op: sweep(op, q), q)
    return q


@pytest.mark.parametrize("make", [dense, lake])
def test_what_is_known_well_is_planned_exactly(make):
    task = make()
    q = settled(knowledge(task, 1e6))
    truth = np.asarray(exact.optimal_q(task, DISCOUNT))
    here = asked(task)
    np.testing.assert_allclose(q[0][here], truth[here], atol=1e-3)
    np.testing.assert_allclose(q[1][here], truth[here], atol=0.05)  # hope has died down


@pytest.mark.parametrize("make", [dense, lake])
def test_less_evidence_means_more_hope(make):
    task = make()
    lifts = []
    for visits in (1.0, 100.0, 1e4):
        q = settled(knowledge(task, visits))
        lifts.append(float((q[1] - q[0])[asked(task)].mean()))
    assert lifts == sorted(lifts, reverse=True)
    assert lifts[-1] > 0
    assert lifts[0] > 3 * lifts[-1]


@pytest.mark.parametrize("make", [dense, lake])
def test_termination_zeroes_the_bootstrap(make):
    """An action that ends the task is worth its reward, whatever the state arrived in is worth."""
    task = make()
    shape = task.reward.shape[:2]
    known = knowledge(task, 1e6)
    mask = jnp.ones(shape, bool)
    op = operator(known, SETTINGS, jnp.float32(0.0), mask, jnp.zeros((2, shape[0])))
    low, high = (sweep(op, jnp.full((2, *shape), value))[0] for value in (0.0, 100.0))
    model, here = exact.model_of(task), asked(task)
    onward = np.asarray(model.onward.sum(-1))[here]
    assert onward.min() < 0.7  # terminations are among them
    np.testing.assert_allclose(low[here], np.asarray(model.reward)[here], atol=1e-3)
    np.testing.assert_allclose((high - low)[here], 100.0 * DISCOUNT * onward, atol=0.01)


def test_the_value_of_the_unknown_counts_where_nothing_is_known_and_only_there():
    known = knowledge(dense(), 1e6)
    blank = known.transitions.at[0, 0].set(0.0)
    known = known._replace(
        transitions=blank,
        pair=Tally(*(x.at[0, 0].set(0.0) for x in known.pair)),
    )
    hopeful = SETTINGS._replace(unknown=jnp.array([0.9, 0.9]))
    sober = SETTINGS._replace(unknown=jnp.array([-0.9, 0.9]))
    unit = float(surprise_unit(known, jnp.float32(1 - DISCOUNT)))
    shape = (5, 3)
    mask, values = jnp.ones(shape, bool), jnp.zeros((2, 5))
    rows = [
        sweep(operator(known, x, jnp.float32(0.0), mask, values), jnp.zeros((2, *shape)))[0]
        for x in (hopeful, sober)
    ]
    gap = np.array(rows[0] - rows[1])
    assert gap[0, 0] == pytest.approx(1.8 * unit, rel=1e-2)
    gap[0, 0] = 0.0
    assert np.abs(gap).max() < 1e-3


def test_the_usual_value_and_its_unit_by_hand():
    """Ten steps, mean reward -0.2, one end: 0.1 a step."""
    arrival = Tally(jnp.full(5, 2.0), jnp.full(5, -0.4), jnp.zeros(5).at[3].set(1.0))
    known = empty(5, 3)._replace(arrival=arrival, reward_peak=jnp.float32(3.0))
    fade = jnp.float32(0.05)
    assert float(usual_value(known, fade)) == pytest.approx(-0.2 / 0.15, rel=1e-3)
    assert float(surprise_unit(known, fade)) == pytest.approx(3.0 / np.sqrt(0.15), rel=1e-3)
    small = known._replace(reward_peak=jnp.float32(0.2))  # what is usual is more than it can wander
    assert float(surprise_unit(small, fade)) == pytest.approx(0.2 / 0.15, rel=1e-3)


def test_novelty_tells_a_machine_from_a_lottery():
    assert float(novelty(empty(5, 3))) == 1.0
    sure = empty(4, 2)._replace(transitions=jnp.zeros((4, 2, 4)).at[..., 1].set(20.0))
    assert float(novelty(sure)) < 0.05
    # What is left of a prior that is not believed counts as nothing seen.
    faint = sure._replace(transitions=sure.transitions + 1e-6)
    assert float(novelty(faint)) == pytest.approx(float(novelty(sure)), rel=1e-3)
    wild = empty(8, 2)._replace(transitions=jnp.ones((8, 2, 8)))
    # 16 pairs of 8 visits, 8 successors each: 16 * 7 new ones where k (log 8 + 0.2) were expected.
    assert float(novelty(wild)) == pytest.approx((112 + 1) / (16 * (np.log(8) + 0.2) + 1), rel=1e-5)


def test_doubt_is_about_what_follows_and_not_about_the_names_of_states():
    """Two successors that are worth the same leave nothing in doubt, however unsure which it is."""
    known = knowledge(dense(), 1.0)
    mask = jnp.ones((5, 3), bool)
    rows = [
        operator(known, SETTINGS, jnp.float32(0.0), mask, values).base
        for values in (jnp.ones((2, 5)), jnp.zeros((2, 5)).at[:, 0].set(5.0))
    ]
    still = operator(known, SETTINGS, jnp.float32(0.0), mask, jnp.zeros((2, 5))).base
    np.testing.assert_allclose(rows[0], still, atol=2e-3)
    assert float((rows[1] - still)[1].min()) > 0.05
    np.testing.assert_allclose(rows[1][0], still[0], atol=1e-6)  # channel 0 has no hope


def test_where_a_prior_is_trusted_the_unknown_does_not_speak():
    """A strong prior for a pair that was never tried: its prediction stands, not the unknown's."""
    known = knowledge(dense(), 1.0)
    values = jnp.zeros((2, 5))
    mask = jnp.ones((5, 3), bool)

    def gap(trust):
        rows = [
            sweep(operator(known, x, jnp.float32(trust), mask, values), jnp.zeros((2, 5, 3)))[0]
            for x in (SETTINGS._replace(unknown=jnp.full(2, u)) for u in (0.9, -0.9))
        ]
        return float(jnp.abs(rows[0] - rows[1]).max())

    assert gap(1.0) < 0.01 * gap(0.0)


def test_nothing_at_all_gives_finite_values_and_equal_ones():
    q = settled(empty(4, 2))
    assert np.isfinite(q).all()
    for channel in np.asarray(q):
        np.testing.assert_allclose(channel, channel[0, 0], rtol=1e-5)
    np.testing.assert_allclose(q[0], 0.0, atol=1e-6)
    assert float(q[1].min()) > 0


def test_padded_pairs_are_zero_and_never_the_maximum():
    mask = jnp.ones((4, 1), bool).at[3].set(False) & jnp.array([True, True, False])
    q = jnp.full((2, 4, 3), -5.0)
    q = q.at[:, :, 2].set(100.0)
    np.testing.assert_array_equal(state_values(q, mask), [[-5.0, -5.0, -5.0, 0.0]] * 2)
    op = operator(empty(4, 3), SETTINGS, jnp.float32(0.0), mask, jnp.zeros((2, 4)))
    swept = np.asarray(sweep(op, q))
    assert not swept[:, ~np.asarray(mask)].any()


def test_gradients_of_the_maximum_go_to_the_best_action_under_jit():
    q = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 3)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda q: state_values(q * 1.1, jnp.ones((6, 3), bool)).sum()))(q)
    np.testing.assert_allclose(gradient, 1.1 * jax.nn.one_hot(q.argmax(-1), 3), rtol=1e-6)
