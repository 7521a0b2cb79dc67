"""What every learner of the library owes the protocol: keys used once, padding left alone."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.meta.lifetime import advance, begin, begin_all, live_step
from metaql.qlearning import (
    BEB,
    PSRL,
    UCB1,
    UCBVI,
    UCRL2,
    DoubleQLearning,
    Gittins,
    MeanStdPlanner,
    NormalGittins,
    QLambda,
    QLearning,
    Thompson,
)
from metaql.qlearning.gittins import horizon_table, normal_bonus
from metaql.tasks.finite import finite_task, pad_task
from metaql.types import Learner

LEARNERS = {
    "Q": QLearning(),
    "double Q": DoubleQLearning(),
    "Q(lambda)": QLambda(),
    "UCBVI": UCBVI(horizon=3),
    "PSRL": PSRL(horizon=3),
    "PSRL by arrival": PSRL(horizon=3, termination_prior=jnp.ones((4, 2)), reward_model="beta"),
    "optimistic PSRL": PSRL(horizon=3, samples=2),
    "UCRL2": UCRL2(horizon=3),
    "BEB": BEB(horizon=3),
    "mean + std": MeanStdPlanner(first_sweeps=5),
    "mean + std, steps left": MeanStdPlanner(horizon=3),
    "UCB1": UCB1(prior_count=0.0),
    "Thompson": Thompson(),
    "Thompson, optimistic": Thompson(optimism="mode", samples=3),
    "Gittins": Gittins(table=horizon_table(4)),
    "Gittins, normal": NormalGittins(bonus=normal_bonus(4, 1.0, 1.0)),
}


@pytest.fixture(params=LEARNERS)
def learner(request):
    return LEARNERS[request.param]


def padded_task():
    rng = np.random.default_rng(0)
    small = finite_task(
        rng.dirichlet(np.ones(3), (3, 2)), rng.random((3, 2)), termination=0.3, horizon=2
    )
    return pad_task(small, 4, 3)


def test_it_is_a_learner(learner):
    assert isinstance(learner, Learner)


def live_a_little(learner, key):
    task = padded_task()
    life = begin(learner, task, key, 5)
    for _ in range(3):  # horizon 2: an episode end is among them
        life, _ = live_step(learner, task, life, life.memory)
    return life.step


def test_no_key_is_used_twice(learner):
    with jax.debug_key_reuse(True):
        eqx.filter_jit(live_a_little)(learner, jax.random.key(3))


class Careless(QLearning):
    """Spends its key twice."""

    def update(self, key, memory, transition):
        noise = jax.random.uniform(key) + jax.random.normal(key)
        return memory._replace(q=memory.q + noise)


def test_the_key_checker_would_notice():
    key = jax.random.key(0)
    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        eqx.filter_jit(live_a_little)(Careless(), key)


def test_padding_is_never_chosen_and_memory_stays_finite(learner):
    task = padded_task()
    lives = begin_all(learner, task, jax.random.split(jax.random.key(0), 16), 100)
    lives, record = advance(learner, task, lives, 60)
    assert int(record.decision.action.max()) == 1
    assert np.isneginf(record.decision.values[..., 2]).all()
    assert np.isneginf(record.decision.estimate[..., 2]).all()
    assert np.isfinite(record.decision.values[..., :2]).all()
    assert int(record.transition.next_state.max()) <= 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(lives.memory))
