"""Random MDPs: dense ones as in RL2's benchmark, and sparse graphs.

Dense (Duan et al. 2016, arXiv 1611.02779, section 3.2; after Osband et al. 2013): transitions are
Dirichlet(1), mean rewards Normal(1, 1), observed rewards Normal(mean, 1), start in state 0, ten
steps.
Sparse (after the "Garnet" problems of Archibald, McKinnon and Thomas 1995): few successors per
state and action, rewards on arrival in few states, states that may end the episode.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Bool, Float

from metaql.errors import ConfigError, unknown_name
from metaql.tasks.families.base import Family, split_key
from metaql.tasks.finite import FiniteTask
from metaql.types import PRNGKey

KINDS = ("dense", "sparse")


class RandomMDP(Family):
    """MDPs without structure of their own: everything must be learned within the task."""

    name: ClassVar[str] = "random_mdp"
    summary: ClassVar[str] = "unstructured MDPs: dense as in RL2's benchmark, or sparse graphs"
    baselines: ClassVar[Mapping[str, float]] = {"random": 10.0, "optimum": 21.8}

    num_states: int = eqx.field(static=True)
    num_actions: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    kind: str = eqx.field(static=True)
    branching: int = eqx.field(static=True)
    rewarded: int = eqx.field(static=True)
    termination: float = eqx.field(static=True)

    def __init__(
        self,
        num_states: int = 10,
        num_actions: int = 5,
        *,
        horizon: int = 10,
        kind: Literal["dense", "sparse"] = "dense",
        branching: int = 2,
        rewarded: int = 2,
        termination: float = 0.0,
    ) -> None:
        """Choose the size and the kind.

        Args:
            num_states: S, at least 1 (sparse: 3).
            num_actions: A, at least 1.
            horizon: steps per episode.
            kind: ``"dense"`` (RL2) or ``"sparse"``.
            branching: sparse only: successors of each state and action.
            rewarded: sparse only: states whose entry is rewarded (uniform in 0.5 to 1).
            termination: sparse only: probability that a state ends the episode on entry.

        Raises:
            UnknownNameError: no such kind.
            ConfigError: an argument out of range.
        """
        if kind not in KINDS:
            raise unknown_name("`kind`", kind, KINDS)
        if min(num_states, num_actions, horizon) < 1:
            raise ConfigError(
                "`random_mdp` needs num_states, num_actions and horizon >= 1.",
                f"Got {num_states}, {num_actions}, {horizon}.",
            )
        if kind == "dense" and (branching, rewarded, termination) != (2, 2, 0.0):
            raise ConfigError(
                "`branching`, `rewarded` and `termination` are of sparse `random_mdp`.",
                f"Got {branching}, {rewarded} and {termination} with kind='dense'.",
                "Ask for kind='sparse', or leave them out.",
            )
        if kind == "sparse" and not (
            1 <= branching <= num_states and 1 <= rewarded < num_states and 0 <= termination < 1
        ):
            raise ConfigError(
                "Sparse `random_mdp` needs branching in 1..num_states, rewarded in"
                " 1..num_states - 1 and termination in [0, 1).",
                f"Got num_states={num_states}, branching={branching}, rewarded={rewarded},"
                f" termination={termination}.",
            )
        self.num_states, self.num_actions, self.horizon = num_states, num_actions, horizon
        self.kind, self.branching, self.rewarded = kind, branching, rewarded
        self.termination = termination

    @property
    def suits(self) -> Mapping[str, Any]:
        """What is found out of a state pays when one is there again; values elsewhere do not show it."""
        return {"trace": 1.0} if self.kind == "dense" else {}

    def sample(self, key: PRNGKey, split: str) -> FiniteTask:
        """Draw one MDP; its numbers are continuous, so no two draws agree."""
        key = split_key(key, split)
        return self._dense(key) if self.kind == "dense" else self._sparse(key)

    def _dense(self, key: PRNGKey) -> FiniteTask:
        shape = (self.num_states, self.num_actions, self.num_states)
        numbers = _uniform(key, (*shape[:2], 1 + self.num_states))
        mean = 1.0 + ndtri(numbers[..., 0] + 2.0**-24)  # strictly inside (0, 1)
        return self._task(
            transition=_flat_dirichlet(numbers[..., 1:]),
            reward=jnp.broadcast_to(mean[..., None], shape),
            termination=jnp.zeros(shape),
            reward_noise=1.0,
        )

    def _sparse(self, key: PRNGKey) -> FiniteTask:
        key_edge, key_state = jax.random.split(key)
        count = self.num_states
        shape = (count, self.num_actions, count)
        score, weight = _uniform(key_edge, (2, *shape))
        edges = _smallest(score, self.branching)
        level_gain, level_end, extra = _uniform(key_state, (3, count))
        later = jnp.arange(count) > 0  # entering the start is never rewarded and never the end
        which = _smallest(jnp.where(later, level_gain, 2.0), self.rewarded)
        gain = which * (0.5 + 0.5 * extra)
        ends = later & (level_end < self.termination)
        return self._task(
            transition=_flat_dirichlet(weight, edges),
            reward=jnp.broadcast_to(gain, shape),
            termination=jnp.broadcast_to(ends.astype(jnp.float32), shape),
            reward_noise=0.0,
        )

    def _task(
        self, transition: Array, reward: Array, termination: Array, reward_noise: float
    ) -> FiniteTask:
        return FiniteTask(
            transition=transition,
            reward=reward,
            termination=termination,
            initial=jnp.zeros(self.num_states).at[0].set(1.0),
            horizon=jnp.asarray(self.horizon, jnp.int32),
            reward_noise=jnp.asarray(reward_noise, jnp.float32),
            reward_binary=jnp.asarray(False),
            state_mask=jnp.ones(self.num_states, bool),
            action_mask=jnp.ones(self.num_actions, bool),
        )

    @classmethod
    def toy(cls) -> RandomMDP:
        """Five states, three actions."""
        return cls(num_states=5, num_actions=3)


def _uniform(key: PRNGKey, shape: tuple[int, ...]) -> Float[Array, "*shape"]:
    """Uniform numbers in [0, 1), drawn flat: that compiles six times faster than by axes."""
    return jax.random.uniform(key, (math.prod(shape),)).reshape(shape)


def _flat_dirichlet(
    uniform: Float[Array, "... S"], support: Bool[Array, "... S"] | bool = True
) -> Float[Array, "... S"]:
    """Dirichlet(1) over the support from uniform numbers in [0, 1): normalised exponentials.

    (``jax.random.dirichlet`` draws gamma variables, which compile for long.)
    """
    # The shift keeps every weight above 0, so that a row of one successor is never 0 / 0.
    weight = jnp.where(support, -jnp.log1p(-(uniform + 2.0**-24)), 0.0)
    return weight / weight.sum(-1, keepdims=True)


def _smallest(scores: Float[Array, "... S"], count: int) -> Bool[Array, "... S"]:
    """True at the ``count`` smallest scores of the last axis (more only where scores are equal)."""
    return scores <= jnp.sort(scores, axis=-1)[..., count - 1 : count]
