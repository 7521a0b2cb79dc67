"""Exact answers for finite tasks: optimal values, policy evaluation, the best non-adaptive policy.

Everything is float32 arrays and pure functions of one task; ``jax.vmap`` adds N.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metaql.tasks.finite import FiniteTask

NEVER = -jnp.inf
"""Value of an action that does not exist."""


class Model(NamedTuple):
    """What planning needs of an MDP: expected rewards and where it goes on."""

    reward: Float[Array, "S A"]
    """Expected reward of an action."""
    onward: Float[Array, "S A S"]
    """Probability of arriving in a state *and* going on: rows sum to 1 - Pr(termination)."""
    action_mask: Bool[Array, " A"]


def model_of(task: FiniteTask) -> Model:
    """The true model of a task."""
    return Model(
        reward=(task.transition * task.reward).sum(-1),
        onward=task.transition * (1.0 - task.termination),
        action_mask=task.action_mask,
    )


def backup(
    model: Model, values: Float[Array, " S"], discount: Float[Array, ""] | float
) -> Float[Array, "S A"]:
    """One Bellman backup: ``Q(s, a) = r(s, a) + discount * sum_s2 onward(s, a, s2) V(s2)``."""
    return model.reward + discount * jnp.einsum("saz,z->sa", model.onward, values)


def greedy_values(q: Float[Array, "S A"], action_mask: Bool[Array, " A"]) -> Float[Array, " S"]:
    """``V(s) = max_a Q(s, a)`` over the actions that exist."""
    return jnp.where(action_mask, q, NEVER).max(-1)


def plan(
    model: Model,
    discount: Float[Array, ""] | float,
    *,
    tolerance: float = 1e-6,
    max_sweeps: int = 10_000,
) -> Float[Array, "S A"]:
    """Discounted Q* by value iteration until no value moves by more than ``tolerance``.

    That is a share of the largest reward and the largest value together. Needs ``discount < 1`` or certain
    termination; ``max_sweeps`` bounds the work otherwise.
    """
    largest = jnp.maximum(jnp.abs(model.reward).max(), 1e-30)

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        _, change, sweeps = carry
        return (change > tolerance) & (sweeps < max_sweeps)

    def sweep(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        q, _, sweeps = carry
        new = backup(model, greedy_values(q, model.action_mask), discount)
        return new, jnp.abs(new - q).max() / (largest + jnp.abs(new).max()), sweeps + 1

    start = (jnp.zeros_like(model.reward), jnp.asarray(jnp.inf), jnp.asarray(0))
    return jax.lax.while_loop(unfinished, sweep, start)[0]


def plan_horizon(
    model: Model, horizon: Int[Array, ""] | int, discount: float = 1.0
) -> Float[Array, "S A"]:
    """Q*(s, a) with ``horizon`` steps left, by backward induction (truncation is worth 0)."""

    def sweep(_: Array, q: Array) -> Array:
        return backup(model, greedy_values(q, model.action_mask), discount)

    # With no step left nothing is earned; the mask keeps padded actions out from the first sweep.
    return jax.lax.fori_loop(0, horizon, sweep, jnp.zeros_like(model.reward))


def optimal_q(task: FiniteTask, discount: Float[Array, ""] | float) -> Float[Array, "S A"]:
    """Discounted Q*, the fixed point of the Bellman optimality equation."""
    return plan(model_of(task), discount)


class Answers(NamedTuple):
    """What is known exactly of a sampled task."""

    q: Float[Array, "S A"]
    """Q* at the task's own discount."""
    matters: Bool[Array, "S A"]
    """Pairs that exist in states where something can happen."""


def answers_to(task: FiniteTask, discount: Float[Array, ""]) -> Answers:
    """Exact Q* of one task and where it means something."""
    model = model_of(task)
    lives = (model.onward.sum(-1) > 0).any(-1) | (model.reward != 0).any(-1)
    matters = (lives & task.state_mask)[:, None] & task.action_mask
    return Answers(plan(model, discount, tolerance=1e-5, max_sweeps=2_000), matters)


def optimal_return(task: FiniteTask) -> Float[Array, ""]:
    """Expected undiscounted return of one episode under the optimal (time-dependent) policy."""
    q = plan_horizon(model_of(task), task.horizon)
    return task.initial @ greedy_values(q, task.action_mask)


def policy_return(task: FiniteTask, policy: Float[Array, "S A"]) -> Float[Array, ""]:
    """Expected undiscounted return of one episode under a stationary policy ``Pr(a | s)``."""
    model = model_of(task)

    def sweep(_: Array, values: Array) -> Array:
        return (policy * backup(model, values, 1.0)).sum(-1)

    values = jax.lax.fori_loop(0, task.horizon, sweep, jnp.zeros(task.initial.shape))
    return task.initial @ values


def policy_q(
    task: FiniteTask, policy: Float[Array, "S A"], discount: Float[Array, ""] | float
) -> Float[Array, "S A"]:
    """Discounted Q of a stationary policy: the linear system of its Bellman equation, solved."""
    model = model_of(task)
    reward = (policy * model.reward).sum(-1)
    onward = jnp.einsum("sa,saz->sz", policy, model.onward)
    values = jnp.linalg.solve(jnp.eye(reward.shape[0]) - discount * onward, reward)
    return backup(model, values, discount)


def greedy_policy(q: Float[Array, "S A"], action_mask: Bool[Array, " A"]) -> Float[Array, "S A"]:
    """The deterministic policy that is greedy on ``q``, as probabilities (first of equals)."""
    best = jnp.where(action_mask, q, NEVER).argmax(-1)
    return jax.nn.one_hot(best, q.shape[-1])


def uniform_policy(task: FiniteTask) -> Float[Array, "S A"]:
    """Every action that exists with equal probability."""
    mask = task.action_mask.astype(jnp.float32)
    return jnp.broadcast_to(mask / mask.sum(), task.transition.shape[:2])


def average_model(tasks: FiniteTask) -> Model:
    """The mean model of tasks that share their state space (``[N, ...]`` -> one model).

    A state counts only in the tasks where something can happen in it: what a hole does to those who
    stand in it says nothing about the maps where the same cell is ice.
    """
    models = jax.vmap(model_of)(tasks)
    lives = (models.onward.sum(-1) > 0) | (models.reward != 0)
    weight = lives.any(-1).astype(jnp.float32)  # [N, S]
    weight = weight / jnp.maximum(weight.sum(0), 1.0)
    return Model(
        reward=jnp.einsum("ns,nsa->sa", weight, models.reward),
        onward=jnp.einsum("ns,nsaz->saz", weight, models.onward),
        action_mask=tasks.action_mask.any(0),
    )


def non_adaptive_policy(tasks: FiniteTask) -> Float[Array, "S A"]:
    """The stationary policy that is optimal for the average map: good without adapting.

    In tasks where what pays lies elsewhere it may be worse than acting at random.
    Tasks (``[N, ...]``) must share their state space. Planned for their first horizon.
    """
    model = average_model(tasks)
    return greedy_policy(plan_horizon(model, tasks.horizon[0]), model.action_mask)
