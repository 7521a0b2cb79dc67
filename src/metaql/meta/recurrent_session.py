"""What meta-trainings of RecurrentQ share, wherever their tasks are stepped."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp

from metaql.config import to_dict
from metaql.embedding.recurrent import Sight
from metaql.errors import ConfigError
from metaql.meta.config import AnyFamily
from metaql.meta.loop import OnProgress, Session
from metaql.meta.recurrent_agent import HORIZON, RecurrentAgent
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.recurrent_step import Figures, RecurrentState, optimizer_for, split_learner
from metaql.policy.recurrentq import RecurrentQ
from metaql.types import PRNGKey


class Keys(NamedTuple):
    """One for every use."""

    weights: PRNGKey
    bank: PRNGKey
    start: PRNGKey
    train: PRNGKey


class RecurrentSession(Session[RecurrentConfig, RecurrentState, RecurrentAgent]):
    """One meta-training of RecurrentQ; subclasses say how lifetimes are lived."""

    def __init__(
        self,
        family: AnyFamily,
        config: RecurrentConfig,
        seed: int,
        run: Path | None,
        on_progress: OnProgress,
        *,
        asked: RecurrentConfig,
    ) -> None:
        """Start; ``asked`` are the settings as they were given."""
        super().__init__(family, config, seed, run, on_progress, asked=asked)
        self.family_name, self.levels = family.name, family.levels
        self.keys = Keys(*jax.random.split(jax.random.key(seed), len(Keys._fields)))

    @abc.abstractmethod
    def longest(self, training: RecurrentState) -> int:
        """Steps of the longest episode in training."""

    def learner(self, sight: Sight, actions: tuple[int, ...]) -> RecurrentQ:
        """Fresh weights.

        Raises:
            ConfigError: `features` where states are numbered: regressions are on vectors.
        """
        sizes, spread = self.config.sizes, self.config.epsilon_spread
        if sizes.features and sight.numbers:
            raise ConfigError(
                "`features` are for observations that are vectors.",
                f"States of {self.family_name!r} are numbered.",
                "Leave it 0.",
            )
        return RecurrentQ(
            self.keys.weights, sight=sight, actions=actions, sizes=sizes, epsilon_spread=spread
        )

    def fresh(self, learner: RecurrentQ, tasks: Any, lives: Any) -> RecurrentState:
        """The state before the first iteration."""
        weights = split_learner(learner)[0]
        return RecurrentState(
            learner=learner,
            optimizer=optimizer_for(self.config).init(cast(Any, weights)),
            tasks=tasks,
            lives=lives,
            key=self.keys.train,
            iteration=jnp.zeros((), jnp.int32),
        )

    def blank(self) -> RecurrentState:
        """As at the start."""
        return self.start()

    def done(self, training: RecurrentState) -> int:
        """Iterations behind a state."""
        return int(training.iteration)

    def row(self, iteration: int, figures: Figures) -> dict[str, float]:
        """What is written of an iteration."""
        steps = (iteration + 1) * self.config.steps_per_iteration
        return {"env_steps": steps} | {k: float(v) for k, v in figures._asdict().items()}

    def agent(self, training: RecurrentState) -> RecurrentAgent:
        """The agent as it stands; it explores no more."""
        steps = int(training.iteration) * self.config.steps_per_iteration
        learner = eqx.tree_at(lambda q: q.epsilon, training.learner, jnp.zeros(()))
        return RecurrentAgent(
            learner=learner,
            levels=self.levels,
            family_name=self.family_name,
            card={
                "seed": self.seed,
                "env_steps": steps,
                "train": to_dict(self.asked),
                HORIZON: self.longest(training),
            },
        )
