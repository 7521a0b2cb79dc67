"""Training of the learner for finite tasks: it climbs, resumes to the same result, refuses nonsense."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metaql.embedding.hyperprior import broad
from metaql.errors import ConfigError
from metaql.meta.evolve import climb, start_climb
from metaql.meta.finite_train import (
    Course,
    FiniteTrainConfig,
    _Bank,
    course_score,
    train_finite,
)
from metaql.policy.curiosity import Curiosity
from metaql.tasks.families import Bandit

COURSE = Course(Bandit(3, horizon=20), 1, 20, 16)


def small(iterations):
    return FiniteTrainConfig(iterations=iterations, agents=16, agent_steps=40, bank=32, pairs=1)


def test_it_climbs_to_the_top_of_a_hill():
    top = np.asarray([1.0, -2.0, 0.5])

    def score(weights, iteration):
        return -float(np.square(weights - top).sum())

    state = start_climb(np.zeros(3))
    for _ in range(150):
        state, _ = climb(state, score, pairs=4, spread=0.1, rate=0.05, seed=0)
    np.testing.assert_allclose(state.average, top, atol=0.1)


def test_mirrored_perturbations_share_tasks_and_iterations_do_not():
    asked = []

    def score(weights, iteration):
        asked.append((iteration, tuple(weights)))
        return 0.0

    state = start_climb(np.zeros(2))
    for _ in range(2):
        state, _ = climb(state, score, pairs=2, spread=1.0, rate=0.1, seed=0)
    assert [number for number, _ in asked] == [0] * 4 + [1] * 4
    np.testing.assert_allclose(np.add(asked[0][1], asked[1][1]), 0.0, atol=1e-12)
    assert asked[0][1] != asked[2][1]


def test_interrupted_training_ends_at_the_same_weights(tmp_path):
    whole = train_finite([COURSE], small(2), seed=3)
    train_finite([COURSE], small(1), seed=3, folder=tmp_path / "state")
    stages = []

    def progress(stage, done, score):
        stages.append(stage)

    resumed = train_finite(
        [COURSE], small(2), seed=3, folder=tmp_path / "state", on_progress=progress
    )
    assert stages == ["exploring"]  # the prior was not fitted again, nor the first iteration lived
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    assert jnp.abs(whole[1].by_fact).max() > 0


def test_what_counts_is_what_was_lived_or_what_was_learned():
    """One pull of two hundred promised: little was gained, but coins of 0 and 1 are already known."""
    sure = Bandit(2, horizon=1)
    tasks = sure.tasks(jax.random.key(0), 64, "train")
    worth = jnp.asarray([1.0, 0.0])[None, None, :, None]
    tasks = tasks._replace(reward=jnp.broadcast_to(worth, tasks.reward.shape))
    bank = _Bank(tasks, np.full(64, 0.5), np.ones(64), np.arange(64))
    scores = [
        course_score(
            Course(sure, 200, 20, 64, adapted=weight),
            bank,
            broad(),
            Curiosity(),
            jax.random.key(1),
        )
        for weight in (0.0, 0.5, 1.0)
    ]
    assert scores[0] < 0.1  # 180 episodes not lived count nothing
    assert scores[2] > 0.99
    np.testing.assert_allclose(scores[1], (scores[0] + scores[2]) / 2, rtol=1e-5)


def test_nonsense_is_refused():
    with pytest.raises(ConfigError):
        train_finite([])
    with pytest.raises(ConfigError):
        FiniteTrainConfig(pairs=0)


def test_a_course_in_which_nothing_matters_is_refused():
    class Alike(Bandit):
        def sample(self, key, split):
            task = super().sample(key, split)
            return task._replace(reward=jnp.full_like(task.reward, 0.5))

    with pytest.raises(ConfigError, match="Leave the course out"):
        train_finite([Course(Alike(3, horizon=20), 1, 20, 16)], small(1), seed=0)
