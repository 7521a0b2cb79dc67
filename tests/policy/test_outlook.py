"""Planning in the posterior: with nothing left in doubt it is exact, and doubt only ever adds."""

from __future__ import annotations

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.hyperprior import broad
from metaql.embedding.rewards import pair_means, reward_scale
from metaql.meta.lifetime import advance_unrecorded, begin_all
from metaql.policy.curiosity import gittins_deviations, index_deviations
from metaql.policy.finiteq import FiniteQ, untrained
from metaql.policy.model import Bounds
from metaql.policy.outlook import (
    LONGEST,
    _hope,
    flat,
    hopes,
    no_plan,
    reach,
    sweep,
    task_discount,
)
from metaql.tasks import exact
from metaql.tasks.families import Worlds
from metaql.tasks.finite import finite_task
from metaql.types import TaskSpec, Transition

LEARN, UPDATE = eqx.filter_jit(FiniteQ.learn), eqx.filter_jit(FiniteQ.update)
ACT, AHEAD = eqx.filter_jit(FiniteQ.act), eqx.filter_jit(FiniteQ.ahead)
REPLAN, BELIEVED = eqx.filter_jit(FiniteQ.replan), eqx.filter_jit(FiniteQ.believed)
INIT, SWEEP, HOPES = eqx.filter_jit(FiniteQ.init), eqx.filter_jit(sweep), eqx.filter_jit(hopes)
MODEL, LIFT = eqx.filter_jit(FiniteQ.model), eqx.filter_jit(FiniteQ.lift)


def random_task(horizon, seed=0, states=5, actions=3, ends=0.1):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(states, 0.5), (states, actions))
    termination = ends * rng.random((states, actions))
    reward = rng.normal(size=(states, actions))
    return finite_task(transition, reward, termination=termination, horizon=horizon)


@functools.cache
def watched(horizon, visits=20_000, scale=1.0, shift=0):
    """A learner's memory after very many transitions of every pair, put together in closed form."""
    task = random_task(horizon)
    learner = untrained()
    memory = INIT(learner, jax.random.key(0), task.spec(100))
    seen, many = memory.evidence, jnp.full((5, 3), float(visits))
    ends = (task.transition * task.termination).sum(-1) * visits
    mean = scale * (task.transition * task.reward).sum(-1)
    pair = seen.pair._replace(visits=many, reward=mean * visits, ends=ends)
    counts = task.transition * visits
    onto = counts.sum((0, 1))
    evidence = seen._replace(
        successors=type(seen.successors)(counts, counts * scale * task.reward),
        pair=pair,
        arrival=seen.arrival._replace(visits=onto, reward=onto * 0, ends=onto * 0),
        met=jnp.ones(5, bool),
        reward_odds=jnp.asarray(-30.0),
        ends_odds=jnp.asarray(-30.0),
        lowest=mean.min(),
        highest=mean.max(),
        binary=jnp.zeros((), bool),
        steps=jnp.asarray(15.0 * visits),
    )
    return task, learner, memory._replace(evidence=evidence)


def test_where_all_is_known_values_are_the_discounted_optimum():
    task, learner, memory = watched(50)
    believed = BELIEVED(learner, memory).q
    best = exact.optimal_q(task, 1.0 - 1.0 / 50)
    np.testing.assert_allclose(believed, best, rtol=0.01, atol=0.01)


@pytest.mark.parametrize(("told", "lived", "left"), [(50, 0, 50), (50, 45, 5), (50, 70, 1)])
def test_where_steps_are_told_no_more_of_them_are_left(told, lived, left):
    spec = TaskSpec(jnp.ones(3, bool), jnp.ones(2, bool), jnp.asarray(30), jnp.asarray(1_000))
    key = jax.random.key(0)

    def expected(spec):
        memory = INIT(untrained(), key, spec)
        evidence = memory.evidence._replace(steps=jnp.asarray(float(lived)))
        return float(untrained().outlook(memory._replace(evidence=evidence))[0])

    assert expected(spec) > 1_000  # a thousand episodes take longer
    assert expected(spec._replace(steps=jnp.asarray(told))) == left


def test_short_horizons_are_planned_to_the_very_end():
    task, learner, memory = watched(7)
    believed = BELIEVED(learner, memory).q
    np.testing.assert_allclose(believed, exact.plan_horizon(exact.model_of(task), 7), atol=0.01)
    at_four = memory._replace(clock=memory.clock._replace(step=jnp.asarray(3.0)))
    acting = REPLAN(learner, at_four).plan.q
    extra = np.asarray(acting - exact.plan_horizon(exact.model_of(task), 4))
    assert (extra > -0.01).all()  # what is left of optimism only adds
    assert extra.max() < 0.15


def test_the_last_steps_of_a_long_episode_are_planned_to_its_very_end():
    task, learner, memory = watched(50)
    at = {left: memory.clock._replace(step=jnp.asarray(50.0 - left)) for left in (17, 16, 4)}
    planned = REPLAN(learner, memory._replace(clock=at[4]))
    exactly = exact.plan_horizon(exact.model_of(task), 4)
    extra = np.asarray(planned.closing.q - exactly)
    assert (extra > -0.01).all()
    assert extra.max() < 0.15
    assert np.abs(planned.plan.q - exactly).max() > 0.5  # what the others are planned by

    # What is planned so is what acts, from `SHORT` steps left on.
    now, then = (jnp.zeros((5, 3)).at[:, best].set(1.0) for best in (0, 2))
    plans = {"plan": memory.plan._replace(q=now), "closing": memory.closing._replace(q=then)}
    state = jnp.zeros((), jnp.int32)
    for left, best in ((17, 0), (16, 2)):
        made = memory._replace(clock=at[left], **plans)
        assert int(ACT(learner, jax.random.key(0), made, state).action) == best


def test_acting_looks_the_farther_the_more_is_known():
    spec = random_task(1000).spec(3)
    found = [float(reach(spec, jnp.asarray(visits))) for visits in (0.0, 12.0, 24.0, 1000.0)]
    np.testing.assert_allclose(found, [LONGEST, LONGEST, 4 * LONGEST, 5 * LONGEST])
    assert float(reach(random_task(50).spec(3), jnp.asarray(1000.0))) == 50
    _, learner, little = watched(1000, visits=2)
    _, _, much = watched(1000)
    assert float(AHEAD(learner, little)) == LONGEST
    assert float(AHEAD(learner, much)) == 5 * LONGEST


@pytest.mark.parametrize(("left", "share"), [(300_000, 0.3**0.5), (600, 0.3)])
def test_what_looking_far_adds_to_hopes_is_taken_back_as_the_lifetime_goes_by(left, share):
    """After 300,000 steps, with plans of 500 for 150 in training."""
    _, learner, memory = watched(1000)
    memory = memory._replace(spec=memory.spec._replace(steps=jnp.asarray(300_000.0 + left)))
    model, ahead = MODEL(learner, memory), AHEAD(learner, memory)
    arguments = (model.visits, model.strength, jnp.asarray(float(left)), jnp.asarray(5.0))
    usual = learner.curiosity(*arguments, learner.outlook(memory)[1])
    found = LIFT(learner, memory, model, ahead).pair / usual
    np.testing.assert_allclose(found, share, rtol=0.01)
    np.testing.assert_allclose(LIFT(learner, memory, model, 100.0).pair, usual, rtol=1e-5)


@pytest.mark.parametrize(
    ("states", "horizon", "left"), [(1, 500, 500), (1, 10**6, 200), (2, 500, 200)]
)
def test_a_first_episode_is_as_long_as_told_where_nothing_can_end_it(states, horizon, left):
    task = finite_task(
        np.ones((states, 4, states)) / states, np.zeros((states, 4)), horizon=horizon
    )
    memory = INIT(untrained(), jax.random.key(0), task.spec(1))
    assert float(untrained().outlook(memory)[0]) == left


def test_an_episode_of_a_bandit_that_ended_by_itself_is_no_longer_thought_so_long():
    def left(ended):
        task = finite_task(np.ones((1, 4, 1)), np.zeros((1, 4)), horizon=1000)
        learner = untrained()
        memory, here = INIT(learner, jax.random.key(0), task.spec(50)), jnp.asarray(0)
        ends = jnp.asarray(ended), jnp.asarray(not ended)
        memory = LEARN(learner, memory, Transition(here, here, jnp.asarray(1.0), here, *ends))
        return float(learner.outlook(memory)[0])

    assert left(True) == 49 * (1 + 200) / 2  # half of what it was, and of what is usual
    assert left(False) == 49 * (1 + 1000) / 2


@pytest.mark.parametrize(
    ("paid", "unit", "known"),
    [
        ((), 0.0, False),
        ((0.5,), 0.0, False),
        ((0.5, -1.0), 0.0, False),
        ((0.5, -1.0, 2.0), 0.0, True),
        ((0.5, -1.0), 3.0, True),
    ],
)
@pytest.mark.parametrize("states", [1, 2])
def test_the_index_decides_once_the_scale_is_known(states, paid, unit, known):
    memory, learner = pulled(states, *paid, unit=unit)
    model, steps_left = MODEL(learner, memory), learner.outlook(memory)[0]
    made = jnp.clip(model.visits + jnp.clip(model.strength, 0.1, 10.0), 0.1, None)[0]
    met = jnp.maximum(memory.evidence.met.sum(), 1.0)
    closed = gittins_deviations(steps_left / (met * made))
    expected = index_deviations(steps_left, made) if known and states == 1 else closed
    np.testing.assert_allclose(LIFT(learner, memory, model, 100.0).pair[0], expected, rtol=1e-4)


def test_of_coins_the_index_decides_as_far_as_two_values_hold():
    memory, learner = pulled(1, 1.0, 0.0, 1.0)
    model, steps_left = MODEL(learner, memory), learner.outlook(memory)[0]
    made = (model.visits + jnp.clip(model.strength, 0.1, 10.0))[0]
    index, closed = index_deviations(steps_left, made, 0.5), gittins_deviations(steps_left / made)
    found = LIFT(learner, memory, model, 100.0).pair[0]
    np.testing.assert_allclose(found, 0.5 * (index + closed), rtol=1e-4)


@pytest.mark.parametrize("offset", [0.0, 100_000.0])
def test_an_offset_makes_no_arms_alike(offset):
    memory, learner = pulled(1, *(offset + np.asarray([1.0, 3.0, 2.0, 2.5])))
    plan = memory.plan._replace(q=100.0 * jnp.asarray([[1.0, 3.0, 2.0, 2.5]]) + 100.0 * offset)
    memory = memory._replace(plan=plan, closing=plan)
    acts = [
        ACT(learner, key, memory, jnp.asarray(0)) for key in jax.random.split(jax.random.key(0), 8)
    ]
    assert {int(decision.action) for decision in acts} == {1}


def test_of_a_bandit_looking_far_adds_nothing():
    memory, learner = pulled(1, 0.5)
    model = MODEL(learner, memory)
    near, far = (LIFT(learner, memory, model, ahead).pair for ahead in (100.0, 500.0))
    np.testing.assert_array_equal(near, far)


def test_discount_stands_for_the_horizon():
    for horizon, discount in ((10, 1.0), (50, 0.98), (5000, 1 - 1 / LONGEST)):
        spec = random_task(horizon).spec(3)
        found, endless = task_discount(spec)
        np.testing.assert_allclose(found, discount, rtol=1e-6)
        assert bool(endless) == (horizon > 16)


def lived(task, steps=60, slots=None, scale=1.0, seed=1):
    learner = FiniteQ(broad(), untrained().curiosity, slots=slots)
    task = task._replace(reward=task.reward * scale)
    lives = begin_all(learner, task, jax.random.split(jax.random.key(seed), 2), 20)
    lives = advance_unrecorded(learner, task, lives, steps)
    return learner, jax.tree.map(lambda x: x[0], lives.memory)


@pytest.fixture(scope="module")
def world():
    return jax.tree.map(lambda x: x[3], Worlds(4).tasks(jax.random.key(5), 8, "train"))


def test_optimism_only_adds(world):
    learner, memory = lived(world)
    model = MODEL(learner, memory)
    discount, endless = task_discount(memory.spec)
    plain, lifted = no_plan(memory.spec), no_plan(memory.spec)
    lift = LIFT(learner, memory, model, AHEAD(learner, memory))
    for _ in range(30):
        plain = SWEEP(model, HOPES(model, flat(model)), plain, discount, endless)
        lifted = SWEEP(model, HOPES(model, lift), lifted, discount, endless)
    assert (np.asarray(lifted.q - plain.q)[np.asarray(model.mask)] >= -1e-4).all()


@pytest.mark.parametrize("scale", [1000.0, 0.001])
def test_nothing_depends_on_the_unit_of_reward(world, scale):
    _, one = lived(world)
    _, other = lived(world, scale=scale)
    np.testing.assert_array_equal(one.evidence.pair.visits, other.evidence.pair.visits)
    np.testing.assert_allclose(one.plan.q * scale, other.plan.q, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("extreme", [-100.0, 100.0])
def test_a_disaster_is_a_threat_and_no_promise(world, extreme):
    """One pair is far off all others: hope for the untried grows by it only where it is far above."""
    _, memory = lived(world)
    few, quiet = jnp.asarray(1e-3), jnp.asarray(1e-6)
    prior = eqx.tree_at(lambda p: (p.pair.between_weight, p.pair.noise), broad(), (few, quiet))
    learner = FiniteQ(prior, untrained().curiosity)
    seen = memory.evidence
    visits = seen.pair.visits
    worst = jnp.unravel_index(visits.argmax(), visits.shape)
    pair = seen.pair._replace(reward=jnp.zeros_like(visits).at[worst].set(extreme * visits[worst]))
    memory = memory._replace(
        evidence=seen._replace(
            pair=pair,
            lowest=jnp.asarray(-100.0),
            highest=jnp.asarray(100.0),
            binary=jnp.zeros((), bool),
            reward_odds=jnp.asarray(-30.0),
        )
    )
    plain, careful = (MODEL(learner, memory, jnp.asarray(upwards)).reward for upwards in (0.0, 1.0))
    means = pair_means(memory.evidence, prior, reward_scale(memory.evidence, prior))
    less = float(plain.fresh_variance - careful.fresh_variance)
    np.testing.assert_allclose(less, float(means.between) if extreme < 0 else 0.0, rtol=0.05)
    tried, untried = np.asarray(visits) > 0, np.asarray((visits == 0) & world.action_mask)
    np.testing.assert_array_equal(careful.variance[tried], plain.variance[tried])
    np.testing.assert_allclose(careful.mean, plain.mean)
    assert (np.asarray(careful.variance <= plain.variance))[untried].all()


def test_what_comes_after_the_lifetime_is_worth_nothing():
    """With few steps left the acting plan looks no farther; what is believed of the task stays."""
    task, learner, memory = watched(50)
    spec = memory.spec._replace(steps=memory.evidence.steps.astype(jnp.int32) + 8)
    late = memory._replace(spec=spec)
    for _ in range(50):
        late = REPLAN(learner, late)
    np.testing.assert_allclose(late.plan.q, exact.optimal_q(task, 0.875), rtol=0.05, atol=0.05)
    found, before = (BELIEVED(learner, each).q for each in (late, memory))
    np.testing.assert_allclose(found, before, rtol=1e-3)
    _, _, little = watched(50, visits=2)
    spec = spec._replace(steps=little.evidence.steps.astype(jnp.int32) + 8)
    # Half as far, while little is known.
    assert float(AHEAD(learner, little._replace(spec=spec))) == 4


def test_values_stay_finite_where_optimism_could_feed_on_itself():
    """Before any end is seen, hope for states never met must not grow without bound."""
    rng = np.random.default_rng(0)
    ring = np.zeros((12, 2, 12))
    ring[np.arange(12), 0, (np.arange(12) + 1) % 12] = 1.0
    ring[np.arange(12), 1, rng.integers(12, size=12)] = 1.0
    task = finite_task(ring, np.full((12, 2), -1.0), horizon=1000)
    _, memory = lived(task, steps=300)
    assert np.isfinite(np.asarray(memory.plan.q)).all()
    assert np.abs(np.asarray(memory.plan.q)).max() < 1e4


def test_an_end_is_worth_nothing_after_it_and_a_truncation_is():
    task = random_task(50, ends=0.0)
    learner = untrained()

    def after(terminated):
        memory = INIT(learner, jax.random.key(0), task.spec(5))
        for onto, end in ((1, False), (2, terminated)) * 15:
            zero = jnp.zeros((), jnp.int32)
            flags = (jnp.asarray(end), jnp.asarray(onto == 2 and not end))
            reward = jnp.asarray(1.0)
            moved = Transition(zero + onto - 1, zero, reward, zero + onto, *flags)
            memory = UPDATE(learner, jax.random.key(0), memory, moved)
        return BELIEVED(learner, memory).q[1, 0]

    assert float(after(True)) < 1.5
    assert float(after(False)) > 3.0


def pulled(states, *paid, unit=0.0):
    """A memory of four arms of which the first ones paid this, in a state like ``states - 1`` others."""
    task = finite_task(np.ones((states, 4, states)) / states, np.zeros((states, 4)), horizon=1)
    prior = eqx.tree_at(lambda p: p.unit, broad(), jnp.asarray(unit))
    learner = FiniteQ(prior, untrained().curiosity)
    memory, no = INIT(learner, jax.random.key(0), task.spec(500)), jnp.zeros((), bool)
    for arm, reward in enumerate(paid):
        zero = jnp.zeros((), jnp.int32)
        last = Transition(zero, jnp.asarray(arm), jnp.asarray(reward), zero, no, ~no)
        memory = LEARN(learner, memory, last)
    return memory, learner


def surprise(states, *paid, unit=0.0):
    """What untried arms may pay beyond what is usual: variance by arm, and the unit."""
    memory, learner = pulled(states, *paid, unit=unit)
    evidence = memory.evidence._replace(reward_odds=jnp.asarray(-30.0))
    scale = reward_scale(evidence, learner.prior)
    usual = pair_means(evidence, learner.prior, scale).variance[0]
    found = MODEL(learner, memory._replace(evidence=evidence)).reward.variance[0]
    return found - usual, float(scale.unit)


def coins(wins, losses, stays_two=1.0):
    """What FiniteQ plans for a bandit of four arms, the first of them pulled so often."""
    prior = eqx.tree_at(lambda p: p.stays_two, broad(), jnp.asarray(stays_two))
    learner = FiniteQ(prior, untrained().curiosity)
    task = finite_task(np.ones((1, 4, 1)), np.zeros((1, 4)), horizon=1)
    memory, no = INIT(learner, jax.random.key(0), task.spec(500)), jnp.zeros((), bool)
    for won in [1.0] * wins + [0.0] * losses:
        zero = jnp.zeros((), jnp.int32)
        last = Transition(zero, zero, jnp.asarray(won), zero, no, ~no)
        memory = UPDATE(learner, jax.random.key(0), memory, last)
    return np.asarray(memory.plan.q[0])


def test_hopes_stay_within_the_two_values_that_were_told():
    bounded, hopeful = coins(20, 2), coins(20, 2, stays_two=0.0)
    assert (bounded < 1.0).all()
    assert bounded[1:].max() < hopeful[1:].max()
    assert bounded[0] > 20 / 22 - 0.05  # optimism still only adds
    assert hopeful[1:].max() > 1.0
    assert coins(20, 1)[1:].max() > 1.0  # one loss is no second value yet


def test_hope_is_so_many_deviations_of_log_odds():
    def hope(mean, deviation, lift, hold=1.0, careful=False):
        two = Bounds(*(jnp.asarray(x) for x in (-1.0, 3.0, hold, careful)))
        moments = jnp.asarray(mean), jnp.asarray(deviation**2)
        return float(_hope(moments, jnp.asarray(lift), two, jnp.asarray(1.0)))

    within = 4.0 / (1.0 + np.exp(-2.0 * 0.2)) - 1.0 - 1.0
    assert hope(1.0, 0.2, 2.0) == pytest.approx(within, rel=1e-4)
    assert hope(1.0, 0.2, 2.0, hold=0.0) == pytest.approx(2.0 * 0.2, rel=1e-5)
    # What is rare and sure once seen: nearly all of it, or where hopes are careful no more than deviations.
    rare = -1.0 + 4.0 * 0.1, 4.0 * 0.3, 1.5
    assert hope(*rare) == pytest.approx(4.0 * (0.94 - 0.1), rel=0.01)
    assert hope(*rare, careful=True) == pytest.approx(1.5 * 4.0 * 0.3, rel=1e-4)
    assert hope(1.0, 0.2, 2.0, careful=True) == pytest.approx(within, rel=1e-4)
    assert hope(*rare, hold=0.5, careful=True) == pytest.approx(1.5 * 4.0 * 0.3, rel=1e-4)


def corridor(numbers):
    """What is believed where right was never tried from cells 11 and 12; being in 13 pays."""
    ring = np.zeros((14, 2, 14))
    for state in range(14):
        ring[state, 0, max(state - 1, 0)] = 1.0
        ring[state, 1, min(state + 1, 13)] = 1.0
    task = finite_task(ring, np.zeros((14, 2)), horizon=50)
    learner = FiniteQ(broad(), untrained().curiosity, slots=4)
    spec = task.spec(9)._replace(numbers=jnp.asarray(numbers, jnp.int32))
    memory = INIT(learner, jax.random.key(0), spec)
    no = jnp.zeros((), bool)
    steps = [(s, 1, s + 1, 0.0) for s in range(10)] + [(s, 0, s - 1, 0.0) for s in range(10, 0, -1)]
    steps += [(12, 0, 11, 0.0), (13, 0, 12, 0.0), (13, 1, 13, 1.0)] * 2
    for state, action, onto, reward in steps:
        numbers = (jnp.asarray(x, jnp.int32) for x in (state, action))
        moved = Transition(*numbers, jnp.asarray(reward), jnp.asarray(onto, jnp.int32), no, no)
        memory = LEARN(learner, memory, moved)
    return np.asarray(BELIEVED(learner, memory).q)


def test_an_untried_pair_is_worth_what_its_stride_leads_to():
    told = corridor(range(14))
    assert (told[11:13, 1] > 1.03 * told[11:13, 0]).all()
    by_lot = corridor(np.random.default_rng(0).permutation(14))
    assert (by_lot[11:13, 1] < 1.03 * by_lot[11:13, 0]).all()


@pytest.mark.parametrize("paid", [(0.5, 2.0, 1.0), (3.0, -4.0, 1.0, 2.0)])
def test_an_arm_never_tried_may_set_a_record(paid):
    more, unit = surprise(1, *paid)
    tried = len(paid)
    assert unit >= max(paid) - min(paid)  # of so few rewards it is taken for larger
    np.testing.assert_allclose(more[:tried], 0.0, atol=1e-6)
    np.testing.assert_allclose(more[tried:], unit**2 / (tried + 1.0), rtol=1e-4)


def test_no_record_is_set_where_arms_win_or_lose_or_scale_is_known_or_states_are_many():
    for paid in ((), (1.0,), (1.0, 0.0, 1.0)):
        np.testing.assert_allclose(surprise(1, *paid)[0], 0.0, atol=1e-6)
    for sizes, known in ((1, 3.0), (2, 0.0)):
        untried = surprise(sizes, 0.5, 2.0, 1.0, unit=known)[0][3:]
        np.testing.assert_allclose(untried, 0.0, atol=1e-6)


@pytest.mark.parametrize("exists", [[True], [True, False]])
def test_of_a_bandit_arrivals_explain_no_rewards(exists):
    sizes = jnp.asarray(exists), jnp.ones(3, bool)
    spec, learner = TaskSpec(*sizes, jnp.asarray(1), jnp.asarray(99)), untrained()
    memory, ended = INIT(learner, jax.random.key(0), spec), jnp.asarray(True)
    for _ in range(40):  # what the first arm pays, going anywhere pays too
        won = Transition(0, jnp.asarray(0), jnp.asarray(1.0), jnp.asarray(0), ~ended, ended)
        memory = UPDATE(learner, jax.random.key(0), memory, won)
    scale = reward_scale(memory.evidence, learner.prior)
    believed = BELIEVED(learner, memory).q[0]
    np.testing.assert_allclose(believed, pair_means(memory.evidence, learner.prior, scale).mean[0])


@pytest.mark.parametrize("unit", [1e-18, 1e-16, 1e-10, 1e-6, 1e12])
def test_no_unit_of_reward_makes_plans_of_nothing(unit):
    """Below `SMALLEST_REWARD` there is nothing to plan for; above it plans are the same but for the unit."""
    steps = [(0, 0, 0.5, 1), (1, 1, -1.0, 2), (2, 0, 0.2, 0), (0, 1, 0.1, 0)] * 3
    found = []
    for size in (1.0, unit):
        masks = jnp.ones(3, bool), jnp.ones(2, bool)
        memory = INIT(
            untrained(), jax.random.key(0), TaskSpec(*masks, jnp.asarray(30), jnp.asarray(9))
        )
        for state, action, reward, onto in steps:
            made = (
                jnp.asarray(state),
                jnp.asarray(action),
                jnp.asarray(size * reward),
                jnp.asarray(onto),
            )
            last = Transition(*made, jnp.asarray(False), jnp.asarray(False))
            memory = UPDATE(untrained(), jax.random.key(0), memory, last)
        found.append(np.asarray(memory.plan.q, np.float64))
    assert np.isfinite(found[1]).all()
    if unit > 1e-13:
        np.testing.assert_allclose(found[1] / unit, found[0], rtol=2e-3)


@pytest.mark.parametrize("unit", [1e-10, 1.0])
def test_hopes_of_two_values_do_not_depend_on_their_unit(unit):
    two = Bounds(*(jnp.asarray(x) for x in (0.0, unit, 1.0, False)))
    moments = jnp.asarray(0.5 * unit), jnp.asarray((0.2 * unit) ** 2)
    hope = float(_hope(moments, jnp.asarray(2.0), two, jnp.asarray(1.0)))
    assert hope / unit == pytest.approx(1.0 / (1.0 + np.exp(-1.6)) - 0.5, rel=1e-3)
