"""The outer loss: ``min over M of the sum over tasks of L(A(T_i), T_i)``, at beliefs that were lived."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from metaql.meta.rollout import Segments
from metaql.policy.beliefq import Belief, BeliefQ
from metaql.tasks.exact import Answers

_LOG_STD_RANGE = (-4.0, 5.0)
_LARGEST_ERROR = 100.0
"""Spreads; beyond, an error says only that the belief knows nothing."""
_DOUBT = 0.1
"""Weight of the likelihood, which only the standard deviation feels."""
_UNVISITED = 0.2
"""Weight of states never seen: their Q* teaches the value of the unknown, at lower precision."""


class Losses(NamedTuple):
    """Parts of the loss, averaged over beliefs."""

    fit: Float[Array, ""]
    """Huber error of the mean against the exact Q*, in units of the larger of spread and |Q*|."""
    doubt: Float[Array, ""]
    """Negative log-likelihood of that error under the standard deviation."""
    outer: Float[Array, ""]
    """Q-learning over the lifetime: Huber error against lambda-returns."""


def belief_losses(
    learner: BeliefQ,
    belief: Belief,
    answers: Answers,
    state: Int[Array, ""],
    target: Float[Array, ""],
) -> Losses:
    """All losses at one lived belief; gradients flow through the last sweeps and the network.

    ``fit`` and ``doubt`` are supervised, at every state and action at once: Huber error of the mean,
    and the likelihood of that error under the standard deviation (which must not bend the mean: known
    beliefs would drown the others). ``outer`` is Q-learning over the lifetime.
    """
    belief = learner.replan(belief, learner.config.sweeps)
    views = learner.outlooks(belief)
    seen = (belief.evidence.pair.visits.sum(-1, keepdims=True) > 0).astype(jnp.float32)
    weight = answers.matters * (_UNVISITED + (1.0 - _UNVISITED) * seen)
    weight = weight / jnp.maximum(weight.sum(), 1.0)
    error = (answers.q - views.mean) / belief.spread
    # A belief that knows nothing yet may think the task far smaller than it is.
    unit = jnp.maximum(belief.spread, jnp.abs(answers.q * answers.matters).max())
    fit = (weight * optax.huber_loss((answers.q - views.mean) / unit)).sum()
    log_std = jnp.clip(views.log_std, *_LOG_STD_RANGE)
    bounded = jnp.clip(jax.lax.stop_gradient(error), -_LARGEST_ERROR, _LARGEST_ERROR)
    scaled = bounded * jnp.exp(-log_std)
    doubt = (weight * (optax.huber_loss(scaled, delta=3.0) + log_std)).sum()

    where = jax.nn.one_hot(state, belief.starts.shape[0])
    acted = learner.mode_values(belief, where)[belief.mode]
    outer = optax.huber_loss((acted - target) / unit)
    return Losses(fit, doubt, outer)


def meta_loss(
    learner: BeliefQ, segment: Segments, answers: Answers, outer_weight: float
) -> tuple[Float[Array, ""], Losses]:
    """Mean over the N beliefs of one segment (``[N, ...]``) of the tasks that ``answers`` belong to."""
    losses = jax.vmap(belief_losses, in_axes=(None, 0, 0, 0, 0))(
        learner, segment.beliefs, answers, segment.states, segment.targets
    )
    alive = segment.alive / jnp.maximum(segment.alive.sum(), 1)
    means = Losses(*((alive * loss).sum() for loss in losses))
    return means.fit + _DOUBT * means.doubt + outer_weight * means.outer, means
