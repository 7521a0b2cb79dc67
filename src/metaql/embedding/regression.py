"""What is believed of a task whose observations are vectors: regressions on learned features.

Rewards, and what a step changes, are taken to be linear in features that meta-training learns; the weights
are those of the task and have a posterior in closed form after every step of a lifetime (Harrison, Sharma &
Pavone 2018, "Meta-learning priors for efficient online Bayesian regression", arXiv 1807.08912). A recurrent
state learns to put together what many steps say only roughly: a goal that its distances tell was known to
5 cm after 150 steps by a gated recurrent unit, and to 2 cm by the regression.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from metaql.embedding.recurrent import Sight, in_deviations, in_units
from metaql.types import Observation, PRNGKey, Transition

_WIDTH = 128
"""Of the layers between a transition and its features."""
_LOUD = 5.0
"""Factor of rewards: the steps of a task differ by a fraction of the largest reward there is."""
_LEAST = 1e-4
"""Variance below which none counts."""


class Posterior(NamedTuple):
    """Of the weights of K features for M targets: normal, each with one covariance, up to its noise."""

    mean: Float[Array, "K M"]
    spread: Float[Array, "K K"]
    """Covariance over the variance of the noise."""

    def after(self, row: Row) -> Posterior:
        """With one step more (recursive least squares)."""
        toward = self.spread @ row.features
        gain = toward / (1.0 + row.features @ toward)
        mean = self.mean + jnp.outer(gain, row.targets - row.features @ self.mean)
        return Posterior(mean, self.spread - jnp.outer(gain, toward))

    @property
    def view(self) -> Float[Array, " V"]:
        """The weights and how well each is known, of order one: ``[K (M + 1)]``."""
        known = jnp.log(jnp.maximum(jnp.diagonal(self.spread), 0.0) + _LEAST**2)
        return 2.0 * jnp.tanh(0.5 * jnp.concatenate([self.mean.reshape(-1), known]))


class Row(NamedTuple):
    """What one step says."""

    features: Float[Array, " K"]
    targets: Float[Array, " M"]


class Regression(eqx.Module):
    """Learned features, and the prior of their weights."""

    layers: tuple[eqx.nn.Linear, ...]
    norms: tuple[eqx.nn.LayerNorm, ...]
    mean: Float[Array, "K M"]
    log_spread: Float[Array, " K"]
    """Of the prior's variances over that of the noise."""
    log_noise: Float[Array, " M"]
    """Of the variance of the noise."""

    def __init__(self, key: PRNGKey, *, entries: int, features: int, targets: int) -> None:
        """Fresh weights.

        Args:
            key: of the weights.
            entries: of what features are made of.
            features: K.
            targets: M.
        """
        *keys, key_mean = jax.random.split(key, 4)
        sizes = (entries, _WIDTH, _WIDTH, features)
        self.layers = tuple(
            eqx.nn.Linear(size, onto, key=k)
            for size, onto, k in zip(sizes[:-1], sizes[1:], keys, strict=True)
        )
        self.norms = tuple(eqx.nn.LayerNorm(_WIDTH) for _ in self.layers[:-1])
        self.mean = 0.1 * jax.random.normal(key_mean, (features, targets))
        self.log_spread, self.log_noise = jnp.zeros(features), jnp.full(targets, -1.0)

    def prior(self) -> Posterior:
        """What is believed before the first step."""
        return Posterior(self.mean, jnp.diag(jnp.exp(self.log_spread)))

    def features(self, entries: Float[Array, " D"]) -> Float[Array, " K"]:
        """Of one step."""
        x = entries
        for layer, norm in zip(self.layers[:-1], self.norms, strict=True):
            x = jax.nn.relu(norm(layer(x)))
        return 2.0 / math.sqrt(self.log_spread.size) * self.layers[-1](x)

    def surprise(self, begin: Posterior, rows: Row, counts: Bool[Array, " T"]) -> Float[Array, ""]:
        """Minus the log density of the targets of steps ``[T, ...]`` that count, less a constant.

        That is how badly each was foretold from those before it, all in all. Targets y are normal with mean
        X m and covariance noise (I + X S X'); with d what the steps add to the mean m,
        (I + X S X')^-1 (y - X m) is what is left of y: y - X (m + d).
        """
        x = rows.features * counts[:, None]
        # What is left may be a thousandth of what was.
        with jax.default_matmul_precision("highest"):
            error = (rows.targets - rows.features @ begin.mean) * counts[:, None]
            wider = jnp.eye(x.shape[1]) + begin.spread @ (x.T @ x)
            left = error - x @ jnp.linalg.solve(wider, begin.spread @ (x.T @ error))
        noise = jnp.exp(self.log_noise) + _LEAST
        wide = error.shape[1] * jnp.linalg.slogdet(wider)[1]
        return 0.5 * (((error * left).sum(0) / noise + counts.sum() * jnp.log(noise)).sum() + wide)


class Belief(NamedTuple):
    """Of one lifetime: what the task's rewards are, and what its steps change."""

    rewards: Posterior
    changes: Posterior

    def after(self, rows: Rows) -> Belief:
        """With one step more."""
        return Belief(self.rewards.after(rows.rewards), self.changes.after(rows.changes))

    def view(self, state: Observation) -> Float[Array, " V"]:
        """What the Q-network sees of it, the same in all states. It is learned by what it foretells alone."""
        del state
        return jax.lax.stop_gradient(jnp.concatenate([self.rewards.view, self.changes.view]))


class Rows(NamedTuple):
    """What one step says of both."""

    rewards: Row
    changes: Row


class TaskModel(eqx.Module):
    """Regressions of rewards on whole transitions, and of what steps change on what was done where."""

    rewards: Regression
    changes: Regression
    moved: Float[Array, " D"]
    """Mean square of what a step changes: not learned by gradients."""
    count: Float[Array, ""]
    """Steps behind it."""

    def __init__(self, key: PRNGKey, *, entries: int, actions: int, features: int) -> None:
        """Fresh weights.

        Args:
            key: of the weights.
            entries: D, of an observation.
            actions: A, of all parts of an action together.
            features: K, of rewards; changes are M = D targets and get half as many.
        """
        key_rewards, key_changes = jax.random.split(key)
        self.rewards = Regression(
            key_rewards, entries=2 * entries + actions, features=features, targets=1
        )
        self.changes = Regression(
            key_changes, entries=entries + actions, features=-(-features // 2), targets=entries
        )
        self.moved, self.count = jnp.ones(entries), jnp.zeros(())

    def blank(self) -> Belief:
        """At the start of a lifetime."""
        return Belief(self.rewards.prior(), self.changes.prior())

    def rows(self, sight: Sight, seen: Transition, options: int, unit: Float[Array, ""]) -> Rows:
        """What a transition says.

        Changes are in units of their own: what a small push does to a velocity is a thousandth of what
        velocities can be, and all that tells which way a motor turns.

        Args:
            sight: of observations.
            seen: the transition.
            options: A, of every part of an action.
            unit: the largest reward.
        """
        here, there = sight(seen.state), sight(seen.next_state)
        taken = jax.nn.one_hot(seen.action, options).reshape(-1)
        change = in_deviations(seen.next_state - seen.state, self.moved)
        return Rows(
            Row(
                self.rewards.features(jnp.concatenate([here, there, taken])),
                _LOUD * in_units(seen.reward, unit)[None],
            ),
            Row(self.changes.features(jnp.concatenate([here, taken])), change),
        )

    def surprise(self, begin: Belief, rows: Rows, counts: Bool[Array, " T"]) -> Float[Array, ""]:
        """How badly steps were foretold, all in all: what meta-training makes least."""
        rewards = self.rewards.surprise(begin.rewards, rows.rewards, counts)
        return rewards + self.changes.surprise(begin.changes, rows.changes, counts)

    def knowing(self, changes: Float[Array, "M D"], weights: Float[Array, " M"]) -> TaskModel:
        """With what so many steps changed in its units."""
        new = weights.sum()
        total = jnp.maximum(self.count + new, 1.0)
        moved = (self.moved * self.count + weights @ changes**2) / total
        return eqx.tree_at(
            lambda model: (model.moved, model.count), self, (moved, self.count + new)
        )
