"""Task embedding: what was experienced -> z, a vector that does not depend on how states are named."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metaql.embedding.statistics import Statistics, reward_scale
from metaql.types import PRNGKey, TaskSpec

NUM_PAIR_FEATURES = 6
NUM_GLOBAL_FEATURES = 13


class Clock(NamedTuple):
    """The budget: where in its lifetime a learner stands."""

    step: Float[Array, ""]
    """Steps taken in this episode."""
    episode: Float[Array, ""]
    """Episodes finished."""


class TaskEmbedding(eqx.Module):
    """Deep set over visited (state, action) pairs, joined with global facts and the budget left.

    ``z = rho(mean over visited pairs of phi(pair), globals)`` (Zaheer et al. 2017, "Deep sets"): the
    mean makes z invariant to relabelling states and actions, and the same weights fit every size.
    """

    phi: eqx.nn.MLP
    rho: eqx.nn.MLP

    def __init__(self, key: PRNGKey, *, hidden: int = 32, size: int = 16) -> None:
        """Weights for an embedding of ``size`` numbers."""
        key_phi, key_rho = jax.random.split(key)
        self.phi = eqx.nn.MLP(NUM_PAIR_FEATURES, size, hidden, 1, jax.nn.tanh, key=key_phi)
        self.rho = eqx.nn.MLP(
            size + NUM_GLOBAL_FEATURES, size, hidden, 1, jax.nn.tanh, jnp.tanh, key=key_rho
        )

    def __call__(
        self, known: Statistics, trust: Float[Array, ""], spec: TaskSpec, clock: Clock
    ) -> Float[Array, " Z"]:
        """Embed posterior statistics.

        Args:
            known: evidence plus prior.
            trust: weight of the family prior, in [0, 1].
            spec: sizes, horizon, number of episodes.
            clock: steps and episodes used.
        """
        features = pair_features(known)  # [S A F]
        rows = features.reshape(-1, NUM_PAIR_FEATURES)
        visited = (known.pair.visits > 0).reshape(-1, 1)
        codes = jax.vmap(self.phi)(rows)
        pooled = (codes * visited).sum(0) / jnp.maximum(visited.sum(), 1)
        return self.rho(jnp.concatenate([pooled, global_features(known, trust, spec, clock)]))


def pair_features(known: Statistics) -> Float[Array, "S A F"]:
    """What is known of every (state, action), in units free of the reward's scale."""
    visits = known.pair.visits
    total = jnp.maximum(known.transitions.sum(-1), 1e-6)
    share = known.transitions / total[..., None]
    seen = jnp.maximum(visits, 1e-6)
    return jnp.stack(
        [
            jnp.log1p(visits),
            1.0 / (1.0 + visits),
            known.pair.reward / seen / reward_scale(known),
            known.pair.ends / seen,
            share.max(-1),
            jnp.square(share).sum(-1),
        ],
        -1,
    )


def global_features(
    known: Statistics, trust: Float[Array, ""], spec: TaskSpec, clock: Clock
) -> Float[Array, " G"]:
    """Facts about the whole lifetime so far, squashed to order one."""
    horizon = jnp.minimum(spec.horizon, 1000).astype(jnp.float32)
    left = jnp.maximum(spec.episodes - clock.episode, 0.0)
    num_states = spec.state_mask.sum().astype(jnp.float32)
    num_actions = spec.action_mask.sum().astype(jnp.float32)
    visited = (known.pair.visits > 0).sum() / (num_states * num_actions)
    steps = jnp.maximum(known.steps, 1.0)
    gate_reward, gate_ends = arrival_gates(known)
    return jnp.stack(
        [
            jnp.log(horizon) / 5.0,
            jnp.minimum(clock.step / horizon, 1.0),
            jnp.log1p(left) / 4.0,
            left / jnp.maximum(spec.episodes, 1),
            jnp.log(num_states) / 4.0,
            jnp.log(num_actions) / 3.0,
            visited,
            jnp.log1p(known.steps) / 6.0,
            jnp.sqrt(known.reward_square / steps) / reward_scale(known),
            known.arrival.ends.sum() / jnp.maximum(known.arrival.visits.sum(), 1.0),
            gate_reward,
            gate_ends,
            trust,
        ]
    )


def arrival_gates(known: Statistics) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Probability that rewards, and terminations, are explained by arrival rather than by the pair."""
    return jax.nn.sigmoid(known.scores.reward_odds), jax.nn.sigmoid(known.scores.ends_odds)


def posterior_mask(spec: TaskSpec) -> Bool[Array, "S A"]:
    """Pairs that exist."""
    return spec.state_mask[:, None] & spec.action_mask
