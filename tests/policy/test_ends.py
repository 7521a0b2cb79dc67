"""Tasks in which episodes end by themselves: what is hoped for there, and how often it can be had."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metaql
from metaql.embedding.embed import Clock
from metaql.meta.lifetime import live
from metaql.policy.curiosity import index_deviations
from metaql.policy.finiteq import FiniteQ, untrained
from metaql.policy.outlook import Plan, flat, hopes, most_known, sweep
from metaql.tasks.finite import finite_task
from metaql.types import TaskSpec, Transition

LEARN, REPLAN = eqx.filter_jit(FiniteQ.learn), eqx.filter_jit(FiniteQ.replan)
MODEL, LIFT = eqx.filter_jit(FiniteQ.model), eqx.filter_jit(FiniteQ.lift)
AHEAD, OUTLOOK = eqx.filter_jit(FiniteQ.ahead), eqx.filter_jit(FiniteQ.outlook)
LEARNER = untrained()
GOES_ON, ENDS = False, True


def remember(*steps, episodes=20, horizon=80, states=12, again=1):
    """Memory after these ``(state, action, reward, next_state, terminated)``, so many times over."""
    masks = jnp.ones(states, bool), jnp.ones(2, bool)
    memory = LEARNER.init(
        jax.random.key(0), TaskSpec(*masks, jnp.asarray(horizon), jnp.asarray(episodes))
    )
    for state, action, reward, onto, ended in steps * again:
        step = (jnp.asarray(x, jnp.int32) for x in (state, action, onto))
        here, acted, there = step
        last = Transition(
            here, acted, jnp.asarray(reward), there, jnp.asarray(ended), jnp.asarray(False)
        )
        memory = LEARN(LEARNER, memory, last)
    return memory


STAYS, FALLS = (0, 0, 0.5, 0, GOES_ON), (0, 1, 2.0, 1, ENDS)


def unreached(goal=0.97, cost=0.03, size=20):
    """Four cells in a row with a goal at the end, and many numbers that no cell has."""
    transition = np.zeros((size, 2, size))
    transition[:, :, 0] = 1.0
    reward, termination = np.full((size, 2), -cost), np.zeros((size, 2))
    for cell in range(4):
        transition[cell] = 0.0
        transition[cell, 0, max(cell - 1, 0)] = transition[cell, 1, cell + 1] = 1.0
    reward[3, 1], termination[3, 1] = goal, 1.0
    return finite_task(transition, reward, termination=termination, horizon=60)


def test_a_goal_is_gone_back_to_however_many_numbers_were_never_met():
    """Once every action was tried several times, whole episodes were spent looking for what is not there."""
    agent = metaql.load("finite")
    tasks = jax.tree.map(lambda leaf: jnp.stack([leaf] * 8), unreached())
    lives = live(
        agent.learner_for(20, 2), tasks, jax.random.split(jax.random.key(0), 8), episodes=20
    )
    best = 0.97 - 3 * 0.03
    np.testing.assert_allclose(lives.returns[:, 8:], best, atol=1e-5)


@pytest.mark.parametrize(("discount", "best"), [(0.9, 5.0), (0.5, 2.0)])
def test_the_most_that_is_known_is_the_best_pair_over_and_over(discount, best):
    model = MODEL(LEARNER, remember(STAYS, FALLS, again=200))
    assert float(most_known(model, jnp.asarray(discount))) == pytest.approx(best, rel=0.02)


def test_what_ends_an_episode_half_of_the_time_goes_on_in_the_other_half():
    slips = ((0, 1, 2.0, 1, ENDS), (0, 1, 0.0, 2, GOES_ON), (2, 0, 0.0, 0, GOES_ON))
    model = MODEL(LEARNER, remember(STAYS, *slips, again=200))
    each, goes_on, discount = 1.0, 0.5, 0.5
    best = each / (1.0 - discount * goes_on)
    assert float(most_known(model, jnp.asarray(discount))) == pytest.approx(best, rel=0.03)


def test_what_was_never_tried_is_not_known():
    model = MODEL(LEARNER, remember(STAYS, again=200))
    assert float(most_known(model, jnp.asarray(0.5))) == pytest.approx(1.0, rel=0.05)


def test_what_follows_a_state_never_met_is_worth_no_more_than_the_best_known():
    model = MODEL(LEARNER, remember(STAYS, FALLS, again=20))
    endless, discount = jnp.asarray(True), jnp.asarray(0.9)

    def after(fresh, most):
        plan = Plan(jnp.zeros((12, 2)), jnp.asarray(fresh))
        return sweep(model, hopes(model, flat(model), most), plan, discount, endless)

    bounded, at_bound, free = after(1e4, 50.0), after(50.0, 50.0), after(1e4, jnp.inf)
    assert float(bounded.fresh) == pytest.approx(float(at_bound.fresh), rel=1e-5)
    np.testing.assert_allclose(bounded.q, at_bound.q, rtol=1e-5)
    assert float(free.q[0, 0]) > 10.0 * float(bounded.q[0, 0])


def test_going_on_is_worth_no_more_than_the_best_known_from_any_state():
    """Hopes add up along a way: without the bound the way around is worth more than its end."""
    model = MODEL(LEARNER, remember(STAYS, FALLS, again=20))
    endless, discount = jnp.asarray(True), jnp.asarray(0.9)

    def after(known, most):
        plan = Plan(jnp.zeros((12, 2)).at[0].set(known), jnp.zeros(()))
        return sweep(model, hopes(model, flat(model), most), plan, discount, endless).q

    np.testing.assert_allclose(after(1e4, 50.0), after(50.0, 50.0), rtol=1e-5)
    assert float(after(1e4, jnp.inf)[0, 0]) > 10.0 * float(after(1e4, 50.0)[0, 0])
    assert float(after(40.0, 50.0)[0, 0]) < float(after(50.0, 50.0)[0, 0])


@pytest.mark.parametrize("episodes", [1, 1_000])
@pytest.mark.parametrize(("horizon", "left"), [(10, 10), (10, 3), (60, 60), (60, 12)])
def test_the_bound_takes_nothing_from_what_is_known(horizon, left, episodes):
    """State 1 pays a little with every step or 1 at once; from state 0 one goes there or to a mere 1.

    A bound of 1, for plans that do not discount, made the way to the mere 1, which pays at once, the best.
    """
    steps = ((0, 0, 0.0, 1, GOES_ON), (0, 1, 0.05, 2, GOES_ON), (1, 0, 0.05, 1, GOES_ON))
    steps += ((1, 1, 1.0, 3, ENDS), (2, 0, 1.0, 3, ENDS), (2, 1, 1.0, 3, ENDS))
    memory = remember(*steps, again=60, horizon=horizon, episodes=episodes)
    clock = Clock(step=jnp.asarray(float(horizon - left)), episode=jnp.zeros(()))
    memory = memory._replace(clock=clock)
    for _ in range(40):
        memory = REPLAN(LEARNER, memory)
    plan = memory.closing if left <= 16 < horizon else memory.plan
    if left <= 16:
        assert float(plan.q[0, 0]) > 0.95 + 0.05 * (left - 2)
        assert int(plan.q[0].argmax()) == 0 or left == 3
    stays = 0.05 * (left - 1) if left <= 16 else 0.05 * horizon
    assert float(plan.q[1].max()) > 0.97 * max(stays, 1.0)


def test_where_everything_costs_an_end_is_no_cheaper_than_it_is():
    """Nothing is worth less than the price of the one step to the end."""
    costs = ((0, 0, -0.5, 0, GOES_ON), (0, 1, -0.5, 1, ENDS))
    memory = REPLAN(LEARNER, remember(*costs, again=60, horizon=10, states=2))
    np.testing.assert_allclose(memory.plan.q[0], [-1.0, -0.5], atol=0.05)


def test_before_anything_was_paid_hopes_have_no_bound():
    """To go on is all there is then, and what ends it is to be avoided."""
    nothing = remember((0, 0, 0.0, 1, GOES_ON), (1, 1, 0.0, 2, ENDS))
    paid = remember((0, 0, 0.0, 1, GOES_ON), (1, 1, 0.01, 2, ENDS))
    hoped, bounded = (REPLAN(LEARNER, memory) for memory in (nothing, paid))
    for _ in range(30):
        hoped, bounded = REPLAN(LEARNER, hoped), REPLAN(LEARNER, bounded)
    unit = 0.01  # what was paid tells the unit
    assert float(hoped.plan.fresh) > 3.0 * float(bounded.plan.fresh) / unit > 0.0


def test_the_first_end_makes_other_hopes_and_no_later_one_does():
    before = REPLAN(LEARNER, remember(STAYS, again=3))
    assert float(jnp.abs(before.plan.q).max()) > 0.0
    fall = Transition(
        *(jnp.asarray(x, jnp.int32) for x in (0, 1)),
        jnp.asarray(0.5),
        jnp.asarray(1),
        jnp.asarray(True),
        jnp.asarray(False),
    )
    first = LEARN(LEARNER, before, fall)
    assert float(jnp.abs(first.plan.q).max()) == 0.0 == float(first.plan.fresh)
    again = LEARN(LEARNER, REPLAN(LEARNER, first), fall)
    assert float(jnp.abs(again.plan.q).max()) > 0.0
    cut = fall._replace(terminated=jnp.asarray(False), truncated=jnp.asarray(True))
    assert float(jnp.abs(LEARN(LEARNER, before, cut).plan.q).max()) > 0.0


LONG = ((0, 0, -0.1, 2, GOES_ON), (2, 0, -0.1, 3, GOES_ON), (3, 1, 1.0, 1, ENDS))
SHORT = tuple((state, 1, -0.1, state + 1, ENDS) for state in range(10))


@pytest.mark.parametrize(
    ("steps", "episodes", "by_episodes"),
    [(LONG, 2, True), (LONG, 20, True), (SHORT, 12, False), (SHORT, 1_000, False)],
)
def test_a_state_is_worth_no_more_visits_than_there_are_episodes(steps, episodes, by_episodes):
    memory = remember(*steps, episodes=episodes)
    model = MODEL(LEARNER, memory)
    lift = LIFT(LEARNER, memory, model, AHEAD(LEARNER, memory))
    left = float(OUTLOOK(LEARNER, memory)[0])
    met = int(memory.evidence.met.sum())
    lived = sum(ended for *_, ended in steps)
    visits = min(episodes - lived, left / met)
    assert (visits == episodes - lived) == by_episodes
    made = jnp.clip(model.fresh_strength, 0.1, 10.0)
    want = index_deviations(jnp.asarray(visits), made, model.bounds.hold)
    assert float(lift.fresh) == pytest.approx(float(want), rel=1e-4)


def test_where_nothing_ends_every_step_may_be_spent_in_one_state():
    memory = remember((0, 0, -0.1, 2, GOES_ON), (2, 0, -0.1, 3, GOES_ON), episodes=2)
    model = MODEL(LEARNER, memory)
    longer, shorter = (
        float(LIFT(LEARNER, known, model, AHEAD(LEARNER, known)).fresh)
        for known in (
            memory,
            memory._replace(spec=memory.spec._replace(horizon=jnp.asarray(20))),
        )
    )
    assert longer > shorter


def test_hopes_of_two_values_are_careful_once_something_ended_but_of_no_bandit():
    def careful(*steps, states=12):
        return bool(MODEL(LEARNER, remember(*steps, states=states)).bounds.careful)

    assert not careful(STAYS)
    assert careful(STAYS, FALLS)
    assert not careful((0, 0, 1.0, 0, ENDS), states=1)
