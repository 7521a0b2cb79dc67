"""Whole lifetimes in simulators on the host, side by side, while the learner decides for the others.

The lifetimes are divided into two parts: while the simulators of one answer, the compiled `turn` of the other
runs. A lifetime that is over is not stepped any more.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped, UInt32

from metaql.embedding.embed import Clock
from metaql.errors import UsageError
from metaql.meta.lifetime import first_turn, turn
from metaql.meta.packed import Form, form_of, packed
from metaql.meta.replay import Lifetimes, filled, lifetimes_of
from metaql.policy.recurrentq import Context, Counted, RecurrentQ
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
    counts: Counted | None
    """What was added up before it, leaves ``[N, B, ...]``."""


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
    return _together([part.lives(length, length // every) for part in parts], parts[0].form)


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
        self.kept: list[np.ndarray] = []
        """Of memories."""
        first = _first(learner, key, ids, self.spec, self.state)
        self.learner, self.keys, self.standing, standing = first
        self.decide = _later(form_of(learner), form_of(standing, axes=1))
        self.columns, self.shape = _columns(standing), standing.action.shape
        self.form = form_of(standing.memory, axes=1)

    def live(self, *, keep: bool) -> None:
        """One step of all that are alive; the next decision is under way when this returns."""
        if not self.alive.any():
            return
        rows = np.asarray(self.standing)
        # Copies, or the whole rows would be kept with them.
        action = rows[:, self.columns[0]].astype(np.int32).reshape(self.shape)
        worth = rows[:, self.columns[1]].copy()
        if keep:
            self.kept.append(rows[:, self.columns[2]].copy())
        answers = self.crowd.step(action, self.alive)
        last = _transitions(self.state, action, answers)
        self.rows.append(_Row(last, worth, self.alive, self.episode))
        ended = answers.terminated | answers.truncated
        self.episode = self.episode + ended.astype(np.int32)
        self.alive = self.alive & (self.episode < self.episodes)
        again = ended & self.alive
        self.state = answers.next_state
        if again.any():
            self.state = np.where(again[:, None], self.crowd.reset(again), self.state)
        told = _told(answers, self.state)
        self.standing = self.decide(self.learner, self.keys, self.standing, told)

    def lives(self, length: int, kept: int) -> _Lived:
        """All that was lived, filled up to ``length`` steps."""
        row = jax.tree.map(lambda *rows: filled(_stacked(rows), length), *self.rows)
        return _Lived(row, self.spec, filled(_stacked(self.kept), kept))


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
    """Leaves ``[T, n, ...]``."""
    spec: TaskSpec
    """Leaves ``[n, ...]``."""
    memory: Any
    """`_Memory` packed, ``[B, n, Y]``."""


def _stacked(rows: Sequence[np.ndarray]) -> Shaped[np.ndarray, "T n ..."]:
    """As `numpy.stack`, which takes its time over many small arrays."""
    return np.concatenate(rows).reshape(len(rows), *rows[0].shape)


@functools.partial(jax.jit, static_argnums=1)
def _together(parts: list[_Lived], form: Form) -> HostLives:
    """The lifetimes of all parts, one after the other, their memories of a form."""
    rows, spec, memories = jax.tree.map(
        lambda *leaves: jnp.concatenate(leaves), *map(_by_life, parts)
    )
    transition, worth, alive, episode = rows
    lifetimes = lifetimes_of(transition, alive, episode, spec)
    memory = jax.vmap(jax.vmap(form.unpacked))(memories)
    return HostLives(lifetimes, worth[..., 0], worth[..., 1], memory.hidden, memory.counts)


def _by_life(lived: _Lived) -> _Lived:
    """The same with time as the second axis."""
    rows, memory = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (lived.rows, lived.memory))
    return _Lived(rows, lived.spec, memory)


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


def _told(answers: Answers, state: Float[np.ndarray, "n D"]) -> Float[np.ndarray, "n X"]:
    """What the learner has to be told of one step, in one array: it is one transfer to the device."""
    count, size = state.shape
    told = np.empty((count, 2 * size + 3), np.float32)
    told[:, :size], told[:, size:-3] = answers.next_state, state
    told[:, -3], told[:, -2], told[:, -1] = answers.reward, answers.terminated, answers.truncated
    return told


class _Memory(NamedTuple):
    """What a learner keeps of one lifetime, but for the time."""

    hidden: Float[Array, " H"]
    counts: Counted | None


class _Standing(NamedTuple):
    """Where the learner of one lifetime stands: what it decided, and what it needs to go on."""

    action: Int[Array, "*K"]
    worth: Float[Array, " 2"]
    """Value of the greedy action, and what the action taken was worth less."""
    memory: _Memory
    clock: Clock
    power: Float[Array, ""] | None
    spec: TaskSpec
    state: Float[Array, " D"]
    step: Int[Array, ""]
    """Decisions made."""


def _columns(standing: _Standing) -> list[slice]:
    """Where the first three fields are in a row; leaves ``[n, ...]``."""
    sizes = [sum(x[0].size for x in jax.tree.leaves(field)) for field in standing[:3]]
    ends = np.cumsum([0, *sizes]).tolist()
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def _stands(
    decided: tuple[Context, Decision], spec: TaskSpec, state: Float[Array, " D"], step: Array
) -> _Standing:
    context, (action, values, _) = decided
    worth = jnp.stack([greedy_value(values), shortfall(values, action)])
    memory = _Memory(context.hidden, context.counts)
    return _Standing(action, worth, memory, context.clock, context.power, spec, state, step)


@jax.jit
def _first(
    learner: RecurrentQ,
    key: PRNGKey,
    ids: Int[Array, " n"],
    spec: TaskSpec,
    state: Float[Array, "n D"],
) -> tuple[Float[Array, " W"], UInt32[Array, "n K"], Float[Array, "n X"], _Standing]:
    """The learner packed, keys of the lifetimes, and their first decisions, packed and as they are."""
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(ids)

    def one(key: PRNGKey, spec: TaskSpec, state: Any) -> _Standing:
        decided = first_turn(learner, jax.random.fold_in(key, 0), spec, state)
        return _stands(decided, spec, state, jnp.asarray(1))

    standing = jax.vmap(one)(keys, spec, state)
    # Plain numbers: typed keys are slow to hand over.
    return packed(learner), jax.random.key_data(keys), jax.vmap(packed)(standing), standing


@functools.lru_cache(maxsize=32)
def _later(of_learner: Form, of_standing: Form) -> Callable[..., Array]:
    """All later decisions, from rows to rows, of learners of one form."""

    @jax.jit
    def later(
        learner: Float[Array, " W"],
        keys: UInt32[Array, "n K"],
        rows: Float[Array, "n X"],
        told: Float[Array, "n Y"],
    ) -> Float[Array, "n X"]:
        decider = of_learner.unpacked(learner)

        def one(key: Any, row: Any, told: Any) -> Any:
            before = of_standing.unpacked(row)
            key = jax.random.fold_in(jax.random.wrap_key_data(key), before.step)
            memory = Context(
                before.memory.hidden,
                before.clock,
                before.spec,
                counts=before.memory.counts,
                power=before.power,
            )
            last, state = _lived(before, told)
            decided = turn(decider, key, memory, last, state)
            return packed(_stands(decided, before.spec, state, before.step + 1))

        return jax.vmap(one)(keys, rows, told)

    return later


def _lived(before: _Standing, told: Float[Array, " Y"]) -> tuple[Transition, Float[Array, " D"]]:
    """The last transition, and the state to decide in."""
    next_state, state, facts = jnp.split(told, (size := (told.size - 3) // 2, 2 * size))
    reward, terminated, truncated = facts
    last = Transition(
        before.state, before.action, reward, next_state, terminated > 0, truncated > 0
    )
    return last, state
