"""Whole lifetimes in simulators on the host, side by side, while the learner decides for the others.

The lifetimes are divided into two parts: while the simulators of one answer, the compiled `turn` of the other
runs. A lifetime that is over is not stepped any more.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from metaql.errors import UsageError
from metaql.meta.lifetime import first_turn, turn
from metaql.meta.replay import Lifetimes, filled, lifetimes_of
from metaql.policy.recurrentq import Context, RecurrentQ
from metaql.qlearning.td import greedy_value
from metaql.tasks.crowd import Answers, Crowd
from metaql.types import PRNGKey, TaskSpec, Transition


class HostLives(NamedTuple):
    """Complete lifetimes, and what their learner made of them."""

    lifetimes: Lifetimes
    best: Float[Array, "N T"]
    """Value of the greedy action when acting."""
    hidden: Float[Array, "N B H"]
    """The embedding before every ``every``-th step."""


def live_in_simulators(
    learner: RecurrentQ,
    crowds: tuple[Crowd, ...],
    episodes: tuple[Int[np.ndarray, " n"], ...],
    seed: int,
    *,
    length: int,
    every: int,
) -> HostLives:
    """Live whole lifetimes.

    Args:
        learner: who lives.
        crowds: parts of the tasks.
        episodes: of every lifetime, for each part.
        seed: of the learner and of every environment's first reset.
        length: T, a multiple of ``every``, enough for the longest lifetime.
        every: steps between two embeddings that are kept.

    Raises:
        EnvironmentFaultError: an environment broke its contract.
        UsageError: a lifetime was not over after ``length`` steps.
    """
    sizes = [len(crowd.hosts) for crowd in crowds]
    ids = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    seeds = np.random.default_rng(seed).integers(2**31, size=sum(sizes))
    parts = [
        _Part(learner, crowd, budget, seeds[own], jax.random.key(seed), own)
        for crowd, budget, own in zip(crowds, episodes, ids, strict=True)
    ]
    for step in range(length):
        for part in parts:
            part.live(step, keep=step % every == 0)
        if not any(part.alive.any() for part in parts):
            break
    else:
        if any(part.alive.any() for part in parts):
            raise UsageError(
                "`length` must be enough for the longest lifetime.",
                f"After {length} steps some were not over: time limits of tasks may differ.",
                "Give the family one `horizon`.",
            )
    found = [part.lives(length, length // every) for part in parts]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *found)


class _Part:
    """Lifetimes that are stepped together."""

    def __init__(
        self,
        learner: RecurrentQ,
        crowd: Crowd,
        episodes: Int[np.ndarray, " n"],
        seeds: Int[np.ndarray, " n"],
        key: PRNGKey,
        ids: Int[np.ndarray, " n"],
    ) -> None:
        self.learner, self.crowd, self.episodes = learner, crowd, episodes
        self.keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(ids))
        self.alive = np.ones(len(ids), bool)
        self.episode = np.zeros(len(ids), np.int32)
        self.spec = _specs(crowd, episodes)
        self.state = crowd.reset(self.alive, [int(seed) for seed in seeds])
        self.rows: list[tuple[Any, ...]] = []
        self.kept: list[Array] = []
        self.memory, self.action, self.best = _first(
            learner, self.keys, self.spec, jnp.asarray(self.state)
        )

    def live(self, step: int, *, keep: bool) -> None:
        """One step of all that are alive; the next decision is under way when this returns."""
        if keep:
            self.kept.append(self.memory.hidden)
        if not self.alive.any():
            return
        action = np.asarray(self.action)
        answers = self.crowd.step(action, self.alive)
        last = _transitions(self.state, action, answers)
        self.rows.append((last, self.best, self.alive.copy(), self.episode.copy()))
        ended = answers.terminated | answers.truncated
        self.episode = self.episode + ended.astype(np.int32)
        self.alive = self.alive & (self.episode < self.episodes)
        again = ended & self.alive
        fresh = self.crowd.reset(again) if again.any() else answers.next_state
        self.state = np.where(again[:, None], fresh, answers.next_state)
        self.memory, self.action, self.best = _next(
            self.learner, self.keys, np.int32(step + 1), self.memory, last, self.state
        )

    def lives(self, length: int, kept: int) -> HostLives:
        """All that was lived, filled up to ``length`` steps."""
        stacked = jax.tree.map(lambda *rows: np.stack([np.asarray(x) for x in rows], 1), *self.rows)
        last, best, alive, episode = jax.tree.map(
            lambda rows: jnp.asarray(filled(rows, length, axis=1)), stacked
        )
        hidden = filled(np.stack([np.asarray(x) for x in self.kept], 1), kept, axis=1)
        lifetimes = lifetimes_of(last, alive, episode, self.spec)
        return HostLives(lifetimes, best, jnp.asarray(hidden))


def _specs(crowd: Crowd, episodes: Int[np.ndarray, " n"]) -> TaskSpec:
    each = [host.spec(int(number)) for host, number in zip(crowd.hosts, episodes, strict=True)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def _transitions(state: np.ndarray, action: np.ndarray, answers: Answers) -> Transition:
    arrays: tuple[Any, ...] = (state, action, answers.reward, *answers[:1], *answers[2:])
    return Transition(*arrays)


Decided = tuple[Context, Int[Array, "n *K"], Float[Array, " n"]]


@eqx.filter_jit
def _first(learner: RecurrentQ, keys: PRNGKey, spec: TaskSpec, state: Any) -> Decided:
    def one(key: PRNGKey, spec: TaskSpec, state: Any) -> Any:
        memory, decision = first_turn(learner, jax.random.fold_in(key, 0), spec, state)
        return memory, decision.action, greedy_value(decision.values)

    return jax.vmap(one)(keys, spec, state)


@eqx.filter_jit
def _next(
    learner: RecurrentQ, keys: PRNGKey, clock: Any, memory: Context, last: Transition, state: Any
) -> Decided:
    def one(key: PRNGKey, memory: Context, last: Transition, state: Any) -> Any:
        memory, decision = turn(learner, jax.random.fold_in(key, clock), memory, last, state)
        return memory, decision.action, greedy_value(decision.values)

    return jax.vmap(one)(keys, memory, last, state)
