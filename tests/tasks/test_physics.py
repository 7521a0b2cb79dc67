"""Classic control with hidden physics, against Gymnasium's own environments."""

from __future__ import annotations

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.errors import ConfigError
from metaql.tasks.families import Acrobot, CartPole, Pendulum, make
from metaql.tasks.families.acrobot import LOWER, AcrobotTask
from metaql.tasks.families.cart_pole import FORCE, HALF_LENGTH, CartPoleTask
from metaql.tasks.families.pendulum import GRAVITY, SHARES, PendulumTask

FAMILIES = {
    "cart_pole": (CartPole, FORCE, 2),
    "pendulum": (Pendulum, GRAVITY, 5),
    "acrobot": (Acrobot, LOWER, 3),
}
every_family = pytest.mark.parametrize("name", FAMILIES)
STEPS = 200


def follow(task, env, first, actions, as_action):
    """Largest difference of observations, rewards and ends between a task and an environment."""
    step = jax.jit(lambda state, action: task.step(jax.random.key(0), state, action))
    worst, state = 0.0, jnp.asarray(first, jnp.float32)
    for action in actions:
        outcome = step(state, jnp.asarray(action))
        seen, reward, ended, _, _ = env.step(as_action(action))
        state = outcome.next_state
        gap = np.abs(np.asarray(task.observe(state)) - seen).max()
        worst = max(worst, gap, abs(float(outcome.reward) - float(reward)))
        assert bool(outcome.terminated) == ended
        if ended:
            break
    return worst


@pytest.mark.parametrize("force", [10.0, -7.0])
def test_cart_pole_is_gymnasiums(force):
    env = gymnasium.make("CartPole-v1").unwrapped
    env.force_mag, env.length, env.masspole = force, 0.8, 0.3
    env.total_mass, env.polemass_length = env.masscart + 0.3, 0.3 * 0.8
    env.reset(seed=1)
    task = CartPoleTask(*(jnp.asarray(x) for x in (force, 0.8, 0.3)), jnp.asarray(200))
    rng = np.random.default_rng(0)
    steps = 0
    for episode in range(5):
        first, _ = env.reset(seed=episode)
        actions = rng.integers(0, 2, STEPS)
        assert follow(task, env, first, actions, int) < 1e-4
        steps += 1
    assert steps == 5


def test_pendulum_is_gymnasiums():
    env = gymnasium.make("Pendulum-v1", g=8.0).unwrapped
    env.m = 0.7
    task = PendulumTask(*(jnp.asarray(x) for x in (8.0, 0.7, -1.0)), jnp.asarray(200))
    rng = np.random.default_rng(0)
    for episode in range(5):
        env.reset(seed=episode)
        actions = rng.integers(0, len(SHARES), 40)

        def turned(action):
            return np.array([-2.0 * SHARES[action]], np.float32)

        assert follow(task, env, env.state, actions, turned) < 2e-3


def test_acrobot_is_gymnasiums():
    env = gymnasium.make("Acrobot-v1").unwrapped
    env.LINK_MASS_1, env.LINK_MASS_2 = 0.8, 1.2
    task = AcrobotTask(*(jnp.asarray(x) for x in (1.2, 0.8, -1.0)), jnp.asarray(200))
    rng = np.random.default_rng(0)
    for episode in range(3):
        env.reset(seed=episode)
        # Chaotic: rounding to float32 grows fast, so the comparison is short.
        actions = rng.integers(0, 3, 25)
        assert follow(task, env, env.state, actions, lambda action: 2 - int(action)) < 1e-2


def test_an_acrobot_that_is_up_ends_the_episode_for_nothing():
    task = Acrobot().sample(jax.random.key(0), "train")
    up = jnp.asarray([jnp.pi, 0.0, 0.0, 0.0])
    outcome = task.step(jax.random.key(0), up, jnp.asarray(1))
    assert bool(outcome.terminated)
    assert float(outcome.reward) == 0.0


@every_family
def test_splits_own_bands_of_one_constant(name):
    family, values = FAMILIES[name][0](), FAMILIES[name][1]
    bands = {}
    for split in ("train", "validation", "test"):
        tasks = family.tasks(jax.random.key(0), 500, split)
        constant = np.abs(np.asarray(tasks[0]))
        assert constant.min() >= values.low
        assert constant.max() <= values.high
        share = (constant - values.low) / (values.high - values.low)
        bands[split] = set(np.floor(8 * share).astype(int))
    assert bands["train"] == {0, 1, 3, 4, 6, 7}
    assert bands["validation"] == {2}
    assert bands["test"] == {5}


def test_beyond_lies_outside_of_every_range():
    tasks = CartPole(beyond=True).tasks(jax.random.key(0), 500, "test")
    for constant, values in ((tasks.force, FORCE), (tasks.half_length, HALF_LENGTH)):
        size = np.abs(np.asarray(constant))
        assert ((size <= values.low) | (size >= values.high)).all()
        assert size.min() >= values.lowest
        assert size.max() <= values.highest
        assert (size <= values.low).any()
        assert (size >= values.high).any()


@every_family
def test_half_of_the_tasks_work_the_other_way_round(name):
    tasks = FAMILIES[name][0]().tasks(jax.random.key(1), 500, "train")
    sign = np.sign(np.asarray(tasks.force if name == "cart_pole" else tasks.direction))
    assert abs(sign.mean()) < 0.2


@every_family
def test_a_task_says_what_a_learner_may_know(name):
    family = FAMILIES[name][0].toy()
    task = family.sample(jax.random.key(0), "train")
    spec = task.spec(3)
    assert spec.state_mask.shape == (0,)
    assert int(spec.horizon) == family.horizon == 20
    assert int(spec.episodes) == 3
    assert spec.action_mask.shape == (FAMILIES[name][2],)


@every_family
def test_a_horizon_of_nothing_is_refused(name):
    with pytest.raises(ConfigError, match=r"horizon >= 1\. Got 0"):
        make(name, horizon=0)


def test_a_pendulum_costs_what_its_angle_does():
    task = Pendulum().sample(jax.random.key(0), "train")
    down = task.step(jax.random.key(0), jnp.asarray([jnp.pi, 0.0]), jnp.asarray(2))
    full_turn = task.step(jax.random.key(0), jnp.asarray([2 * jnp.pi, 0.0]), jnp.asarray(2))
    assert float(down.reward) == pytest.approx(-(np.pi**2), rel=1e-5)
    assert float(full_turn.reward) == pytest.approx(0.0, abs=1e-8)
