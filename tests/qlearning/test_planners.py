"""Planners (UCBVI, UCRL2, BEB, PSRL, mean + c * std): bonuses by hand, near-optimal returns."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import linprog

from metaql.meta.lifetime import live
from metaql.qlearning import BEB, PSRL, UCBVI, UCRL2, MeanStdPlanner
from metaql.qlearning.optimistic import optimistic_value
from metaql.qlearning.planning import count, no_counts, plan_every_step, start_clock
from metaql.qlearning.posterior import log_gamma
from metaql.tasks.exact import model_of, optimal_return, plan_horizon
from metaql.tasks.finite import finite_task, pad_task
from metaql.types import TaskSpec, Transition

KEY = jax.random.key(0)


@eqx.filter_jit
def init(learner, spec):
    return learner.init(KEY, spec)


@eqx.filter_jit
def update(learner, memory, transition):
    return learner.update(KEY, memory, transition)


def spec(states=1, actions=1, horizon=2, episodes=10):
    masks = jnp.ones(states, bool), jnp.ones(actions, bool)
    return TaskSpec(*masks, jnp.asarray(horizon), jnp.asarray(episodes))


def transition(s, a, r, s2, *, terminated=False, truncated=False):
    ints = [jnp.asarray(x, jnp.int32) for x in (s, a, s2)]
    return Transition(
        ints[0], ints[1], jnp.float32(r), ints[2], jnp.asarray(terminated), jnp.asarray(truncated)
    )


def random_task(seed=0, states=4, actions=2, horizon=6):
    """Dirichlet(1) transitions, rewards in [0, 1] with a little noise, one pair that often ends."""
    rng = np.random.default_rng(seed)
    ends = np.zeros((states, actions))
    ends[1, 0] = 0.5
    return finite_task(
        rng.dirichlet(np.ones(states), (states, actions)),
        rng.random((states, actions)),
        termination=ends,
        horizon=horizon,
        reward_noise=0.1,
    )


def test_every_row_of_a_plan_is_the_exact_answer_for_its_steps():
    model = model_of(random_task())
    plan = plan_every_step(model, 5)
    for steps in range(1, 6):
        np.testing.assert_allclose(plan[steps - 1], plan_horizon(model, steps), rtol=1e-6)


def test_a_plan_takes_a_bonus_for_every_step():
    model = model_of(random_task())
    bonus = jnp.arange(3.0)[:, None, None]
    plan = plan_every_step(model, 3, bonus)
    for steps in range(1, 4):
        dearer = model._replace(reward=model.reward + steps - 1.0)
        values = plan[steps - 2].max(-1) if steps > 1 else jnp.zeros(4)
        expected = dearer.reward + model.onward @ values
        np.testing.assert_allclose(plan[steps - 1], expected, rtol=1e-6)


def test_ucbvi_bonus_by_hand():
    learner = UCBVI(horizon=2, bonus_scale=0.01)
    memory = init(learner, spec(actions=2))
    # Untried: the cap, one reward per step left.
    np.testing.assert_allclose(memory.plan.acting[:, 0], [[1, 1], [2, 2]])
    memory = update(learner, memory, transition(0, 0, 0.5, 0))
    np.testing.assert_allclose(memory.plan.acting[:, 0], [[1, 1], [2, 2]])  # not before the end
    memory = update(learner, memory, transition(0, 0, 0.3, 0, truncated=True))
    # ln(5 S A T / delta) = ln(5 * 2 * 20 / 0.1); cap 2; two tries of mean 0.4.
    bonus = 0.01 * 2 * np.log(2000) / np.sqrt(2)
    expected = [[0.4 + bonus, 1], [0.4 + bonus + 1, 2]]
    np.testing.assert_allclose(memory.plan.acting[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(memory.plan.believed[:, 0], [[0.4, 0], [0.8, 0]], rtol=1e-6)


def test_ucbvi_never_raises_a_value_again():
    learner = UCBVI(horizon=1, bonus_scale=0.01)
    memory = init(learner, spec(horizon=1))
    low = update(learner, memory, transition(0, 0, 0.0, 0, truncated=True))
    high = update(learner, low, transition(0, 0, 1.0, 0, truncated=True))
    assert float(high.plan.believed[0, 0, 0]) == pytest.approx(0.5)
    np.testing.assert_allclose(high.plan.acting, low.plan.acting)


@pytest.mark.parametrize("cls", [UCBVI, PSRL])
def test_a_termination_leads_nowhere_and_a_truncation_goes_on(cls):
    wide = (
        {"transition_prior": 0.0, "ending_prior": 0.0, "reward_count": 1e-6} if cls is PSRL else {}
    )
    learner = cls(horizon=2, **wide)
    start = init(learner, spec())
    ended = update(learner, start, transition(0, 0, 1.0, 0, terminated=True))
    np.testing.assert_allclose(ended.plan.believed[:, 0, 0], [1.0, 1.0], rtol=1e-5)
    cut = update(learner, start, transition(0, 0, 1.0, 0, truncated=True))
    np.testing.assert_allclose(cut.plan.believed[:, 0, 0], [1.0, 2.0], rtol=1e-5)


@pytest.mark.parametrize("cls", [UCBVI, PSRL])
def test_the_plan_for_the_steps_left_is_used(cls):
    learner = cls(horizon=3)
    memory = init(learner, spec(horizon=2, actions=2))
    rows = jnp.arange(3.0)[:, None, None] * jnp.ones((3, 1, 2))
    memory = memory._replace(plan=memory.plan._replace(acting=rows))
    assert float(learner.act(KEY, memory, jnp.asarray(0)).values[0]) == 1.0  # 2 steps left
    memory = update(learner, memory, transition(0, 0, 0.0, 0))
    assert float(learner.act(KEY, memory, jnp.asarray(0)).values[0]) == 0.0  # 1 step left


def test_psrl_posterior_means_by_hand():
    ended = transition(0, 0, 1.0, 0, terminated=True)
    cut = transition(0, 0, 1.0, 0, truncated=True)
    pairwise = PSRL(horizon=2)
    memory = update(pairwise, init(pairwise, spec()), cut)
    # Reward (0 + 1) / 2; goes on with (1 + 1) / (1 + 1 + 1).
    np.testing.assert_allclose(memory.plan.believed[:, 0, 0], [0.5, 0.5 + 0.5 * 2 / 3], rtol=1e-5)
    by_arrival = PSRL(horizon=2, termination_prior=jnp.array([[1.0, 3.0]]))
    memory = update(by_arrival, init(by_arrival, spec()), ended)
    np.testing.assert_allclose(memory.plan.believed[:, 0, 0], [0.5, 0.5 + 0.5 * 3 / 5], rtol=1e-5)
    beta = PSRL(horizon=1, reward_model="beta", reward_mean=0.25, reward_count=4.0)
    memory = update(beta, init(beta, spec()), cut)
    np.testing.assert_allclose(memory.plan.believed[0, 0, 0], 2 / 5, rtol=1e-5)


@eqx.filter_jit
def first_plans(learner, draws):
    draw = jax.vmap(lambda key: learner.init(key, spec()).plan.acting)
    return draw(jax.random.split(KEY, draws))


def first_rewards(learner, draws=2000):
    return np.asarray(first_plans(learner, draws)[:, 0, 0, 0])


def test_psrl_samples_have_the_posteriors_distribution():
    normal = first_rewards(PSRL(horizon=1, reward_mean=0.5, reward_count=4.0, reward_std=3.0))
    assert stats.kstest(normal, stats.norm(0.5, 1.5).cdf).pvalue > 1e-3
    beta = first_rewards(PSRL(horizon=1, reward_model="beta", reward_mean=0.2, reward_count=5.0))
    assert stats.kstest(beta, stats.beta(1, 4).cdf).pvalue > 1e-3
    # Two steps of certain reward 1: what is left after the first is Pr(going on).
    known = {"horizon": 2, "reward_mean": 1.0, "reward_count": 1e12}
    for learner in (
        PSRL(**known, transition_prior=2.0, ending_prior=3.0),
        PSRL(**known, termination_prior=jnp.array([[3.0, 2.0]])),
    ):
        goes_on = first_plans(learner, 2000)[:, 1, 0, 0] - 1.0
        assert stats.kstest(goes_on, stats.beta(2, 3).cdf).pvalue > 1e-3


@pytest.mark.parametrize("shape", [0.3, 1.0, 7.0, 1e4])
def test_log_gamma_has_the_gamma_distribution(shape):
    draws = np.exp(np.asarray(log_gamma(KEY, jnp.full(5000, shape)), np.float64))
    assert stats.kstest(draws, stats.gamma(shape).cdf).pvalue > 1e-3


def test_log_gamma_survives_tiny_and_zero_shapes():
    draws = np.asarray(log_gamma(KEY, jnp.full(5000, 1e-3)), np.float64)
    # For a -> 0, -a * log Gamma(a) tends to an exponential; exp() of these would be 0.
    assert stats.kstest(-1e-3 * draws, stats.expon.cdf).pvalue > 1e-3
    assert np.isneginf(log_gamma(KEY, jnp.zeros(3))).all()


def test_informed_psrl_settles_a_cell_with_one_observation():
    tiny = PSRL(horizon=2, termination_prior=jnp.full((1, 2), 1e-3))
    start = init(tiny, spec())
    for flags, share in (({"terminated": True}, 0.0), ({"truncated": True}, 1.0)):
        memory = update(tiny, start, transition(0, 0, 1.0, 0, **flags))
        reward, two = np.asarray(memory.plan.acting[:, 0, 0])
        assert two - reward == pytest.approx(share * reward, abs=0.02)


def test_mean_std_planner_by_hand():
    learner = MeanStdPlanner(scale=2.0, gamma=0.5, ending_prior=1.0, sweeps=60)
    memory = init(learner, spec())
    memory = update(learner, memory, transition(0, 0, 1.0, 0, truncated=True))
    # Reward 1/2 with variance 1/2; goes on with 2/3, Dirichlet total 3.
    q = float(memory.q[0, 0, 0])
    spread = np.sqrt(0.5 + 0.25 * (2 / 3) * (1 / 3) * q**2 / 4)
    assert q == pytest.approx(0.5 + 0.5 * 2 / 3 * q + 2 * spread, rel=1e-5)
    assert float(memory.q[1, 0, 0]) == pytest.approx(0.5 / (1 - 0.5 * 2 / 3), rel=1e-5)


def test_mean_std_over_the_steps_left_by_hand():
    learner = MeanStdPlanner(scale=2.0, gamma=1.0, horizon=5)
    memory = init(learner, spec(states=2))
    # Reward 0 with variance 1; both states alike, so the next value has no variance.
    np.testing.assert_allclose(memory.q[:, :, 0], [[4, 4], [0, 0]], atol=1e-6)
    memory = update(learner, memory, transition(0, 0, 1.0, 1))
    # One step left. Reward 1/2 with variance 1/2 where it was tried.
    last = [0.5 + 2 * np.sqrt(0.5), 2.0]
    np.testing.assert_allclose(memory.q[:, :, 0], [last, [0.5, 0]], rtol=1e-6)
    memory = update(learner, memory, transition(1, 0, 0.0, 1, truncated=True))
    # Two left again, both rows tried: Dirichlet (1, 2) of total 3, rewards 1/2 and 0 of variance 1/2.
    v = np.array([0.5, 0.0]) + 2 * np.sqrt(0.5)
    spread = np.sqrt(0.5 + (1 / 3) * (2 / 3) * (v[0] - v[1]) ** 2 / 4)
    two = np.array([0.5, 0.0]) + v[0] / 3 + v[1] * 2 / 3 + 2 * spread
    np.testing.assert_allclose(memory.q[0, :, 0], two, rtol=1e-6)
    np.testing.assert_allclose(memory.q[1, :, 0], [0.5 + 0.5 / 3, 0.5 / 3], rtol=1e-6)


def test_mean_std_that_knows_everything_plans_exactly_the_steps_left():
    task = random_task(seed=1)
    model, sure = model_of(task), 1e8
    learner = MeanStdPlanner(
        scale=3.0,
        gamma=1.0,
        horizon=6,
        transition_prior=sure * model.onward,
        ending_prior=sure * (1.0 - model.onward.sum(-1)),
        reward_mean=model.reward,
        reward_count=sure,
    )
    memory = init(learner, task.spec(3))
    for left in (6, 5, 4):
        for q in memory.q:
            np.testing.assert_allclose(q, plan_horizon(model, left), atol=3e-3)
        memory = update(learner, memory, transition(0, 0, 1.0, 0))


def test_beb_by_hand():
    learner = BEB(horizon=2, beta=3.0, reward_mean=1.0)
    memory = init(learner, spec(horizon=2))
    # Nothing seen: 1 + 1 / (1 + 1), then 3 * 1 / (1 + 1) on top for the step to come.
    np.testing.assert_allclose(memory.plan.acting[:, 0, 0], [1.5, 1.5 + 1.5 + 1.5], rtol=1e-6)
    memory = update(learner, memory, transition(0, 0, 0.0, 0, truncated=True))
    expected = [0.5 + 1 / 3, 2 * (0.5 + 1 / 3) + 3 / 3]
    np.testing.assert_allclose(memory.plan.acting[:, 0, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(memory.plan.believed[:, 0, 0], [0.5, 1.0], rtol=1e-6)


@pytest.mark.parametrize("width", [0.0, 0.3, 1.1, 5.0])
def test_the_optimistic_value_is_that_of_the_linear_programme(width):
    rng = np.random.default_rng(2)
    rows, values = rng.dirichlet(np.ones(4), 3), rng.normal(size=4)
    exists = jnp.array([True, True, True, True, False])
    found = optimistic_value(
        jnp.asarray(np.c_[rows, np.zeros(3)], jnp.float32),
        jnp.asarray([*values, 100.0], jnp.float32),  # what does not exist promises nothing
        jnp.full(3, width),
        exists,
    )
    for row, value in zip(rows, found, strict=True):
        # Unknown: p' and how far each entry moves.
        moves = np.block([[np.eye(4), -np.eye(4)], [-np.eye(4), -np.eye(4)]])
        limits = np.r_[row, -row, width]
        exact = linprog(
            np.r_[-values, np.zeros(4)],
            A_ub=np.vstack([moves, np.r_[np.zeros(4), np.ones(4)]]),
            b_ub=limits,
            A_eq=[np.r_[np.ones(4), np.zeros(4)]],
            b_eq=[1.0],
            bounds=(0, None),
        )
        assert float(value) == pytest.approx(-exact.fun, abs=1e-5)


def test_ucrl2_by_hand():
    learner = UCRL2(horizon=2, reward_scale=0.2, transition_scale=0.01)
    seen = spec(states=2)
    memory = update(learner, init(learner, seen), transition(0, 0, 1.0, 1, truncated=True))
    # S = 2, A = 1, one step: widths of ln(2 * 2 / 0.05) and ln(2 / 0.05), the same for both pairs.
    width_r = 0.2 * np.sqrt(3.5 * np.log(80))
    half = 0.01 * np.sqrt(14 * 2 * np.log(40)) / 2
    one = np.array([1.0, 0.0]) + width_r
    # State 0 led to 1: a little moves back to 0. State 1 was never tried: both alike, and as little.
    ahead = [one[1] + half * (one[0] - one[1]), one.mean() + half * (one[0] - one[1])]
    np.testing.assert_allclose(memory.plan.acting[0, :, 0], one, rtol=1e-6)
    np.testing.assert_allclose(memory.plan.acting[1, :, 0], one + ahead, rtol=1e-6)
    np.testing.assert_allclose(memory.plan.believed[1, :, 0], [1.0, 0.5], rtol=1e-6)


def test_ucrl2_without_widths_plans_in_the_task_as_it_was_seen():
    learner = UCRL2(horizon=3, reward_scale=0.0, transition_scale=0.0)
    seen = spec(states=2)
    counts = no_counts(seen)
    for s, a, r, s2, ended in ((0, 0, 1.0, 1, False), (1, 0, 2.0, 0, False), (1, 0, 0.0, 0, True)):
        counts = count(counts, transition(s, a, r, s2, terminated=ended))
    plan = learner.plan(KEY, counts, start_clock(seen))
    # 0 -> 1 for 1; 1 -> 0 for 1, where half of the time it ends.
    np.testing.assert_allclose(plan.acting[:, :, 0], [[1, 1], [2, 1.5], [2.5, 2.0]], rtol=1e-6)
    np.testing.assert_allclose(plan.acting, plan.believed, rtol=1e-6)


def test_optimistic_posterior_sampling_takes_the_largest_of_its_draws():
    one, many = PSRL(horizon=2), PSRL(horizon=2, samples=3)
    start = start_clock(spec(states=2, actions=2))
    counts = no_counts(spec(states=2, actions=2))
    plan = eqx.filter_jit(lambda learner, key: learner.plan(key, counts, start))
    plans = [plan(one, key) for key in jax.random.split(KEY, 3)]
    found = plan(many, KEY)
    np.testing.assert_allclose(found.acting, np.max([each.acting for each in plans], 0), rtol=1e-5)
    np.testing.assert_allclose(found.believed, plans[0].believed, rtol=1e-6)


PLANNERS = {
    "UCBVI": UCBVI(horizon=6, bonus_scale=0.02),
    "UCRL2": UCRL2(horizon=6, reward_scale=0.05, transition_scale=0.01),
    "BEB": BEB(horizon=6, beta=0.5, transition_prior=0.25, reward_mean=0.5),
    "PSRL normal": PSRL(horizon=6, transition_prior=0.25, ending_prior=0.25, reward_std=0.3),
    "PSRL beta": PSRL(horizon=6, reward_model="beta", reward_mean=0.5, reward_count=2.0),
    "mean + std": MeanStdPlanner(gamma=0.9, transition_prior=0.25, reward_mean=0.5),
    "mean + std, steps left": MeanStdPlanner(
        gamma=1.0, horizon=6, transition_prior=0.25, reward_mean=0.5, reward_std=0.3
    ),
}


@pytest.mark.parametrize("name", PLANNERS)
def test_planners_earn_nearly_the_optimum(name):
    task = random_task()
    optimum = float(optimal_return(task))
    task = pad_task(task, 6, 4)  # padding included: one compilation for both questions
    lives = live(PLANNERS[name], task, jax.random.split(KEY, 64), episodes=200)
    late = lives.returns[:, 120:].mean(1)
    low = late.mean() - 1.96 * late.std() / np.sqrt(len(late))
    assert low >= 0.95 * optimum
    assert late.mean() <= optimum + 5 * late.std() / np.sqrt(len(late))


def test_of_a_shape_that_cannot_be_nothing_is_drawn_and_all_else_is():
    found = np.asarray(log_gamma(KEY, jnp.asarray([1.0, -1.8, 3.0])))
    assert np.isneginf(found[1])
    assert np.isfinite(found[[0, 2]]).all()
