"""What RecurrentQ is trained by: values along lived segments, and how far they are from their targets."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metaql.embedding.embed import Clock
from metaql.embedding.recurrent import Note, clock_facts
from metaql.embedding.regression import Belief
from metaql.meta.foresight import believed_again, foresight_loss
from metaql.meta.recurrent_config import RecurrentConfig
from metaql.policy.recurrentq import Context, Counted, RecurrentQ
from metaql.qlearning.td import value_of
from metaql.types import Transition


class Segment(NamedTuple):
    """``T`` lived steps of one lifetime (``[T, ...]``; batched ``[N, T, ...]``)."""

    note: Note
    alive: Bool[Array, " T"]
    target: Float[Array, " T"]
    """Lambda-return, less ``action_gap`` times what the action was worth less than the best one."""


def discount_across(
    crossed: Bool[Array, "*T"], more: Bool[Array, "*T"], config: RecurrentConfig
) -> Float[Array, "*T"]:
    """Discount after a step of a lifetime.

    Args:
        crossed: whether it ended an episode.
        more: whether the lifetime goes on.
        config: the discounts.
    """
    return config.discount * jnp.where(crossed, config.episode_discount, 1.0) * more


def replayed_values(
    learner: RecurrentQ, start: Context, notes: Note, scenes: Float[Array, "T D"]
) -> Float[Array, "T *K A"]:
    """Q(o_t, .) over `RecurrentQ.scale`, from the memory at a segment's start and what was lived in it.

    The same numbers as `RecurrentQ.values` step by step; only the recurrence itself is a loop.

    Args:
        learner: whose values.
        start: the memory.
        notes: what was lived.
        scenes: of `seen_again`, which depend on nothing that gradients train.
    """
    spec, hidden = start.spec, read_again(learner, start, notes)[0]

    def at(hidden: Array, scene: Array, clock: Clock) -> Float[Array, "*K A"]:
        return learner.network(hidden, scene, clock_facts(clock, spec))

    return jax.vmap(at)(hidden, scenes, notes.clock)


def read_again(
    learner: RecurrentQ, start: Context, notes: Note
) -> tuple[Float[Array, "T H"], Float[Array, " H"]]:
    """The embedding before every step of a segment, and after its last one."""
    spec = start.spec
    encoded = jax.vmap(lambda note: learner.reader.encode(learner.sight, note, spec, learner.unit))(
        notes
    )

    def body(hidden: Array, row: Array) -> tuple[Array, Array]:
        return learner.advance(hidden, row), hidden

    last, before = jax.lax.scan(body, start.hidden, encoded)
    return before, last


def seen_again(learner: RecurrentQ, start: Context, notes: Note) -> Float[Array, "T D"]:
    """What the network saw before every step of a segment."""
    state = notes.transition.state
    if start.counts is None:
        return jax.vmap(learner.sight)(state)
    if isinstance(start.counts, Belief):
        return jax.vmap(learner.scene)(state, believed_again(learner, start.counts, notes))

    def body(counts: Counted | None, seen: Transition) -> tuple[Counted | None, Array]:
        return learner.counted(counts, seen), learner.scene(seen.state, counts)

    return jax.lax.scan(body, start.counts, notes.transition)[1]


def scenes_of(learner: RecurrentQ, starts: Context, segments: Segment) -> Float[Array, "N T D"]:
    """`seen_again` of every segment ``[N, T]``."""
    return jax.vmap(seen_again, in_axes=(None, 0, 0))(learner, starts, segments.note)


def segment_loss(
    learner: RecurrentQ, starts: Context, segments: Segment, scenes: Float[Array, "N T D"]
) -> Float[Array, ""]:
    """Half the mean squared error of Q at the actions taken, over living steps of ``[N, T]``.

    With a model of the task, what it foretold badly is added.
    """

    def one(start: Context, segment: Segment, scenes: Float[Array, "T D"]) -> Float[Array, ""]:
        values = replayed_values(learner, start, segment.note, scenes)
        chosen = jax.vmap(value_of)(values, segment.note.transition.action)
        error = (chosen - segment.target / learner.scale) * segment.alive
        return 0.5 * (error**2).sum() + foresight_loss(learner, start, segment.note, segment.alive)

    errors = jax.vmap(one)(starts, segments, scenes)
    return errors.sum() / jnp.maximum(segments.alive.sum(), 1)
