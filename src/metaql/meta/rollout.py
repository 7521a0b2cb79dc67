"""Lived training data: segments of lifetimes, with the beliefs at the start of every segment."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metaql.meta.lifetime import Life, Record, live_step
from metaql.policy.beliefq import Belief, BeliefQ
from metaql.qlearning.td import lambda_returns
from metaql.tasks.exact import Answers, greedy_values
from metaql.tasks.finite import FiniteTask
from metaql.types import Transition


class Step(NamedTuple):
    """What the outer Q-learning needs of one lived step."""

    record: Record
    advantage: Float[Array, ""]
    """Minus the regret of the step in the sampled task, see `advantage_of`."""
    resumed: Float[Array, ""]
    """Outer Q of the mode in force where the lifetime goes on, after learning from the step."""
    more: Bool[Array, ""]
    """Another episode follows in this lifetime."""


class Segments(NamedTuple):
    """``M`` segments of ``L`` steps of N lifetimes, in order."""

    beliefs: Belief
    """At the start of each segment, ``[M, N, ...]``."""
    states: Int[Array, "M N"]
    targets: Float[Array, "M N"]
    """Lambda-return of the mode in force: minus the regret of the rest of the lifetime."""
    alive: Bool[Array, "M N"]


@eqx.filter_jit
def live_segments(
    learner: BeliefQ,
    tasks: FiniteTask,
    answers: Answers,
    lives: Life,
    *,
    segments: int,
    steps: int,
    trace: float,
    episode_discount: float,
) -> tuple[Life, Segments, Float[Array, ""]]:
    """Live ``segments * steps`` steps of N lifetimes, ``[N, ...]``, and compute outer targets.

    ``answers`` are the exact ones to ``tasks``, ``[N, ...]``.

    Returns:
        The lives afterwards, the segments, and the mean reward per living step.
    """

    def one(task: FiniteTask, answer: Answers, life: Life) -> tuple[Life, Step]:
        after, record = live_step(learner, task, life, life.memory)
        advantage = advantage_of(answer, task.action_mask, record.transition)
        where = jax.nn.one_hot(after.state, after.memory.starts.shape[0])
        resumed = learner.mode_values(after.memory, where)[after.memory.mode]
        return after, Step(record, advantage, resumed, after.episode < after.episodes)

    def body(lives: Life, _: None) -> tuple[Life, Step]:
        return jax.vmap(one)(tasks, answers, lives)

    def segment(lives: Life, _: None) -> tuple[Life, tuple[Belief, Step]]:
        after, lived = jax.lax.scan(body, lives, length=steps)
        return after, (lives.memory, lived)

    after, (beliefs, lived) = jax.lax.scan(segment, lives, length=segments)
    lived = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), lived)
    targets = jax.vmap(lifetime_returns, in_axes=(1, None, None), out_axes=1)(
        lived, trace, episode_discount
    )
    first = slice(None, None, steps)
    transition, alive = lived.record.transition, lived.record.alive
    data = Segments(beliefs, transition.state[first], targets[first], alive[first])
    reward = (transition.reward * alive).sum() / jnp.maximum(alive.sum(), 1)
    return after, data, reward


def advantage_of(
    answer: Answers, action_mask: Bool[Array, " A"], transition: Transition
) -> Float[Array, ""]:
    """``Q*(s, a) - V*(s)``, and at a truncation also ``- V*(s')``: what the clock took away.

    Without the second term standing still until the end would look almost free of regret.
    """
    values = greedy_values(answer.q, action_mask)
    taken = answer.q[transition.state, transition.action] - values[transition.state]
    return taken - transition.truncated * values[transition.next_state]


def lifetime_returns(lived: Step, trace: float, episode_discount: float) -> Float[Array, " T"]:
    """Lambda-returns of the outer problem, whose state is the belief, across episode ends.

    The reward of the outer problem is the exact advantage of the action in the sampled task. By the
    performance difference lemma (Kakade & Langford 2002, lemma 6.1) its expected discounted sum is the
    return minus the optimum: the regret, without the noise of the environment and without the large
    level that all modes share. It is not discounted within an episode (else dying early would look like
    getting to the next one sooner); every episode end, terminated or truncated, costs one
    ``episode_discount``, and after the last one nothing follows. Bootstraps: the outer Q of the mode
    in force, which at an episode's start is the greedy one.
    """
    transition = lived.record.transition
    ended = transition.terminated | transition.truncated
    onward = jnp.where(ended, episode_discount * lived.more, 1.0)
    return lambda_returns(lived.advantage, onward, lived.resumed, trace)
