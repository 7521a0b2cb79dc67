"""Whole lifetimes kept to learn from again, whoever lived them: the off-policy path of RecurrentQ.

Values are computed anew by the learner as it is now, from an empty memory on; so are the returns, from the
values of what it would do (Peng's Q(lambda), Peng & Williams 1996: the trace goes on where another action was
taken, which is right to the degree that who acted is alike who learns).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metaql.embedding.embed import Clock
from metaql.embedding.recurrent import Note
from metaql.meta.foresight import foresight_loss
from metaql.meta.lifetime import advance, begin_all
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.recurrent_loss import discount_across, read_again, replayed_values, seen_again
from metaql.policy.recurrentq import Context, RecurrentQ
from metaql.qlearning.td import greedy_value, lambda_returns, value_of
from metaql.types import PRNGKey, Task, TaskSpec, Transition

_ROUNDING = 1e-6
"""A compiler may compute the same value twice and not find the same bits."""


class Lifetimes(NamedTuple):
    """Complete lifetimes of N tasks; rows after their end are not alive and mean nothing."""

    note: Note
    """Leaves ``[N, T, ...]``."""
    alive: Bool[Array, "N T"]
    episode: Int[Array, "N T"]
    """Episodes finished before the step."""
    spec: TaskSpec
    """Leaves ``[N, ...]``."""

    def returns(self, episodes: int) -> Float[np.ndarray, "N E"]:
        """Return of every episode."""
        return self._by_episode(np.asarray(self.note.transition.reward), episodes)

    def lengths(self, episodes: int) -> Int[np.ndarray, "N E"]:
        """Steps of every episode."""
        return self._by_episode(np.ones_like(self.episode), episodes)

    def _by_episode(self, of_step: np.ndarray, episodes: int) -> np.ndarray:
        lived, index = of_step * np.asarray(self.alive), np.asarray(self.episode)
        return np.stack([(lived * (index == e)).sum(1) for e in range(episodes)], 1)


def lifetimes_of(
    transition: Transition, alive: Bool[Array, "N T"], episode: Int[Array, "N T"], spec: TaskSpec
) -> Lifetimes:
    """With the time of every step, which follows from the ends of episodes."""

    def clock_of(episode: Int[Array, " T"]) -> Clock:
        at = jnp.arange(episode.shape[0])
        first = jnp.append(True, episode[1:] != episode[:-1])
        step = at - jax.lax.cummax(jnp.where(first, at, 0))
        return Clock(step.astype(jnp.float32), episode.astype(jnp.float32))

    return Lifetimes(Note(transition, jax.vmap(clock_of)(episode)), alive, episode, spec)


def filled(leaf: np.ndarray, length: int) -> np.ndarray:
    """With rows of zeros after those that were lived, up to a length."""
    return np.concatenate([leaf, np.zeros((length - len(leaf), *leaf.shape[1:]), leaf.dtype)])


def noted(lives: Sequence[Sequence[Transition]], spec: TaskSpec) -> Lifetimes:
    """Lifetimes of one task from their transitions on the host, one after the other.

    They are padded to a power of two: whoever computes with them is compiled for few lengths only.
    """
    length = 1 << (max(len(life) for life in lives) - 1).bit_length()

    def padded(life: Sequence[Transition]) -> tuple[Transition, np.ndarray, np.ndarray]:
        seen = jax.tree.map(lambda *rows: np.stack(rows), *life)
        ends = seen.terminated | seen.truncated
        episode = np.concatenate([[0], np.cumsum(ends)[:-1]]).astype(np.int32)
        rows = (seen, np.ones(len(life), bool), episode)
        return jax.tree.map(lambda leaf: filled(leaf, length), rows)

    stacked = jax.tree.map(lambda *rows: jnp.asarray(np.stack(rows)), *map(padded, lives))
    specs = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(lives)), spec)
    seen, alive, episode = stacked
    return lifetimes_of(seen, alive, episode, specs)


def lived_in(
    learner: RecurrentQ, tasks: Task, keys: PRNGKey, *, episodes: int, length: int
) -> Lifetimes:
    """Live one lifetime in each task, in the one loop there is (`metaql.meta.lifetime.advance`).

    Args:
        learner: who lives.
        tasks: ``[N, ...]``.
        keys: ``[N]``.
        episodes: of every lifetime.
        length: T, steps that are enough for the longest.
    """
    lives, record = advance(learner, tasks, begin_all(learner, tasks, keys, episodes), length)
    seen, alive, episode = jax.tree.map(
        lambda leaf: jnp.moveaxis(leaf, 0, 1), (record.transition, record.alive, record.episode)
    )
    return lifetimes_of(seen, alive, episode, lives.memory.spec)


def returns_of(
    life: Lifetimes,
    best: Float[Array, " T"],
    short: Float[Array, " T"],
    config: RecurrentConfig,
    greedy: Bool[Array, " T"] | None = None,
) -> Float[Array, " T"]:
    """Targets of one whole lifetime: lambda-returns, with the action gap widened.

    Args:
        life: as lived.
        best: value of the greedy action at every step.
        short: what the action taken was worth less (`shortfall`).
        config: discounts, trace and action gap.
        greedy: where the action taken was greedy: elsewhere the trace is cut (Watkins 1989); None: nowhere.
    """
    seen = life.note.transition
    crossed = seen.terminated | seen.truncated
    more = life.episode + crossed < life.spec.episodes
    onward = jnp.append(best[1:] * life.alive[1:], 0.0)
    discount = discount_across(crossed, more, config)
    trace = config.trace
    if greedy is not None:
        trace = trace * jnp.append(greedy[1:], False)
    return lambda_returns(seen.reward, discount, onward, trace) - config.action_gap * short


class Replayed(NamedTuple):
    """What a learner makes of one lifetime (``[T, ...]``)."""

    taken: Float[Array, " T"]
    """Q over the scale of returns, at the actions taken."""
    error: Float[Array, " T"]
    """Of ``taken``; 0 where the lifetime is over."""
    values: Float[Array, "T *K A"]
    """Q over the scale."""


def replayed(
    learner: RecurrentQ, life: Lifetimes, config: RecurrentConfig, cut: bool = False
) -> Replayed:
    """Errors of a learner on one lifetime; gradients go through its values, not through the returns.

    With ``cut``, traces end where another action was taken than the learner would.
    """
    start = _at_birth(learner, life)
    values = replayed_values(learner, start, life.note, seen_again(learner, start, life.note))
    possible = jnp.where(life.spec.action_mask, jax.lax.stop_gradient(values), -jnp.inf)
    best = jax.vmap(greedy_value)(possible)
    taken = jax.vmap(value_of)(values, life.note.transition.action)
    short = best - jax.lax.stop_gradient(taken)
    greedy = short <= _ROUNDING if cut else None
    worth = learner.scale * best, learner.scale * short
    target = returns_of(life, *worth, config, greedy) / learner.scale
    return Replayed(taken, (taken - target) * life.alive, values)


def replay_loss(
    learner: RecurrentQ,
    lives: Lifetimes,
    config: RecurrentConfig,
    conservative: float = 0.0,
    *,
    cut: bool = False,
    foretell: bool = False,
) -> Float[Array, ""]:
    """Half the mean squared error of Q over living steps.

    Args:
        learner: whose values.
        lives: ``[N, ...]``.
        config: discounts and trace.
        conservative: weight of ``log sum exp Q - Q(a)``, which holds down the values of actions that the data
            does not show (Kumar et al. 2020, conservative Q-learning, arXiv 2006.04779, eq. 4).
        cut: as in `replayed`.
        foretell: whether what the model of the task foretold badly is added, if there is one.
    """

    def one(life: Lifetimes) -> Float[Array, ""]:
        found = replayed(learner, life, config, cut)
        loss = 0.5 * found.error**2
        if conservative:
            possible = jnp.where(life.spec.action_mask, found.values, -jnp.inf)
            over = jax.nn.logsumexp(possible, axis=-1).reshape(loss.shape[0], -1).mean(-1)
            loss = loss + conservative * (over - found.taken) * life.alive
        if not foretell:
            return loss.sum()
        return loss.sum() + foresight_loss(learner, _at_birth(learner, life), life.note, life.alive)

    return jax.vmap(one)(lives).sum() / jnp.maximum(lives.alive.sum(), 1)


def embeddings(learner: RecurrentQ, life: Lifetimes) -> Float[Array, "T H"]:
    """The embedding after every step of one lifetime."""
    before, last = read_again(learner, _at_birth(learner, life), life.note)
    return jnp.concatenate([before[1:], last[None]])


def _at_birth(learner: RecurrentQ, life: Lifetimes) -> Context:
    """The memory that a lifetime begins with; it depends on no key."""
    return learner.init(jax.random.key(0), life.spec)
