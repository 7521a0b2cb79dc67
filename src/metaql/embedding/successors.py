"""Where actions led: transition counts in one of two layouts behind the same few questions.

`Dense` holds N(s, a, s') for every s' and suits small tasks and big batches. `Sparse` holds a list of
the distinct successors each pair has shown, so memory and time grow with what was seen and not with
S^2 A. Everything that plans asks only what is defined here, so a result does not depend on the layout.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metaql.types import Transition


class Dense(NamedTuple):
    """Counts of every successor."""

    counts: Float[Array, "S A S"]
    reward: Float[Array, "S A S"]
    """Sum of rewards on the way there."""


class Sparse(NamedTuple):
    """The ``K`` slots of each pair; a slot with count 0 is free."""

    onto: Int[Array, "S A K"]
    """The successor in each slot."""
    counts: Float[Array, "S A K"]
    reward: Float[Array, "S A K"]
    """Sum of rewards on the way there."""


Successors: TypeAlias = Dense | Sparse


def no_successors(num_states: int, num_actions: int, slots: int | None) -> Successors:
    """Nothing seen yet; ``slots`` per pair, or None for the dense layout."""
    if slots is None:
        none = jnp.zeros((num_states, num_actions, num_states))
        return Dense(none, none)
    shape = (num_states, num_actions, slots)
    return Sparse(jnp.zeros(shape, jnp.int32), jnp.zeros(shape), jnp.zeros(shape))


def add(successors: Successors, transition: Transition) -> Successors:
    """Count one transition.

    A sparse pair whose slots are all taken by others forgets the transition: whoever uses the layout
    makes room in time (`is_full`, `widen`).
    """
    state, action, onto = transition.state, transition.action, transition.next_state
    if isinstance(successors, Dense):
        # One-hot sums: a scatter copies its buffer inside a compiled loop on CPU.
        num_states, num_actions, _ = successors.counts.shape
        pair = jax.nn.one_hot(state, num_states)[:, None] * jax.nn.one_hot(action, num_actions)
        here = pair[..., None] * jax.nn.one_hot(onto, num_states)
        return Dense(successors.counts + here, successors.reward + here * transition.reward)
    held = successors.counts[state, action] > 0
    known = held & (successors.onto[state, action] == onto)
    slot = jnp.where(known.any(), jnp.argmax(known), held.sum())
    return Sparse(
        successors.onto.at[state, action, slot].set(onto, mode="drop"),
        successors.counts.at[state, action, slot].add(1.0, mode="drop"),
        successors.reward.at[state, action, slot].add(transition.reward, mode="drop"),
    )


def expectation(
    successors: Successors, weights: Float[Array, "S A K"], values: Float[Array, "C S"]
) -> Float[Array, "C S A"]:
    """Weighted sum of each row of ``values`` over the successors; ``weights`` has the layout's shape."""
    if isinstance(successors, Dense):
        return jnp.einsum("saz,cz->csa", weights, values)
    return (values[:, successors.onto] * weights).sum(-1)


def along(successors: Successors, values: Float[Array, " S"]) -> Float[Array, "S A K"]:
    """The value of every successor, in the layout of the counts."""
    if isinstance(successors, Dense):
        return jnp.broadcast_to(values, successors.counts.shape)
    return values[successors.onto]


def arriving(successors: Successors, amounts: Float[Array, "S A"]) -> Float[Array, " S"]:
    """Sum of an amount of every pair over all transitions that arrived in each state."""
    each = successors.counts * amounts[..., None]
    if isinstance(successors, Dense):
        return each.sum((0, 1))
    return jnp.zeros(each.shape[0]).at[successors.onto].add(each)


def seen(successors: Successors, state: Int[Array, ""], onto: Int[Array, ""]) -> Float[Array, " A"]:
    """N(state, a, onto) of every action."""
    if isinstance(successors, Dense):
        return successors.counts[state, :, onto]
    return (successors.counts[state] * (successors.onto[state] == onto)).sum(-1)


def paid(
    successors: Successors, transition: Transition
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """How often this pair has led to this state, and the sum of rewards on the way."""
    here = (transition.state, transition.action)
    counts, reward = successors.counts[here], successors.reward[here]
    if isinstance(successors, Dense):
        return counts[transition.next_state], reward[transition.next_state]
    at = successors.onto[here] == transition.next_state
    return (counts * at).sum(), (reward * at).sum()


def is_full(successors: Successors) -> Bool[Array, ""]:
    """Whether some pair has no free slot for a successor it has not shown yet."""
    if isinstance(successors, Dense):
        return jnp.zeros((), bool)
    return (successors.counts[..., -1] > 0).any()
