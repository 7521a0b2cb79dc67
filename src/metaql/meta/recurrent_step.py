"""One iteration of RecurrentQ's meta-training: live a segment, compute returns, learn from it.

On-policy Q-learning with lambda-returns, layer norm and neither replay nor target network (Gallici et al.
2024, "Simplifying deep temporal difference learning", arXiv 2407.04811), over lifetimes: the state of the
outer problem is what was observed in all episodes of a task so far, and its return goes on across their
ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from metaql.embedding.recurrent import Note
from metaql.meta.lifetime import Life, begin, live_step
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.meta.recurrent_loss import (
    Segment,
    discount_across,
    scenes_of,
    segment_loss,
)
from metaql.policy.recurrentq import Context, RecurrentQ
from metaql.qlearning.td import greedy_value, lambda_returns, shortfall
from metaql.types import PRNGKey, Task, Transition

_PACE = 0.02
"""Share of one iteration in the variance of returns, which their scale follows."""
_LEAST = 1e-3
"""Least scale of returns in units of the largest reward."""


class RecurrentState(NamedTuple):
    """Everything a run needs to go on: what a checkpoint holds."""

    learner: RecurrentQ
    optimizer: Any
    tasks: Any
    """Of the lifetimes, ``[N, ...]``."""
    lives: Life | None
    """None, as are tasks, where every iteration lives whole lifetimes on the host."""
    key: PRNGKey
    iteration: Int[Array, ""]


class Figures(NamedTuple):
    """Diagnostics of one iteration."""

    reward: Float[Array, ""]
    """Mean reward per living step."""
    loss: Float[Array, ""]
    """Half the mean squared error of Q, in units of the scale of returns."""
    value: Float[Array, ""]
    """Mean return of the rest of a lifetime, discounted."""
    epsilon: Float[Array, ""]


def optimizer_for(config: RecurrentConfig) -> optax.GradientTransformation:
    """RAdam (as in PQN) with clipped gradients and a rate that falls linearly."""
    updates = config.iterations * config.epochs * config.minibatches
    rate = optax.linear_schedule(config.learning_rate, 0.01 * config.learning_rate, updates)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.radam(rate))


def split_learner(learner: RecurrentQ) -> tuple[RecurrentQ, RecurrentQ]:
    """What gradients train, and the rest (normalisation, the unit of reward, epsilon)."""
    trained = jax.tree.map(eqx.is_inexact_array, learner)

    def fixed(q: RecurrentQ) -> list[Any]:
        model = [] if q.model is None else [q.model.moved, q.model.count]
        return [q.sight, q.unit, q.scale, q.epsilon, *model]

    off = jax.tree.map(lambda _: False, fixed(learner))
    return eqx.partition(learner, eqx.tree_at(fixed, trained, replace=off))


def begin_lives(
    learner: RecurrentQ, bank: Any, key: PRNGKey, config: RecurrentConfig, first: bool
) -> tuple[Any, Life]:
    """N new lifetimes in tasks drawn from the bank.

    Args:
        learner: who lives.
        bank: tasks, ``[B, ...]``.
        key: of everything drawn.
        config: how many lifetimes, of how many episodes.
        first: the first ones are shorter by lot, so that not all are at the same point ever after.
    """
    key_task, key_budget, key_life = jax.random.split(key, 3)
    count, (low, high) = config.lifetimes, config.episodes
    tasks = drawn_from(bank, key_task, count)
    budget = jax.random.randint(key_budget, (count,), 1 if first else low, high + 1)
    keys = jax.random.split(key_life, count)
    return tasks, jax.vmap(begin, in_axes=(None, 0, 0, 0))(learner, tasks, keys, budget)


def drawn_from(bank: Any, key: PRNGKey, number: int) -> Any:
    """So many tasks of a bank ``[B, ...]``, drawn with replacement, ``[number, ...]``."""
    index = jax.random.randint(key, (number,), 0, bank.horizon.shape[0])
    return jax.tree.map(lambda x: x[index], bank)


def live_segment(
    learner: RecurrentQ, task: Task, life: Life, config: RecurrentConfig
) -> tuple[Life, Segment]:
    """Live one segment of one lifetime.

    Returns over the lifetime, across the ends of episodes: what follows is what will be acted in next,
    the first state of the next episode, at a discount of its own; after the last episode nothing follows.
    """

    def body(life: Life, _: None) -> tuple[Life, Any]:
        clock = life.memory.clock
        after, record = live_step(learner, task, life, life.memory)
        crossed, more = after.episode > life.episode, after.episode < after.episodes
        values, action = record.decision.values, record.decision.action
        seen = Note(record.transition, clock), record.alive, discount_across(crossed, more, config)
        return after, (*seen, greedy_value(values), shortfall(values, action))

    after, lived = jax.lax.scan(body, life, length=config.segment_steps)
    notes, alive, discount, best, short = lived
    last = greedy_value(learner.values(after.memory, task.observe(after.state)))
    onward = jnp.concatenate([best[1:], last[None]])
    reward = notes.transition.reward
    target = lambda_returns(reward, discount, onward, config.trace)
    return after, Segment(notes, alive, target - config.action_gap * short)


def adjusted(learner: RecurrentQ, segments: Segment, config: RecurrentConfig) -> RecurrentQ:
    """With what was lived taken into the units of observations, rewards and returns."""
    seen, alive = segments.note.transition, segments.alive
    sight = learner.sight
    if not sight.numbers:
        # Acted in or arrived in: the first of an episode and the true last one count too.
        rows = jnp.stack([seen.state, seen.next_state]).reshape(-1, sight.size)
        sight = sight.after(rows, jnp.tile(alive.reshape(-1).astype(jnp.float32), 2))
    unit = jnp.maximum(learner.unit, (jnp.abs(seen.reward) * alive).max())
    changed = eqx.tree_at(lambda q: (q.sight, q.unit), learner, (sight, unit))
    if changed.model is not None:
        changes = (seen.next_state - seen.state).reshape(-1, sight.size)
        knowing = changed.model.knowing(changes, alive.reshape(-1).astype(jnp.float32))
        changed = eqx.tree_at(lambda q: q.model, changed, knowing)
    spread = return_spread(segments, config)
    followed = jnp.sqrt((1.0 - _PACE) * learner.scale**2 + _PACE * spread**2)
    told = (learner.unit == 0) & (unit > 0)
    scale = jnp.maximum(jnp.where(told, spread, followed), _LEAST * unit)
    scale = jnp.where(unit > 0, scale, 1.0)
    # The first rewards tell the scale: until then values had none, and nothing is to be kept.
    before = jnp.where(told, scale, changed.scale)
    return eqx.tree_at(lambda q: q.scale, changed, before).rescaled(scale)


def return_spread(segments: Segment, config: RecurrentConfig) -> Float[Array, ""]:
    """Standard deviation over living steps of the discounted rewards of what was left of a segment.

    What the network has to tell apart: where rewards are few, the largest sum of them that there could be is
    a hundred times that, and all that is to be learned is smaller than the noise of the updates.
    """

    def left(transition: Transition, alive: Bool[Array, " T"]) -> Float[Array, " T"]:
        ended = transition.terminated | transition.truncated
        discount = discount_across(ended, alive, config)
        return lambda_returns(transition.reward * alive, discount, jnp.zeros(alive.shape), 1.0)

    returns = jax.vmap(left)(segments.note.transition, segments.alive)
    weight = _shares(segments.alive)
    mean = (returns * weight).sum()
    return jnp.sqrt(((returns - mean) ** 2 * weight).sum())


def _shares(alive: Bool[Array, "N T"]) -> Float[Array, "N T"]:
    """Of every step in a mean over the living ones."""
    return alive / jnp.maximum(alive.sum(), 1)


@eqx.filter_jit
def recurrent_step(
    bank: Any, state: RecurrentState, config: RecurrentConfig
) -> tuple[RecurrentState, Figures]:
    """One iteration: renew what is over, live a segment, learn from it ``epochs`` times."""
    key, key_renew, key_learn = jax.random.split(state.key, 3)
    learner = exploring(state.learner, state.iteration, config)
    tasks, lives = _renewed(learner, bank, state, key_renew, config)
    later, segments = jax.vmap(live_segment, in_axes=(None, 0, 0, None))(
        learner, tasks, lives, config
    )
    lived = (lives.memory, segments)
    learner, optimizer, figures = improved(learner, state.optimizer, lived, key_learn, config)
    after = RecurrentState(learner, optimizer, tasks, later, key, state.iteration + 1)
    return after, figures


def exploring(
    learner: RecurrentQ, iteration: Int[Array, ""] | int, config: RecurrentConfig
) -> RecurrentQ:
    """With the share of random actions that belongs to an iteration."""
    progress = iteration / max(config.iterations * config.explore, 1.0)
    epsilon = jnp.maximum(1.0 - (1.0 - config.epsilon) * progress, config.epsilon)
    return eqx.tree_at(lambda q: q.epsilon, learner, epsilon.astype(jnp.float32))


def improved(
    learner: RecurrentQ,
    optimizer: Any,
    lived: tuple[Context, Segment],
    key: PRNGKey,
    config: RecurrentConfig,
) -> tuple[RecurrentQ, Any, Figures]:
    """After learning from what was lived, ``epochs`` times.

    Args:
        learner: who lived.
        optimizer: its state.
        lived: memories at the start of every segment, and segments, ``[N, ...]``.
        key: of the order in which they are learned from.
        config: how.
    """
    starts, segments = lived
    learner = adjusted(learner, segments, config)
    learner, optimizer, losses = _learn(learner, optimizer, starts, segments, key, config)
    weight = _shares(segments.alive)
    reward, value = segments.note.transition.reward * weight, segments.target * weight
    figures = Figures(reward.sum(), jnp.nanmean(losses), value.sum(), learner.epsilon)
    return learner, optimizer, figures


def _renewed(
    learner: RecurrentQ, bank: Any, state: RecurrentState, key: PRNGKey, config: RecurrentConfig
) -> tuple[Any, Life]:
    """Tasks and lives, with new ones where a lifetime is over."""
    old = cast(Life, state.lives)
    over = old.episode >= old.episodes
    fresh = begin_lives(learner, bank, key, config, first=False)

    def pick(new: Array, kept: Array) -> Array:
        return jnp.where(over.reshape(-1, *[1] * (kept.ndim - 1)), new, kept)

    return jax.tree.map(pick, fresh, (state.tasks, old))


def stepped(
    tool: optax.GradientTransformation,
    loss_of: Callable[[RecurrentQ], Float[Array, ""]],
    weights: RecurrentQ,
    optimizer: Any,
) -> tuple[tuple[RecurrentQ, Any], Float[Array, ""]]:
    """Weights and the optimizer's state after one gradient step, and the loss before it."""
    loss, slope = jax.value_and_grad(loss_of)(weights)
    change, optimizer = tool.update(slope, optimizer, cast(Any, weights))
    return (eqx.apply_updates(weights, change), optimizer), loss


def _later(optimizer: Any) -> Any:
    """The optimizer's state, its rate one update further on its way down: nothing was learned from."""
    kind = optax.ScaleByScheduleState
    return jax.tree.map(
        lambda state: state._replace(count=state.count + 1) if isinstance(state, kind) else state,
        optimizer,
        is_leaf=lambda state: isinstance(state, kind),
    )


def _learn(
    learner: RecurrentQ,
    optimizer: Any,
    starts: Context,
    segments: Segment,
    key: PRNGKey,
    config: RecurrentConfig,
) -> tuple[RecurrentQ, Any, Float[Array, " U"]]:
    """All updates of an iteration; every epoch divides the segments anew, those not lived last."""
    weights, rest = split_learner(learner)
    tool = optimizer_for(config)
    size = config.lifetimes // config.minibatches
    scenes = scenes_of(learner, starts, segments)

    def update(carry: tuple[RecurrentQ, Any], chosen: Int[Array, " B"]) -> tuple[Any, Array]:
        weights, optimizer = carry
        batch = jax.tree.map(lambda x: x[chosen], (starts, segments, scenes))

        def loss_of(weights: RecurrentQ) -> Float[Array, ""]:
            return segment_loss(eqx.combine(weights, rest), *batch)

        return stepped(tool, loss_of, weights, optimizer)

    lived = segments.alive.any(-1)

    def skip(carry: tuple[RecurrentQ, Any], _: Int[Array, " B"]) -> tuple[Any, Array]:
        return (carry[0], _later(carry[1])), jnp.full((), jnp.nan)

    def unless_empty(carry: tuple[RecurrentQ, Any], chosen: Int[Array, " B"]) -> tuple[Any, Array]:
        return jax.lax.cond(lived[chosen].any(), update, skip, carry, chosen)

    keys = jax.random.split(key, config.epochs)
    order = jax.vmap(lambda k: jax.random.permutation(k, config.lifetimes))(keys)
    order = jax.vmap(lambda row: row[jnp.argsort(~lived[row], stable=True)])(order)
    order = order.reshape(-1, size)
    (weights, optimizer), losses = jax.lax.scan(unless_empty, (weights, optimizer), order)
    return eqx.combine(weights, rest), optimizer, losses
