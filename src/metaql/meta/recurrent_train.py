"""Meta-train RecurrentQ on a family of tasks of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp

from metaql.config import to_dict
from metaql.embedding.recurrent import sight_of
from metaql.meta.loop import OnProgress, Session
from metaql.meta.recurrent_agent import RecurrentAgent
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.recurrent_step import (
    RecurrentState,
    begin_lives,
    optimizer_for,
    recurrent_step,
    split_learner,
)
from metaql.policy.recurrentq import RecurrentQ
from metaql.tasks.families.base import TaskFamily
from metaql.types import PRNGKey


class _Keys(NamedTuple):
    weights: PRNGKey
    bank: PRNGKey
    start: PRNGKey
    train: PRNGKey


def train_recurrent(
    family: TaskFamily,
    config: RecurrentConfig,
    *,
    seed: int,
    run: Path | None,
    resume: bool,
    on_progress: OnProgress,
) -> RecurrentAgent:
    """Train on the training tasks of ``family``; arguments and errors as in `metaql.meta_train`."""
    return _Session(family, config, seed, run, on_progress).train(resume=resume)


class _Session(Session[RecurrentConfig, RecurrentState, RecurrentAgent]):
    """One meta-training of RecurrentQ."""

    def __init__(
        self,
        family: TaskFamily,
        config: RecurrentConfig,
        seed: int,
        run: Path | None,
        on_progress: OnProgress,
    ) -> None:
        super().__init__(config, seed, run, on_progress)
        self.family = family
        self.keys = _Keys(*jax.random.split(jax.random.key(seed), len(_Keys._fields)))

    def start(self) -> RecurrentState:
        """Fresh weights, and the first lifetimes."""
        config, bank = self.config, self.bank(0)
        example = jax.tree.map(lambda x: x[0], bank)
        learner = RecurrentQ(
            self.keys.weights,
            sight=sight_of(example),
            actions=example.spec(1).action_mask.shape[0],
            hidden=config.hidden,
            width=config.width,
        )
        tasks, lives = begin_lives(learner, bank, self.keys.start, config, first=True)
        weights = split_learner(learner)[0]
        return RecurrentState(
            learner=learner,
            optimizer=optimizer_for(config).init(cast(Any, weights)),
            tasks=tasks,
            lives=lives,
            key=self.keys.train,
            iteration=jnp.zeros((), jnp.int32),
        )

    def blank(self) -> RecurrentState:
        """As at the start."""
        return self.start()

    def bank(self, epoch: int) -> Any:
        """Tasks of one epoch: a function of seed and epoch alone."""
        key = jax.random.fold_in(self.keys.bank, epoch)
        return self.held(0, epoch, lambda: self.family.tasks(key, self.config.bank, "train"))

    def done(self, training: RecurrentState) -> int:
        """Iterations behind a state."""
        return int(training.iteration)

    def step(
        self, training: RecurrentState, iteration: int
    ) -> tuple[RecurrentState, dict[str, float]]:
        """One iteration, on the bank of its epoch."""
        bank = self.bank(iteration // self.config.refresh)
        after, figures = recurrent_step(bank, training, self.config)
        steps = (iteration + 1) * self.config.steps_per_iteration
        return after, {"env_steps": steps} | {k: float(v) for k, v in figures._asdict().items()}

    def agent(self, training: RecurrentState) -> RecurrentAgent:
        """The agent as it stands; it explores no more."""
        steps = int(training.iteration) * self.config.steps_per_iteration
        learner = eqx.tree_at(lambda q: q.epsilon, training.learner, jnp.zeros(()))
        return RecurrentAgent(
            learner=learner,
            levels=self.family.levels,
            family_name=self.family.name,
            card={"seed": self.seed, "env_steps": steps, "train": to_dict(self.config)},
        )
