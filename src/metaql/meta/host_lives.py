"""Whole lifetimes in simulators on the host, side by side, while the learner decides for the others.

The lifetimes are divided into two parts: while the simulators of one answer, the compiled `turn` of the other
runs. A lifetime that is over is not stepped any more.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from metaql.embedding.embed import Clock
from metaql.errors import UsageError
from metaql.meta.lifetime import first_turn, turn
from metaql.meta.replay import Lifetimes, filled, lifetimes_of
from metaql.policy.recurrentq import Context, RecurrentQ
from metaql.qlearning.td import greedy_value, shortfall
from metaql.tasks.crowd import Answers, Crowd
from metaql.tasks.watchdog import alarm_taken
from metaql.types import Decision, PRNGKey, TaskSpec, Transition


class HostLives(NamedTuple):
    """Complete lifetimes, and what their learner made of them."""

    lifetimes: Lifetimes
    best: Float[Array, "N T"]
    """Value of the greedy action when acting."""
    short: Float[Array, "N T"]
    """What the action taken was worth less."""
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
    with alarm_taken():
        parts = [
            _Part(learner, crowd, budget, seeds[own], jax.random.key(seed), own)
            for crowd, budget, own in zip(crowds, episodes, ids, strict=True)
        ]
        _live(parts, length, every)
    return _together([part.lives(length, length // every) for part in parts])


def _live(parts: list[_Part], length: int, every: int) -> None:
    """Live all parts in turn until no lifetime is left.

    Raises:
        UsageError: one is left after ``length`` steps.
    """
    for step in range(length):
        for part in parts:
            part.live(keep=step % every == 0)
        if not any(part.alive.any() for part in parts):
            break
    else:
        if any(part.alive.any() for part in parts):
            raise UsageError(
                "`length` must be enough for the longest lifetime.",
                f"After {length} steps some were not over: time limits of tasks may differ.",
                "Give the family one `horizon`.",
            )


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
        self.crowd, self.episodes = crowd, episodes
        self.alive = np.ones(len(ids), bool)
        self.episode = np.zeros(len(ids), np.int32)
        self.spec = _specs(crowd, episodes)
        self.state = crowd.reset(self.alive, seeds.tolist())
        self.rows: list[_Row] = []
        self.kept: list[Array] = []
        leaves, structure = jax.tree.flatten(learner)
        first, self.decide = _decisions(structure)
        self.fixed, self.standing, self.worth = first(leaves, key, ids, self.spec, self.state)

    def live(self, *, keep: bool) -> None:
        """One step of all that are alive; the next decision is under way when this returns."""
        if keep:
            self.kept.append(self.standing.hidden)
        if not self.alive.any():
            return
        action = np.asarray(self.standing.action)
        answers = self.crowd.step(action, self.alive)
        last = _transitions(self.state, action, answers)
        self.rows.append(_Row(last, self.worth, self.alive, self.episode))
        ended = answers.terminated | answers.truncated
        self.episode = self.episode + ended.astype(np.int32)
        self.alive = self.alive & (self.episode < self.episodes)
        again = ended & self.alive
        self.state = answers.next_state
        if again.any():
            self.state = np.where(again[:, None], self.crowd.reset(again), self.state)
        self.standing, self.worth = self.decide(
            self.fixed, self.standing, _packed(answers, self.state)
        )

    def lives(self, length: int, kept: int) -> _Lived:
        """All that was lived, filled up to ``length`` steps."""
        stacked = jax.tree.map(lambda *rows: np.stack([np.asarray(x) for x in rows], 1), *self.rows)
        row = jax.tree.map(lambda rows: filled(rows, length, axis=1), stacked)
        hidden = np.stack([np.asarray(x) for x in self.kept], 1)
        return _Lived(row, self.spec, filled(hidden, kept, axis=1))


class _Row(NamedTuple):
    """What is kept of one step of n lifetimes."""

    transition: Transition
    worth: Any
    """Value of the greedy action, and what the action taken was worth less, ``[n, 2]``."""
    alive: Any
    episode: Any


class _Lived(NamedTuple):
    """All that is kept of n lifetimes."""

    rows: _Row
    """Leaves ``[n, T, ...]``."""
    spec: TaskSpec
    """Leaves ``[n, ...]``."""
    hidden: Any
    """``[n, B, H]``."""


@jax.jit
def _clocked(lived: _Lived) -> HostLives:
    transition, worth, alive, episode = lived.rows
    lifetimes = lifetimes_of(transition, alive, episode, lived.spec)
    return HostLives(lifetimes, worth[..., 0], worth[..., 1], lived.hidden)


def _together(lived: list[_Lived]) -> HostLives:
    """The lifetimes of all parts, one after the other."""
    return _clocked(jax.tree.map(lambda *leaves: np.concatenate(leaves), *lived))


def _specs(crowd: Crowd, episodes: Int[np.ndarray, " n"]) -> TaskSpec:
    """Of every lifetime, leaves ``[n, ...]``: tasks that are alike differ in their horizon only."""
    count, one = len(crowd.hosts), crowd.hosts[0].spec(0)
    alike = jax.tree.map(lambda leaf: np.tile(leaf, (count, *[1] * leaf.ndim)), one)
    return alike._replace(
        horizon=crowd.horizon.astype(np.int32), episodes=episodes.astype(np.int32)
    )


def _transitions(state: np.ndarray, action: np.ndarray, answers: Answers) -> Transition:
    arrays: tuple[Any, ...] = (state, action, answers.reward, *answers[:1], *answers[2:])
    return Transition(*arrays)


def _packed(answers: Answers, state: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n X"]:
    """What the learner has to be told of one step, in one array: it is one transfer to the device."""
    facts = (answers.reward, answers.terminated, answers.truncated)
    columns = (answers.next_state, state, *(fact[:, None] for fact in facts))
    return np.concatenate(columns, axis=1, dtype=np.float32)


class _Fixed(NamedTuple):
    """What stays the same for n lifetimes, on the device."""

    leaves: list[Array]
    """Of the learner."""
    keys: UInt32[Array, "n W"]
    """Of the lifetimes, as plain numbers: typed keys are slow to hand over."""
    spec: TaskSpec


class _Standing(NamedTuple):
    """Where the learner of n lifetimes stands, on the device."""

    step: Int[Array, ""]
    """Decisions made."""
    hidden: Float[Array, "n H"]
    clock: Clock
    power: Float[Array, " n"] | None
    state: Float[Array, "n D"]
    action: Int[Array, "n *K"]


def _standing(
    step: Int[Array, ""], memory: Context, state: Float[Array, "n D"], action: Int[Array, "n *K"]
) -> _Standing:
    return _Standing(step, memory.hidden, memory.clock, memory.power, state, action)


@functools.lru_cache(maxsize=32)
def _decisions(structure: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The compiled first and later decisions of learners of one structure.

    Their leaves are handed over as a list: nothing is taken apart or hashed at every step.
    """

    def decided(memory: Context, decision: Decision) -> tuple[Context, Array, Float[Array, " 2"]]:
        values, action = decision.values, decision.action
        return memory, action, jnp.stack([greedy_value(values), shortfall(values, action)])

    @jax.jit
    def first(
        leaves: list[Array],
        key: PRNGKey,
        ids: Int[Array, " n"],
        spec: TaskSpec,
        state: Float[Array, "n D"],
    ) -> tuple[_Fixed, _Standing, Float[Array, "n 2"]]:
        learner = jax.tree.unflatten(structure, leaves)
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(ids)

        def one(key: PRNGKey, spec: TaskSpec, state: Any) -> Any:
            return decided(*first_turn(learner, jax.random.fold_in(key, 0), spec, state))

        memory, action, worth = jax.vmap(one)(keys, spec, state)
        standing = _standing(jnp.asarray(1), memory, state, action)
        return _Fixed(leaves, jax.random.key_data(keys), spec), standing, worth

    @jax.jit
    def later(
        fixed: _Fixed, standing: _Standing, told: Float[Array, "n X"]
    ) -> tuple[_Standing, Float[Array, "n 2"]]:
        learner = jax.tree.unflatten(structure, fixed.leaves)

        def one(key: Any, memory: Context, last: Transition, state: Any) -> Any:
            key = jax.random.fold_in(jax.random.wrap_key_data(key), standing.step)
            return decided(*turn(learner, key, memory, last, state))

        before = Context(standing.hidden, standing.clock, fixed.spec, power=standing.power)
        last, state = _unpacked(standing, told)
        memory, action, worth = jax.vmap(one)(fixed.keys, before, last, state)
        return _standing(standing.step + 1, memory, state, action), worth

    return first, later


def _unpacked(
    standing: _Standing, told: Float[Array, "n X"]
) -> tuple[Transition, Float[Array, "n D"]]:
    """The last transition, and the state to decide in."""
    next_state, state, facts = jnp.split(told, (size := (told.shape[1] - 3) // 2, 2 * size), axis=1)
    reward, terminated, truncated = facts.T
    last = Transition(
        standing.state, standing.action, reward, next_state, terminated > 0, truncated > 0
    )
    return last, state
