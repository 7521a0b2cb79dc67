"""Learning to foretell: what was believed of a task at every step, and how badly it foretold the next one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metaql.embedding.recurrent import Note
from metaql.embedding.regression import Belief, Rows, TaskModel
from metaql.policy.recurrentq import Context, RecurrentQ

_WEIGHT = 0.3
"""Of the loss of what is foretold, beside that of values."""


def believed_again(learner: RecurrentQ, begin: Belief, notes: Note) -> Belief:
    """Beliefs before every step of a segment, ``[T, ...]``.

    The same as `RecurrentQ.counted` step by step; only adding up is a loop.
    """
    rows = jax.vmap(learner.rows)(notes.transition)

    def body(belief: Belief, row: Rows) -> tuple[Belief, Belief]:
        return belief.after(row), belief

    return jax.lax.scan(body, begin, rows)[1]


def foresight_loss(
    learner: RecurrentQ, start: Context, notes: Note, counts: Bool[Array, " T"]
) -> Float[Array, ""]:
    """What is added to the loss of a segment's steps, as far as they count; 0 without a model of the task."""
    if learner.model is None or not isinstance(start.counts, Belief):
        return jnp.zeros(())
    model: TaskModel = learner.model
    # Where a lifetime begins, gradients reach the prior too.
    newborn = (start.clock.step == 0) & (start.clock.episode == 0)
    begin = jax.tree.map(
        lambda fresh, kept: jnp.where(newborn, fresh, kept), model.blank(), start.counts
    )
    rows = jax.vmap(learner.rows)(notes.transition)
    return _WEIGHT * model.surprise(begin, rows, counts)
