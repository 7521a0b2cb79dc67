"""Intervals and odds: the equation against numbers worked out by hand, and laws that must hold."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.evidence import Outcomes
from metaql.embedding.successors import Dense
from metaql.policy.finiteq import FiniteQ, no_knowledge, untrained
from metaql.policy.model import Bounds, Model, Moments
from metaql.policy.outlook import Plan
from metaql.policy.uncertainty import Calibration, best_probability, judge, propagate
from metaql.types import TaskSpec, Transition


def moments(mean, variance, shape=()):
    return Moments(
        jnp.full(shape, mean), jnp.full(shape, variance), jnp.asarray(mean), jnp.asarray(variance)
    )


def two_states():
    """State 0 leads to state 1 with probability 0.75 or stays; both were met, all is known of where."""
    counts = jnp.asarray([[[1.0, 3.0]], [[0.0, 4.0]]])
    sure, none = jnp.ones((2, 1)), jnp.zeros(())
    return Model(
        successors=Dense(counts, jnp.zeros_like(counts)),
        visits=jnp.full((2, 1), 4.0),
        reward=moments(0.0, 0.5, (2, 1)),
        landing=moments(0.0, 0.0, (2,)),
        onward=moments(1.0, 0.0, (2,)),
        stay=moments(1.0, 0.0, (2, 1)),
        outcomes=Outcomes(counts / 4.0, sure, 0.0 * sure, 0.2 * sure, none),
        origins=jnp.full(4, 0.25),
        met=jnp.ones(2, bool),
        unmet_share=none,
        mask=jnp.ones((2, 1), bool),
        bounds=Bounds(low=none, high=none, hold=none, careful=jnp.asarray(False)),
        by_arrival=none,
        leads=None,
        strength=jnp.zeros((2, 1)),
        fresh_strength=none,
        arrival_strength=jnp.zeros(2),
    )


def test_one_sweep_by_hand():
    """u(0) = 0.5 + 0.2 Var(0.9 V) + 0.81 (0.25 * 1 + 0.75 * 3), Var(0.9 V) = 0.81 * 0.1875 * 4."""
    plan = Plan(jnp.asarray([[2.0], [4.0]]), jnp.zeros(()))
    doubt = Plan(jnp.asarray([[1.0], [3.0]]), jnp.zeros(()))
    found = propagate(two_states(), plan, doubt, jnp.asarray(0.9))
    wanted = 0.5 + 0.2 * 0.81 * 0.1875 * 4 + 0.81 * (0.25 + 0.75 * 3)
    np.testing.assert_allclose(found.q[:, 0], [wanted, 0.5 + 0.81 * 3], rtol=1e-5)


def test_two_normals_by_hand():
    """Pr(a > b) = Phi((m_a - m_b) / sqrt(v_a + v_b)) = Phi(1)."""
    mean, std = jnp.asarray([[0.0, 1.0, 9.0]]), jnp.asarray([[0.6, 0.8, 1.0]])
    mask = jnp.asarray([[True, True, False]])
    np.testing.assert_allclose(best_probability(mean, std, mask), [0.8413], atol=2e-3)


@pytest.fixture(scope="module")
def ages():
    """Judgements before any step and after each of some visits of one pair, which pays 2 or 0."""
    spec = TaskSpec(
        jnp.ones(3, bool), jnp.ones(2, bool), jnp.asarray(30), jnp.asarray(5), jnp.asarray(3)
    )
    learner, found = untrained(), []
    learn = eqx.filter_jit(learner.learn)
    judged = jax.jit(lambda memory: judge(learner, memory, Calibration()))
    memory, no = no_knowledge(spec, None), jnp.asarray(False)
    for t in range(41):
        if t in (0, 10, 40):
            found.append(judged(memory))
        reward = jnp.asarray(2.0 * (t % 2))
        zero = jnp.asarray(0)
        memory = learn(memory, Transition(zero, zero, reward, zero, no, no))
    return found


def test_what_was_seen_more_often_is_surer(ages):
    first, some, many = (float(each.std[0, 0]) for each in ages)
    assert many < some
    assert float(ages[2].std[0, 0]) < float(ages[2].std[0, 1])
    assert first > 0


def test_intervals_hold_their_mean_and_odds_are_odds(ages):
    for each in ages:
        assert (each.low <= each.mean).all()
        assert (each.mean <= each.high).all()
        assert ((each.best > 0) & (each.best <= 1)).all()
    np.testing.assert_allclose(ages[0].best, 0.5, atol=0.01)  # nothing known, two actions


def test_a_calibration_moves_each_side_by_itself(ages):
    wide = Calibration()
    wide.weights[1, 0] = np.log(2.0)
    spec = TaskSpec(jnp.ones(3, bool), jnp.ones(2, bool), jnp.asarray(30), jnp.asarray(5))
    learner: FiniteQ = untrained()
    known = no_knowledge(spec, None)
    found = jax.jit(lambda memory: judge(learner, memory, wide))(known)
    np.testing.assert_allclose(found.low, ages[0].low, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        found.high - found.mean, 2 * (ages[0].high - ages[0].mean), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("rewards", "horizon", "least", "most"),
    [
        ((0.0, 1.0), 1, 0.0, 1.0),
        ((-1.0, 0.0), 3, -3.0, 0.0),
        ((1.0, 2.0), 1, 1.0, 2.0),
        ((0.0, 1.0), 50, 0.0, 50.0),  # planned for with a discount
    ],
)
def test_intervals_hold_nothing_impossible_where_rewards_are_sure_to_have_two_values(
    rewards, horizon, least, most
):
    """Two arms, one of them tried: what an episode can bring at least (it may end at once) and at most."""
    wide = Calibration()
    wide.weights[:, 0] = 4.0

    def judged(stays_two):
        learner = eqx.tree_at(lambda q: q.prior.stays_two, untrained(), jnp.asarray(stays_two))
        spec = TaskSpec(jnp.ones(1, bool), jnp.ones(2, bool), jnp.asarray(horizon), jnp.asarray(9))
        memory, off = no_knowledge(spec, learner.slots), jnp.asarray(False)
        zero = jnp.asarray(0)
        for reward in rewards * 3:
            row = Transition(zero, zero, jnp.asarray(reward), zero, off, off)
            memory = learner.learn(memory, row)
        return judge(learner, learner.replan(memory), wide)

    sure, open_ = judged(1.0), judged(0.5)
    for found, inside in ((sure, True), (open_, False)):
        low, high = float(found.low.min()), float(found.high.max())
        assert (low >= least - 1e-3 and high <= most + 1e-3) == inside


def test_what_is_paid_on_arrival_is_open_where_that_is_the_end_too():
    """Acting always ends the episode: what arriving pays is open, what would follow is nothing."""
    model = two_states()._replace(
        landing=moments(1.0, 0.25, (2,)),
        stay=moments(0.0, 0.0, (2, 1)),
        reward=moments(0.0, 0.5, (2, 1)),
    )
    plan = Plan(jnp.asarray([[2.0], [4.0]]), jnp.zeros(()))
    found = propagate(model, plan, Plan(plan.q, jnp.zeros(())), jnp.asarray(0.9))
    np.testing.assert_allclose(found.q, 0.75, rtol=1e-5)
    # Whether it ends is open: what is at stake is what would follow, not what is paid in any case.
    open_end = model._replace(stay=moments(0.0, 0.1, (2, 1)), landing=moments(1.0, 0.0, (2,)))
    found = propagate(open_end, plan, Plan(plan.q, jnp.zeros(())), jnp.asarray(0.9))
    np.testing.assert_allclose(found.q[1], 0.5 + 0.1 * (0.9 * 4.0) ** 2, rtol=1e-5)
