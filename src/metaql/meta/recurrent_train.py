"""Meta-train RecurrentQ on a family of tasks of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax

from metaql.embedding.recurrent import sight_of
from metaql.meta.config import AnyFamily
from metaql.meta.host_train import HostSession
from metaql.meta.logged_train import LoggedSession
from metaql.meta.loop import OnProgress
from metaql.meta.recurrent_agent import RecurrentAgent
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.recurrent_session import RecurrentSession
from metaql.meta.recurrent_step import RecurrentState, begin_lives, recurrent_step
from metaql.policy.recurrentq import RecurrentQ
from metaql.tasks.families.base import TaskFamily
from metaql.tasks.logged import LoggedFamily
from metaql.tasks.simulators import SimulatorFamily


def train_recurrent(
    family: AnyFamily,
    config: RecurrentConfig,
    *,
    seed: int,
    run: Path | None,
    resume: bool,
    on_progress: OnProgress,
) -> RecurrentAgent:
    """Train on the training tasks of ``family``; arguments and errors as in `metaql.meta_train`."""
    if isinstance(family, SimulatorFamily):
        return HostSession(family, config, seed, run, on_progress).train(resume=resume)
    if isinstance(family, LoggedFamily):
        return LoggedSession(family, config, seed, run, on_progress).train(resume=resume)
    return FamilySession(family, config, seed, run, on_progress).train(resume=resume)


class FamilySession(RecurrentSession):
    """One meta-training on tasks of pure functions: everything inside one compiled program."""

    def __init__(
        self,
        family: TaskFamily,
        config: RecurrentConfig,
        seed: int,
        run: Path | None,
        on_progress: OnProgress,
    ) -> None:
        super().__init__(family, config, seed, run, on_progress, asked=config)
        self.family = family

    def start(self) -> RecurrentState:
        """Fresh weights, and the first lifetimes: one program, for a hundred small ones take longer."""

        def first(bank: Any) -> RecurrentState:
            learner = self.untrained(bank)
            begun = begin_lives(learner, bank, self.keys.start, self.config, first=True)
            return self.fresh(learner, *begun)

        return eqx.filter_jit(first)(self.bank(0))

    def longest(self, training: RecurrentState) -> int:
        """Of the tasks of its bank."""
        return self.longest_in(int(training.iteration) // self.config.refresh)

    def longest_in(self, epoch: int) -> int:
        """Of the tasks of the bank of one epoch."""
        return int(jax.vmap(lambda task: task.spec(1).horizon)(self.bank(epoch)).max())

    def untrained(self, bank: Any) -> RecurrentQ:
        """A learner for the observations and actions of the tasks of a bank."""
        example = jax.tree.map(lambda x: x[0], bank)
        sight = sight_of(example, self.family.columns)
        return self.learner(sight, example.spec(1).action_mask.shape)

    def bank(self, epoch: int) -> Any:
        """Tasks of one epoch: a function of seed and epoch alone."""
        key = jax.random.fold_in(self.keys.bank, epoch)
        return self.held(0, epoch, lambda: self.family.tasks(key, self.config.bank, "train"))

    def step(
        self, training: RecurrentState, iteration: int
    ) -> tuple[RecurrentState, dict[str, float]]:
        """One iteration, on the bank of its epoch."""
        bank = self.bank(iteration // self.config.refresh)
        after, figures = recurrent_step(bank, training, self.config)
        return after, self.row(iteration, figures)
