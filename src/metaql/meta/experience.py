"""Step 2 of the mission at scale: plain Q-learning agents, one per task, and what they experienced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from metaql.embedding import judging
from metaql.embedding.evidence import Evidence, no_evidence
from metaql.embedding.hyperprior import Hyperprior
from metaql.embedding.statistics import Statistics, empty, observe
from metaql.meta.lifetime import advance_unrecorded, begin_all
from metaql.qlearning.schedules import Constant
from metaql.qlearning.tabular import QLearning
from metaql.tasks.families.base import Family
from metaql.types import Decision, Learner, Memory, PRNGKey, TaskSpec, Transition

ENDLESS = jnp.iinfo(jnp.int32).max
"""Episodes of a lifetime that nothing but its steps ends."""


class Statistician(eqx.Module):
    """Takes notes as `Statistics`."""

    def blank(self, spec: TaskSpec) -> Statistics:
        """Statistics of nothing."""
        return empty(spec.state_mask.shape[0], spec.action_mask.shape[0])

    def note(self, notes: Statistics, spec: TaskSpec, transition: Transition) -> Statistics:
        """Add one transition."""
        del spec
        return observe(notes, transition)


class Judge(eqx.Module):
    """Takes notes as `Evidence`, judged under a hyperprior."""

    prior: Hyperprior
    slots: int | None = eqx.field(static=True)
    """As in `no_evidence`."""

    def blank(self, spec: TaskSpec) -> Evidence:
        """Evidence of nothing."""
        return no_evidence(spec, self.slots)

    def note(self, notes: Evidence, spec: TaskSpec, transition: Transition) -> Evidence:
        """Add one transition."""
        return judging.observe(notes, self.prior, spec, transition)


class Witnessed(NamedTuple):
    """A learner's memory and the notes on everything it saw."""

    memory: Memory
    notes: Any
    spec: TaskSpec


class Witness(eqx.Module):
    """Any learner, with somebody taking notes: the same decisions, plus the notes."""

    learner: Learner
    scribe: Statistician | Judge

    def init(self, key: PRNGKey, spec: TaskSpec) -> Witnessed:
        """The learner's memory and blank notes."""
        return Witnessed(self.learner.init(key, spec), self.scribe.blank(spec), spec)

    def act(self, key: PRNGKey, memory: Witnessed, state: Int[Array, ""]) -> Decision:
        """The learner's decision."""
        return self.learner.act(key, memory.memory, state)

    def update(self, key: PRNGKey, memory: Witnessed, transition: Transition) -> Witnessed:
        """The learner learns; the notes grow."""
        return Witnessed(
            self.learner.update(key, memory.memory, transition),
            self.scribe.note(memory.notes, memory.spec, transition),
            memory.spec,
        )


def explorer(gamma: float = 0.99) -> QLearning:
    """The Q-learning agents of step 2: half random, so that the notes cover the family."""
    return QLearning(gamma=gamma, step_size=Constant(0.1), epsilon=Constant(0.5))


def q_learning_experience(
    family: Family,
    key: PRNGKey,
    *,
    agents: int,
    steps: int,
    scribe: Statistician | Judge | None = None,
    on_progress: Callable[[float], None] = lambda done: None,
    chunk: int = 256,
) -> Any:
    """Let ``agents`` Q-learning agents live ``steps`` steps, each in a training task of its own.

    Returns:
        What each experienced, ``[N, ...]``: `Statistics`, or what ``scribe`` writes.
    """
    key_tasks, key_lives = jax.random.split(key)
    tasks = family.tasks(key_tasks, agents, "train")
    learner = Witness(explorer(), scribe or Statistician())
    lives = begin_all(learner, tasks, jax.random.split(key_lives, agents), ENDLESS)
    for done in range(0, steps, chunk):
        lives = advance_unrecorded(learner, tasks, lives, min(chunk, steps - done))
        on_progress(min(1.0, (done + chunk) / steps))
    return lives.memory.notes
