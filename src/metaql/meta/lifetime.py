"""THE loop: a lifetime is E episodes of one task, the learner keeping what it learned in between.

Meta-training, evaluation and every baseline run `advance`; adaptation on a host environment runs the
same `turn` (learn from the last transition, decide the next action). So what is trained is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from metaql.meta.compiling import suited
from metaql.types import (
    Decision,
    Learner,
    Memory,
    Observation,
    PRNGKey,
    State,
    Task,
    TaskSpec,
    Transition,
)


class Life(NamedTuple):
    """Where one lifetime stands (one stream; batched ``[N, ...]`` in `advance`)."""

    key: PRNGKey
    memory: Memory
    state: State
    step: Int[Array, ""]
    """Steps taken in the current episode."""
    episode: Int[Array, ""]
    """Episodes finished."""
    episodes: Int[Array, ""]
    """Episodes in this lifetime; what is lived after them is not counted."""


class Record(NamedTuple):
    """One step as it was lived; `advance` returns it as ``[T, N, ...]``."""

    transition: Transition
    decision: Decision
    episode: Int[Array, ""]
    alive: Bool[Array, ""]
    """False for rows after the last episode: to be ignored."""


class Lives(NamedTuple):
    """Complete lifetimes, on the host."""

    returns: Float[np.ndarray, "N E"]
    """Undiscounted return of every episode."""
    lengths: Int[np.ndarray, "N E"]
    """Steps of every episode."""
    finished: Int[np.ndarray, " N"]
    """Episodes lived to their end: E, unless the lifetime was cut off."""
    memory: Memory
    """What the learners knew at the end, ``[N, ...]``."""


def begin(
    learner: Learner,
    task: Task,
    key: PRNGKey,
    episodes: Int[Array, ""] | int,
    steps: Int[Array, ""] | int | None = None,
) -> Life:
    """Start one lifetime of so many episodes; the learner is told of ``steps`` too, if given."""
    key_life, key_init, key_reset = jax.random.split(key, 3)
    told = None if steps is None else jnp.asarray(steps, jnp.int32)
    memory = learner.init(key_init, task.spec(episodes)._replace(steps=told))
    zero = jnp.zeros((), jnp.int32)
    return Life(
        key_life, memory, task.reset(key_reset), zero, zero, jnp.asarray(episodes, jnp.int32)
    )


def first_turn(
    learner: Learner, key: PRNGKey, spec: TaskSpec, state: Observation
) -> tuple[Memory, Decision]:
    """Begin with an empty memory and decide in ``state``: the first step for host environments."""
    key_init, key_act = jax.random.split(key)
    memory = learner.init(key_init, spec)
    return memory, learner.act(key_act, memory, state)


def turn(
    learner: Learner, key: PRNGKey, memory: Memory, last: Transition, state: Observation
) -> tuple[Memory, Decision]:
    """Learn from the last transition, then decide in ``state``: one step for host environments."""
    key_update, key_act = jax.random.split(key)
    memory = learner.update(key_update, memory, last)
    return memory, learner.act(key_act, memory, state)


def live_step(learner: Learner, task: Task, life: Life, guide: Memory) -> tuple[Life, Record]:
    """Act on ``guide`` (the life's own memory, except in the placebo), step the task, learn."""
    key, key_act, key_step, key_update, key_reset = jax.random.split(life.key, 5)
    at = getattr(task, "at", None)
    task = task if at is None else at(life.episode, life.step)
    observed = task.observe(life.state)
    decision = learner.act(key_act, guide, observed)
    outcome = task.step(key_step, life.state, decision.action)
    clock = life.step + 1
    truncated = (clock >= task.horizon) & ~outcome.terminated
    ended = outcome.terminated | truncated
    transition = Transition(
        observed,
        decision.action,
        outcome.reward,
        task.observe(outcome.next_state),
        outcome.terminated,
        truncated,
    )
    after = Life(
        key=key,
        memory=learner.update(key_update, life.memory, transition),
        state=jax.tree.map(
            lambda first, later: jnp.where(ended, first, later),
            task.reset(key_reset),
            outcome.next_state,
        ),
        step=jnp.where(ended, 0, clock),
        episode=life.episode + ended,
        episodes=life.episodes,
    )
    alive = life.episode < life.episodes
    return after, Record(transition, decision, life.episode, alive)


def _task_axis(tasks: Task) -> int | None:
    """The axis of lifetimes in ``tasks``; None for one task that all live in."""
    return 0 if tasks.horizon.ndim else None


def _step_all(learner: Learner, tasks: Task, shuffle: bool, lives: Life) -> tuple[Life, Record]:
    """One step of every lifetime; with ``shuffle`` each acts on its neighbour's memory (the placebo)."""
    guides = lives.memory
    if shuffle:
        guides = jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), guides)
    in_axes = (None, _task_axis(tasks), 0, 0)
    return jax.vmap(live_step, in_axes=in_axes)(learner, tasks, lives, guides)


def _steps(
    learner: Learner, tasks: Task, shuffle: bool, lives: Life, num_steps: int, recorded: bool
) -> tuple[Life, Record | None]:
    def body(carry: Life, _: None) -> tuple[Life, Record | None]:
        after, record = _step_all(learner, tasks, shuffle, carry)
        return after, record if recorded else None

    return jax.lax.scan(body, lives, length=num_steps)


@eqx.filter_jit
def advance(
    learner: Learner, tasks: Task, lives: Life, num_steps: int, *, shuffle: bool = False
) -> tuple[Life, Record]:
    """Live ``num_steps`` more steps of N lifetimes.

    Args:
        tasks: one task for all lifetimes (no leading axis) or one each, ``[N, ...]``.
        lives: ``[N, ...]`` from ``vmap(begin)`` or an earlier call.
        shuffle: the placebo: act on the memory of the neighbouring lifetime.

    Returns:
        The lives after the steps and the records, ``[T, N, ...]``.
    """
    lives, record = _steps(learner, tasks, shuffle, lives, num_steps, recorded=True)
    return lives, cast(Record, record)


def advance_unrecorded(
    learner: Learner, tasks: Task, lives: Life, num_steps: int, *, shuffle: bool = False
) -> Life:
    """`advance` for those who want what was learned and not how: no records are written."""
    return suited(_steps, learner)(learner, tasks, shuffle, lives, num_steps, recorded=False)[0]


class _Tally(NamedTuple):
    returns: Float[Array, " E"]
    lengths: Int[Array, " E"]


def _count(tally: _Tally, record: Record) -> _Tally:
    """Add one step to its episode (single stream); steps after the last episode are dropped."""
    slot = jnp.where(record.alive, record.episode, tally.returns.shape[0])
    return _Tally(
        tally.returns.at[slot].add(record.transition.reward, mode="drop"),
        tally.lengths.at[slot].add(1, mode="drop"),
    )


def _unless_over(before: Life, after: Life) -> Life:
    """``after``, or ``before`` where the lifetime is over: its memory stays as it was."""
    over = before.episode >= before.episodes
    return jax.tree.map(lambda old, new: jnp.where(over, old, new), before, after)


Carry = tuple[Life, _Tally, Int[Array, ""]]
_NO_LIMIT = np.iinfo(np.int32).max


def _until_done(
    body: Callable[[Carry], Carry], carry: Carry, num_steps: Int[Array, ""] | int
) -> Carry:
    """Repeat ``body`` until every lifetime in the carry is lived or ``num_steps`` are used up."""

    def unfinished(carry: Carry) -> Bool[Array, ""]:
        lives, _, used = carry
        return jnp.any(lives.episode < lives.episodes) & (used < num_steps)

    return jax.lax.while_loop(unfinished, body, carry)


def _live_abreast(
    learner: Learner,
    tasks: Task,
    carry: tuple[Life, _Tally],
    num_steps: Int[Array, ""],
    shuffle: bool,
) -> tuple[Life, _Tally]:
    """Live all lifetimes side by side (vmap) for at most ``num_steps`` more steps."""

    def body(carry: Carry) -> Carry:
        lives, tally, used = carry
        later, record = _step_all(learner, tasks, shuffle, lives)
        lives = jax.vmap(_unless_over)(lives, later)
        return lives, jax.vmap(_count)(tally, record), used + 1

    return _until_done(body, (*carry, jnp.zeros((), jnp.int32)), num_steps)[:2]


@eqx.filter_jit
def _live_in_turn(
    learner: Learner, tasks: Task, lives: Life, num_episodes: int
) -> tuple[Life, _Tally]:
    """Live one whole lifetime after the other: for learners that replan only at episode ends."""
    shared = _task_axis(tasks) is None

    def whole(task: Task, life: Life) -> tuple[Life, _Tally]:
        def body(carry: Carry) -> Carry:
            life, tally, used = carry
            life, record = live_step(learner, task, life, life.memory)
            return life, _count(tally, record), used

        carry = (life, _empty_tally(num_episodes), jnp.zeros((), jnp.int32))
        return _until_done(body, carry, num_steps=1)[:2]

    if shared:
        return jax.lax.map(lambda life: whole(tasks, life), lives)
    return jax.lax.map(lambda both: whole(*both), (tasks, lives))


def _empty_tally(num_episodes: int) -> _Tally:
    return _Tally(jnp.zeros(num_episodes), jnp.zeros(num_episodes, jnp.int32))


@eqx.filter_jit
def begin_all(
    learner: Learner,
    tasks: Task,
    keys: PRNGKey,
    episodes: int,
    steps: int | None = None,
) -> Life:
    """`begin` for N lifetimes: ``keys`` is ``[N]``, ``tasks`` one for all or ``[N, ...]``."""
    in_axes = (None, _task_axis(tasks), 0, None, None)
    return jax.vmap(begin, in_axes=in_axes)(learner, tasks, keys, episodes, steps)


def live_until(learner: Learner, tasks: Task, lives: Life, episode: Int[Array, ""] | int) -> Life:
    """Live on until every lifetime has finished ``episode`` episodes; those that have stand still.

    So that one can look at what was learned in between: compiled once for all values of ``episode``.
    It goes on past the episodes that the lifetime was told of.

    Args:
        tasks: one task for all lifetimes, or one each, ``[N, ...]``.
        lives: ``[N, ...]`` from `begin_all` or an earlier call.
        episode: episodes finished since the beginning of the lifetime.
    """
    bounded = lives._replace(episodes=jnp.full_like(lives.episodes, episode))
    if getattr(learner, "plans_between_episodes", False):
        later, _ = _live_in_turn(learner, tasks, bounded, num_episodes=1)
    else:
        # Nobody asks for the tally: one slot is the least that it can have.
        tally = jax.vmap(lambda _: _empty_tally(1))(lives.step)
        later, _ = suited(_live_abreast, learner)(
            learner, tasks, (bounded, tally), jnp.asarray(_NO_LIMIT), False
        )
    return later._replace(episodes=lives.episodes)


def live(
    learner: Learner,
    tasks: Task,
    keys: PRNGKey,
    *,
    episodes: int,
    shuffle: bool = False,
    max_steps: int = _NO_LIMIT,
    on_progress: Callable[[float], None] = lambda done: None,
    chunk: int = 256,
) -> Lives:
    """Live N whole lifetimes of ``episodes`` episodes and tally every episode.

    Learners whose class sets ``plans_between_episodes`` are run one lifetime after the other, which
    pays for a plan only where an episode ends; all others run side by side. Those whose class sets
    ``compiles_plainly`` are compiled by `compile_options`.

    Args:
        tasks: one task for all lifetimes, or one each, ``[N, ...]``.
        keys: ``[N]``, one per lifetime.
        shuffle: the placebo: each lifetime acts on its neighbour's memory.
        max_steps: steps after which lifetimes are cut off, whatever is left of them (lived side by
            side only).
        on_progress: called with the share done, in [0, 1].
        chunk: steps (or lifetimes) between two calls of ``on_progress``.
    """
    lives = begin_all(learner, tasks, keys, episodes)
    if getattr(learner, "plans_between_episodes", False):
        if shuffle:
            raise NotImplementedError("The placebo needs lifetimes side by side.")
        lives, tally = _live_in_turn(learner, tasks, lives, episodes)
    else:
        tally = jax.vmap(lambda _: _empty_tally(episodes))(lives.step)
        used = 0
        while bool(jnp.any(lives.episode < episodes)) and used < max_steps:
            todo = min(chunk, max_steps - used)
            # As an array: one program serves the last, shorter chunk too.
            number = jnp.asarray(todo, jnp.int32)
            lives, tally = suited(_live_abreast, learner)(
                learner, tasks, (lives, tally), number, shuffle
            )
            used += todo
            on_progress(float(jnp.mean(jnp.minimum(lives.episode, episodes)) / episodes))
    on_progress(1.0)
    finished = np.minimum(np.asarray(lives.episode), episodes)
    return Lives(np.asarray(tally.returns), np.asarray(tally.lengths), finished, lives.memory)
