"""The same task otherwise (renamed, rescaled, longer), and exact returns of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from metaql.tasks.exact import optimal_return, policy_return, uniform_policy
from metaql.tasks.finite import FiniteTask
from metaql.types import PRNGKey


def stack(tasks: Sequence[FiniteTask]) -> FiniteTask:
    """Tasks of one size as a batch ``[N, ...]``."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)


def relabelled(task: FiniteTask, key: PRNGKey) -> FiniteTask:
    """The same task with its states and its actions renamed at random."""
    key_state, key_action = jax.random.split(key)
    states = jax.random.permutation(key_state, task.transition.shape[0])
    actions = jax.random.permutation(key_action, task.transition.shape[1])

    def cube(array: Float[Array, "S A S"]) -> Float[Array, "S A S"]:
        return array[states][:, actions][:, :, states]

    noise = jnp.broadcast_to(task.reward_noise, task.transition.shape[:2])
    return task._replace(
        transition=cube(task.transition),
        reward=cube(task.reward),
        termination=cube(task.termination),
        reward_noise=noise[states][:, actions],
        initial=task.initial[states],
        state_mask=task.state_mask[states],
        action_mask=task.action_mask[actions],
    )


def rescaled(task: FiniteTask, factor: float) -> FiniteTask:
    """The same task with its rewards (and their noise) multiplied; -1 turns it upside down.

    Rewards that are drawn as 0 or 1 cannot be multiplied; their task must not be binary.
    """
    if bool(jnp.any(task.reward_binary)):
        raise ValueError("A task of binary rewards cannot be rescaled.")
    return task._replace(reward=task.reward * factor, reward_noise=task.reward_noise * abs(factor))


def with_horizon(task: FiniteTask, horizon: int) -> FiniteTask:
    """The same task (or tasks) with episodes of another length."""
    return task._replace(horizon=jnp.full_like(task.horizon, horizon))


def without_end(task: FiniteTask, steps: int) -> FiniteTask:
    """What a budget of ``steps`` steps over many episodes is worth: ends lead on from the start."""
    ended = (task.transition * task.termination).sum(-1, keepdims=True)
    onward = task.transition * (1.0 - task.termination) + ended * task.initial
    expected = (task.transition * task.reward).sum(-1, keepdims=True)
    return with_horizon(
        task._replace(
            transition=onward,
            reward=jnp.broadcast_to(expected, onward.shape),
            termination=jnp.zeros_like(onward),
        ),
        steps,
    )


class Levels(NamedTuple):
    """Exact returns of one episode, ``[N]`` or a number."""

    random: np.ndarray
    optimum: np.ndarray


def _levels(task: FiniteTask) -> tuple[Float[Array, ""], Float[Array, ""]]:
    return policy_return(task, uniform_policy(task)), optimal_return(task)


_LEVELS = {1: jax.jit(_levels), 2: jax.jit(jax.vmap(_levels))}
"""For one task and for a batch, by the axes of ``initial``; compiled once each."""


def levels(tasks: FiniteTask) -> Levels:
    """Exact returns of the uniformly random policy and of the optimum."""
    found = _LEVELS[tasks.initial.ndim](tasks)
    return Levels(*(np.asarray(each, np.float64) for each in found))


@jax.jit
def oracle_variance(task: FiniteTask) -> Float[Array, ""]:
    """Variance of the return of one episode under the optimal (time-dependent) policy, exactly."""
    go_on = 1.0 - task.termination
    noise = jnp.broadcast_to(task.reward_noise, task.transition.shape[:2])
    noisy_square = task.reward**2 + noise[..., None] ** 2

    def sweep(_: Array, moments: tuple[Array, Array]) -> tuple[Array, Array]:
        mean, square = moments
        q = (task.transition * (task.reward + go_on * mean)).sum(-1)
        each = noisy_square + go_on * (2.0 * task.reward * mean + square)
        best = jnp.where(task.action_mask, q, -jnp.inf).argmax(-1)[:, None]
        squares = (task.transition * each).sum(-1)
        return (
            jnp.take_along_axis(q, best, 1)[:, 0],
            jnp.take_along_axis(squares, best, 1)[:, 0],
        )

    nothing = jnp.zeros(task.initial.shape)
    mean, square = jax.lax.fori_loop(0, task.horizon, sweep, (nothing, nothing))
    return task.initial @ square - (task.initial @ mean) ** 2
