"""Meta-train RecurrentQ on a family of tasks of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp

from metaql import checkpoint
from metaql.config import to_dict
from metaql.embedding.recurrent import sight_of
from metaql.meta.agent import AGENT_FOLDER
from metaql.meta.loop import CHECKPOINT_FOLDER, OnProgress, Plan, iterate
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
    session = _Session(family, config, seed, run, on_progress)
    return session.train(session.restore() if resume else session.start())


class _Session:
    """One call of `train_recurrent`: what does not change while it runs."""

    def __init__(
        self,
        family: TaskFamily,
        config: RecurrentConfig,
        seed: int,
        run: Path | None,
        on_progress: OnProgress,
    ) -> None:
        self.family, self.config, self.seed, self.run = family, config, seed, run
        self.on_progress = on_progress
        self.keys = _Keys(*jax.random.split(jax.random.key(seed), len(_Keys._fields)))
        self.banks: tuple[int, Any] = (-1, None)
        self.store = checkpoint.CheckpointStore(run / CHECKPOINT_FOLDER) if run else None

    def start(self) -> RecurrentState:
        """Fresh weights, and the first lifetimes."""
        state = self._first()
        self._save(state, 0)
        return state

    def _first(self) -> RecurrentState:
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

    def restore(self) -> RecurrentState:
        """The newest intact checkpoint of the run."""
        if self.store is None:
            raise checkpoint.CheckpointError("`resume` needs a `run` folder.", "Got none.")
        return self.store.load_latest(self._first()).tree

    def bank(self, epoch: int) -> Any:
        """Tasks of one epoch: a function of seed and epoch alone."""
        if self.banks[0] != epoch:
            key = jax.random.fold_in(self.keys.bank, epoch)
            self.banks = (epoch, self.family.tasks(key, self.config.bank, "train"))
        return self.banks[1]

    def train(self, state: RecurrentState) -> RecurrentAgent:
        """Iterate to the end, with checkpoints; Ctrl-C writes one and goes through."""
        config, done = self.config, int(state.iteration)
        plan = Plan(done, config.iterations, config.checkpoint_every)
        after = iterate(
            state, plan, self._step, self._save, run=self.run, on_progress=self.on_progress
        )
        return self._agent(after)

    def _step(
        self, state: RecurrentState, iteration: int
    ) -> tuple[RecurrentState, dict[str, float]]:
        bank = self.bank(iteration // self.config.refresh)
        after, figures = recurrent_step(bank, state, self.config)
        steps = (iteration + 1) * self.config.steps_per_iteration
        return after, {"env_steps": steps} | {k: float(v) for k, v in figures._asdict().items()}

    def _save(self, state: RecurrentState, rows: int) -> None:
        """Checkpoint, and the agent as it stands."""
        if self.store is not None and self.run is not None:
            self.store.save(rows, state, {"seed": self.seed, "config": to_dict(self.config)})
            self._agent(state).save(self.run / AGENT_FOLDER)

    def _agent(self, state: RecurrentState) -> RecurrentAgent:
        steps = int(state.iteration) * self.config.steps_per_iteration
        learner = eqx.tree_at(lambda q: q.epsilon, state.learner, jnp.zeros(()))
        return RecurrentAgent(
            learner=learner,
            levels=self.family.levels,
            family_name=self.family.name,
            card={"seed": self.seed, "env_steps": steps, "train": to_dict(self.config)},
        )
