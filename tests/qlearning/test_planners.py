"""UCBVI, PSRL and mean + c * std: posteriors and bonuses by hand, and near-optimal returns."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from metaql.meta.lifetime import live
from metaql.qlearning import PSRL, UCBVI, MeanStdPlanner
from metaql.qlearning.planning import plan_every_step
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


PLANNERS = {
    "UCBVI": UCBVI(horizon=6, bonus_scale=0.02),
    "PSRL normal": PSRL(horizon=6, transition_prior=0.25, ending_prior=0.25, reward_std=0.3),
    "PSRL beta": PSRL(horizon=6, reward_model="beta", reward_mean=0.5, reward_count=2.0),
    "mean + std": MeanStdPlanner(gamma=0.9, transition_prior=0.25, reward_mean=0.5),
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
