"""Heads: planning channels at one state -> Q(s, .) believed and its doubt; and which channel to follow."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metaql.types import PRNGKey


class Outlook(NamedTuple):
    """What is believed of Q* at the actions of one state."""

    mean: Float[Array, " A"]
    log_std: Float[Array, " A"]
    """Log posterior standard deviation, in units of the task's spread."""


class QHead(eqx.Module):
    """Posterior over Q*: a residual on the planner that vanishes where nothing is in doubt.

    The network moves a value only along the lift of the optimistic channels over the posterior mean,
    ``mean = Q_0 + sum_c tanh(w_c) (Q_c - Q_0)``: where everything is known the channels agree, and Q is
    what planning says to the last digit. (A free residual was tried first: an error of a few percent of
    the spread is enough to ruin a greedy policy.) Works on the rows of one state; a mean over its
    actions joins every row, so relabelling actions relabels the output (Zaheer et al. 2017).
    """

    row: eqx.nn.Linear
    join: eqx.nn.Linear
    out: eqx.nn.Linear

    def __init__(self, key: PRNGKey, *, channels: int, embedding: int, hidden: int) -> None:
        """Fresh weights; those of the output are zero."""
        key_row, key_join, key_out = jax.random.split(key, 3)
        self.row = eqx.nn.Linear(2 * channels + 2 + embedding, hidden, key=key_row)
        self.join = eqx.nn.Linear(hidden, hidden, key=key_join)
        self.out = zeros(eqx.nn.Linear(hidden, channels, key=key_out))

    def __call__(
        self,
        channels: Float[Array, "C A"],
        visits: Float[Array, " A"],
        mask: Bool[Array, " A"],
        z: Float[Array, " Z"],
        spread: Float[Array, ""],
    ) -> Outlook:
        """Combine one state's channels.

        Args:
            channels: Q_c(s, .); channel 0 is the posterior mean, without optimism.
            visits: N(s, .).
            mask: actions that exist.
            z: task embedding.
            spread: unit of value differences in this belief.
        """
        rows = _row_features(channels, visits, mask, z, spread)
        hidden = jax.nn.gelu(jax.vmap(self.row)(rows))
        shared = (hidden * mask[:, None]).sum(0) / jnp.maximum(mask.sum(), 1)
        hidden = jax.nn.gelu(jax.vmap(self.join)(hidden + shared) + hidden)
        raw = jax.vmap(self.out)(hidden)
        lift = (channels[1:] - channels[:1]).T
        mean = channels[0] + (jnp.tanh(raw[:, 1:]) * lift).sum(-1)
        return Outlook(mean, raw[:, 0] - 2.0)


def _row_features(
    channels: Float[Array, "C A"],
    visits: Float[Array, " A"],
    mask: Bool[Array, " A"],
    z: Float[Array, " Z"],
    spread: Float[Array, ""],
) -> Float[Array, "A F"]:
    best = jax.lax.stop_gradient(jnp.where(mask, channels, -jnp.inf).max(-1, keepdims=True))
    advantage = jnp.tanh((channels - best) / spread)
    level = jnp.tanh((channels - best[:1]) / spread)
    counts = jnp.stack([jnp.log1p(visits), jnp.log1p(visits.sum()) * jnp.ones_like(visits)])
    shared = jnp.broadcast_to(z[:, None], (z.shape[0], visits.shape[0]))
    return jnp.concatenate([advantage, level, counts, shared]).T


class ModeHead(eqx.Module):
    """The outer Q-function: minus the regret that the rest of the lifetime will cost in each mode.

    A *mode* says which values to be greedy on until the episode ends: one of the channels (how
    optimistic to be), or the posterior mean of the `QHead`. Its state is the belief.
    """

    hidden: eqx.nn.Linear
    out: eqx.nn.Linear

    def __init__(
        self, key: PRNGKey, *, channels: int, embedding: int, hidden: int, first: int
    ) -> None:
        """Fresh weights: at first mode ``first`` is preferred, by a hair."""
        self.hidden = eqx.nn.Linear(embedding + 2 * channels, hidden, key=key)
        start = jnp.zeros(channels + 1).at[first].set(0.02)
        self.out = constant(eqx.nn.Linear(hidden, channels + 1, key=key), start)

    def __call__(
        self,
        z: Float[Array, " Z"],
        values: Float[Array, " C"],
        spread: Float[Array, ""],
        stakes: Float[Array, ""],
    ) -> Float[Array, " K"]:
        """Outer Q of every mode.

        Args:
            z: task embedding (it knows the budget left).
            values: ``V_c(s)`` of the present state; what optimism adds says what is left to learn.
            spread: unit of value differences.
            stakes: unit of what an episode may cost; that of the result.
        """
        lift = (values[1:] - values[0]) / spread
        features = jnp.stack([jnp.tanh(lift), jnp.log1p(jnp.abs(100.0 * lift)) / 5.0]).ravel()
        level = jnp.stack([jnp.tanh(values[0] / spread), jnp.log(spread / stakes) / 5.0])
        joined = jnp.concatenate([z, features, level])
        return stakes * self.out(jax.nn.gelu(self.hidden(joined)))


def zeros(linear: eqx.nn.Linear) -> eqx.nn.Linear:
    """The same layer with all weights zero: it starts by changing nothing."""
    return jax.tree.map(jnp.zeros_like, linear)


def constant(linear: eqx.nn.Linear, bias: Float[Array, " K"]) -> eqx.nn.Linear:
    """The same layer, at first constant: zero weights and the given bias."""
    return eqx.tree_at(lambda layer: layer.bias, zeros(linear), bias)
