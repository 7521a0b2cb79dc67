"""Reptile on the Q-network without an embedding: an initialisation from which gradient steps go far.

A baseline. Weights are moved towards those that gradient steps on each task's own lifetimes lead to (Nichol,
Achiam & Schulman 2018, "On first-order meta-learning algorithms", arXiv 1803.02999, algorithm 2, batched).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp

from metaql.errors import ConfigError
from metaql.meta.gradient import GradientSteps, adapted_weights
from metaql.meta.loop import OnProgress
from metaql.meta.recurrent_agent import RecurrentAgent
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.recurrent_loss import Segment
from metaql.meta.recurrent_step import (
    Figures,
    RecurrentState,
    adjusted,
    drawn_from,
    exploring,
    split_learner,
)
from metaql.meta.recurrent_train import FamilySession
from metaql.meta.replay import Lifetimes, lived_in, replay_loss
from metaql.policy.recurrentq import RecurrentQ
from metaql.tasks.families.base import TaskFamily
from metaql.types import PRNGKey


def train_reptile(
    family: TaskFamily,
    config: RecurrentConfig,
    how: GradientSteps,
    *,
    seed: int,
    run: Path | None = None,
    resume: bool = False,
    on_progress: OnProgress = lambda stage, done, metrics: None,
) -> RecurrentAgent:
    """Weights for `RecurrentAgent.adapt_by_gradient` with the same steps and no replay.

    Args:
        family: whose training tasks are lived in.
        config: of `metaql.meta_train`, with ``context=False``; ``segment_steps`` must be enough for a whole
            lifetime, of ``episodes[1]`` episodes.
        how: gradient steps in every task.
        seed: of everything.
        run: as in `metaql.meta_train`.
        resume: as there.
        on_progress: as there.

    Raises:
        ConfigError: settings that do not fit.
    """
    if config.context or how.batch:
        raise ConfigError(
            "Reptile has no embedding and no replay: `context=False`, `batch=0`.",
            f"Got context={config.context}, batch={how.batch}.",
        )
    session = _Session(family, config, seed, run, on_progress)
    session.how = how
    session.check_length()
    return session.train(resume=resume)


class _Session(FamilySession):
    """One meta-training of an initialisation."""

    how: GradientSteps

    def check_length(self) -> None:
        """Raise `ConfigError` unless a segment is long enough for a whole lifetime."""
        longest = self.longest_in(0) * self.config.episodes[1]
        if self.config.segment_steps < longest:
            raise ConfigError(
                "Reptile learns from whole lifetimes: `segment_steps` must be enough for the longest.",
                f"Got {self.config.segment_steps}; a lifetime may last {longest} steps.",
            )

    def start(self) -> RecurrentState:
        """Fresh weights; every iteration lives lifetimes of its own."""
        return self.fresh(self.untrained(self.bank(0)), tasks=None, lives=None)

    def step(
        self, training: RecurrentState, iteration: int
    ) -> tuple[RecurrentState, dict[str, float]]:
        """Live in some tasks, adapt to each of them, move towards what came of it."""
        bank = self.bank(iteration // self.config.refresh)
        after, figures = _moved(bank, training, self.config, self.how)
        return after, self.row(iteration, figures)


@eqx.filter_jit
def _moved(
    bank: Any, state: RecurrentState, config: RecurrentConfig, how: GradientSteps
) -> tuple[RecurrentState, Figures]:
    key, key_task, key_live, key_adapt = jax.random.split(state.key, 4)
    learner = exploring(state.learner, state.iteration, config)
    count = config.lifetimes
    tasks = drawn_from(bank, key_task, count)
    lived = lived_in(
        learner,
        tasks,
        jax.random.split(key_live, count),
        episodes=config.episodes[1],
        length=config.segment_steps,
    )
    target = jnp.zeros_like(lived.note.transition.reward)
    learner = adjusted(learner, Segment(lived.note, lived.alive, target), config)

    def adapted(life: Lifetimes, key: PRNGKey) -> RecurrentQ:
        own = jax.tree.map(lambda leaf: leaf[None], life)
        return split_learner(adapted_weights(learner, own, None, key, config, how)[0])[0]

    ends = jax.vmap(adapted)(lived, jax.random.split(key_adapt, count))
    weights, rest = split_learner(learner)
    # Steps of the outer loop shrink to none, as in the paper.
    rate = 1.0 - state.iteration / config.iterations
    weights = jax.tree.map(lambda a, b: a + rate * (b.mean(0) - a), weights, ends)
    reward = (lived.note.transition.reward * lived.alive).sum() / lived.alive.sum()
    loss = replay_loss(learner, lived, config)
    figures = Figures(reward, loss, jnp.zeros(()), learner.epsilon)
    moved = eqx.combine(cast(RecurrentQ, weights), rest)
    return RecurrentState(moved, state.optimizer, None, None, key, state.iteration + 1), figures
