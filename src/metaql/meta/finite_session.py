"""Meta-train FiniteQ on one family: what its tasks have in common, from what Q-learning agents met in them.

Agents that learn by plain Q-learning live in training tasks, and the moments of their evidence are the
`Hyperprior` (`metaql.meta.hyperfit`). Optimism, and how far intervals reach, are those of ``finite``.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from metaql.config import to_dict
from metaql.embedding.hyperprior import broad
from metaql.meta.agent import load
from metaql.meta.experience import Judge, Witness, explorer
from metaql.meta.finite_agent import MANY_STATES, ONE_STATE, FiniteAgent
from metaql.meta.finite_config import FiniteConfig
from metaql.meta.finite_memory import FIRST_SLOTS
from metaql.meta.hyperfit import fit_hyperprior
from metaql.meta.lifetime import Life, advance_unrecorded, begin_all
from metaql.meta.loop import OnProgress, Session
from metaql.tasks.families.base import Family
from metaql.tasks.finite import NO_HORIZON, FiniteTask

_ENDLESS = jnp.iinfo(jnp.int32).max


class Gathering(NamedTuple):
    """Where the Q-learning agents stand: what a checkpoint holds."""

    lives: Life
    """``[N, ...]``, with notes of everything met."""
    iteration: Int[Array, ""]


class FiniteSession(Session[FiniteConfig, Gathering, FiniteAgent]):
    """One meta-training of FiniteQ."""

    def __init__(
        self,
        family: Family,
        config: FiniteConfig,
        seed: int,
        run: Path | None,
        on_progress: OnProgress,
    ) -> None:
        super().__init__(config, seed, run, on_progress)
        self.family = family
        key_tasks, self.key_lives = jax.random.split(jax.random.key(seed))
        self.tasks: FiniteTask = family.tasks(key_tasks, config.agents, "train")
        alone = self.tasks.transition.shape[-1] == 1
        self.kind = ONE_STATE if alone else MANY_STATES
        self.slots = None if alone else most_successors(self.tasks)
        self.witness = Witness(explorer(), Judge(broad(), self.slots))

    def start(self) -> Gathering:
        """Agents that know nothing."""
        keys = jax.random.split(self.key_lives, self.config.agents)
        lives = begin_all(self.witness, self.tasks, keys, _ENDLESS)
        return Gathering(lives, jnp.zeros((), jnp.int32))

    def blank(self) -> Gathering:
        """The same."""
        return self.start()

    def done(self, training: Gathering) -> int:
        """Iterations behind a state."""
        return int(training.iteration)

    def step(self, training: Gathering, iteration: int) -> tuple[Gathering, dict[str, float]]:
        """Every agent lives a segment."""
        lives = advance_unrecorded(
            self.witness, self.tasks, training.lives, self.config.segment_steps
        )
        notes = lives.memory.notes
        reward = float(notes.pair.reward.sum() / notes.steps.sum())
        row = {"env_steps": (iteration + 1) * self.config.steps_per_iteration, "reward": reward}
        return Gathering(lives, training.iteration + 1), row

    def agent(self, training: Gathering) -> FiniteAgent:
        """With the prior that what was met so far suggests."""
        notes, done = training.lives.memory.notes, self.done(training)
        prior = fit_hyperprior([notes], one_family=True) if done else broad()
        card = {
            "seed": self.seed,
            "env_steps": done * self.config.steps_per_iteration,
            "train": to_dict(self.config),
            "optimism and intervals": "those of `finite`",
            "range": {self.kind: sizes(self.tasks)},
        }
        if self.slots is not None:
            card["slots"] = self.slots
        usual = cast(FiniteAgent, load("finite"))
        return FiniteAgent(
            priors={self.kind: prior},
            curiosities={self.kind: usual.curiosities[self.kind]},
            calibration=usual.calibration,
            family_name=self.family.name,
            card=card,
        )


def most_successors(tasks: FiniteTask) -> int:
    """The largest number of states that one pair leads to, or more."""
    return max(int((tasks.transition > 0).sum(-1).max()), FIRST_SLOTS)


def sizes(tasks: FiniteTask) -> dict[str, list[int]]:
    """Smallest and largest numbers of states and actions, and horizons where there are some."""
    found = {
        "states": tasks.state_mask.sum(-1),
        "actions": tasks.action_mask.sum(-1),
        "horizon": tasks.horizon,
    }
    ends = {name: [int(each.min()), int(each.max())] for name, each in found.items()}
    return {name: span for name, span in ends.items() if span[1] < NO_HORIZON}
