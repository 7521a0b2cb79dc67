"""Lifetimes of a budget of episodes or of steps, and what they were worth."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from metaql.meta.agent import AnyAgent
from metaql.meta.finite_agent import FiniteAgent
from metaql.meta.lifetime import Life, Record, advance, begin_all, live, live_step
from metaql.policy.finiteq import FiniteQ
from metaql.tasks.finite import FiniteTask
from metaql.types import Learner, PRNGKey


class Budget(NamedTuple):
    """How long a lifetime is."""

    amount: int
    unit: str = "episodes"
    """``episodes`` or ``steps``."""

    def __str__(self) -> str:
        return f"{self.amount:,} {self.unit}"


class Lived(NamedTuple):
    """What N lifetimes were worth."""

    returns: Float[np.ndarray, "N E"]
    """Return of every finished episode; NaN where a lifetime had fewer."""
    ends: Float[np.ndarray, "N E"]
    """Steps lived when the episode ended; NaN as above."""
    total: Float[np.ndarray, " N"]
    """All reward of the budget, that of the episode cut off by its end included."""


def learner_for(agent: AnyAgent, tasks: FiniteTask) -> Learner:
    """The agent's learner for these tasks."""
    if isinstance(agent, FiniteAgent):
        return with_room(agent, tasks)
    num_states, num_actions = tasks.transition.shape[-3:-1]
    return agent.learner_for(num_states, num_actions)


def with_room(agent: FiniteAgent, tasks: FiniteTask) -> FiniteQ:
    """Its learner, with room for as many successors as any pair of these tasks has."""
    num_states, num_actions = tasks.transition.shape[-3:-1]
    most = int((np.asarray(tasks.transition) > 0).sum(-1).max())
    return agent.learner_for(num_states, num_actions, slots=most)


def live_through(learner: Learner, tasks: FiniteTask, keys: PRNGKey, budget: Budget) -> Lived:
    """Live N lifetimes of a budget, of which learners are told, in `metaql.meta.lifetime`'s loop.

    Args:
        tasks: one task for all lifetimes, or one each, ``[N, ...]``.
        keys: ``[N]``.
    """
    if budget.unit == "episodes":
        lives = live(learner, tasks, keys, episodes=budget.amount)
        returns = lives.returns.astype(np.float64)
        return Lived(returns, lives.lengths.cumsum(1).astype(np.float64), returns.sum(1))
    begun = begin_all(learner, tasks, keys, budget.amount, steps=budget.amount)
    in_turn = getattr(learner, "plans_between_episodes", False)
    run = _in_turn if in_turn else _abreast
    reward, ended = (np.asarray(each) for each in run(learner, tasks, begun, budget.amount))
    return by_episode(reward.astype(np.float64), ended)


def by_episode(reward: Float[np.ndarray, "N T"], ended: Bool[np.ndarray, "N T"]) -> Lived:
    """Step by step rewards as returns of finished episodes."""
    most = int(ended.sum(1).max(initial=0))
    returns, ends = np.full((2, len(reward), most), np.nan)
    for row, last in enumerate(map(np.flatnonzero, ended)):
        sums = np.concatenate([[0.0], reward[row].cumsum()[last]])
        returns[row, : len(last)], ends[row, : len(last)] = np.diff(sums), last + 1
    return Lived(returns, ends, reward.sum(1))


def _summary(record: Record) -> tuple[Float[Array, "..."], Bool[Array, "..."]]:
    step = record.transition
    return step.reward, step.terminated | step.truncated


@eqx.filter_jit
def _abreast(
    learner: Learner, tasks: FiniteTask, lives: Life, steps: int
) -> tuple[Float[Array, "N T"], Bool[Array, "N T"]]:
    reward, ended = _summary(advance(learner, tasks, lives, steps)[1])
    return reward.T, ended.T


@eqx.filter_jit
def _in_turn(
    learner: Learner, tasks: FiniteTask, lives: Life, steps: int
) -> tuple[Float[Array, "N T"], Bool[Array, "N T"]]:
    """One lifetime after the other: for learners that replan only at episode ends."""

    def whole(task: FiniteTask, life: Life) -> tuple[Float[Array, " T"], Bool[Array, " T"]]:
        def body(life: Life, _: None) -> tuple[Life, tuple[Array, Array]]:
            life, record = live_step(learner, task, life, life.memory)
            return life, _summary(record)

        return jax.lax.scan(body, life, length=steps)[1]

    if tasks.initial.ndim == 1:
        return jax.lax.map(lambda life: whole(tasks, life), lives)
    return jax.lax.map(lambda both: whole(*both), (tasks, lives))
