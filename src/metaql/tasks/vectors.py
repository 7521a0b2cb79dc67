"""Gymnasium environments whose observations are vectors, stepped on the host, every answer checked."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Float

from metaql.errors import EnvironmentFaultError, UnsupportedSpaceError, UsageError
from metaql.tasks.actions import Actions
from metaql.tasks.host import HostEnvironment, plain_environment, refuse_options
from metaql.types import TaskSpec

_SLACK = 1e-4
"""Rounding by which an observation may leave its bounds, in units of the bound (at least 1)."""
_LARGEST = float(np.finfo(np.float32).max)
_REMEMBERED = 256
"""Actions of an environment that are looked up and not computed again."""


class VectorEnvironment(HostEnvironment):
    """An environment with Box observations, or any that Gymnasium flattens (Dict, Tuple, Discrete).

    ``num_states`` is the number of entries of a flattened observation. Made by `open_vectors`.
    """

    def __init__(self, env: gymnasium.Env, levels: tuple[float, ...] | None) -> None:
        """Check the spaces.

        Raises:
            UnsupportedSpaceError: a space that cannot be used.
        """
        self.env, self.levels = env, levels
        self.space = env.observation_space
        """Of the observations."""
        if not self.space.is_np_flattenable:
            raise UnsupportedSpaceError(
                "Observations must be a Box, or a combination of spaces that flattens to one.",
                f"The observation space is {self.space}.",
                "Flatten it by a wrapper (gymnasium.wrappers.TransformObservation).",
            )
        self.num_states = spaces.flatdim(self.space)
        self._low, self._high = _bounds(self.space)
        self.first_state = 0
        self._prepare(env, Actions(env.action_space, levels))
        self.meaning = _remembering(self.action)
        """What the environment takes for the action of an int, or of a list of them: as `action`, faster."""

    def spec(self, episodes: int) -> TaskSpec:
        """What a learner may know of this environment before its first step."""
        return super().spec(episodes)._replace(state_mask=jnp.zeros(0, bool))

    def batch(self, observations: Any) -> tuple[np.ndarray, bool]:
        """Observations as an array ``[N, D]``, and whether a single one was given.

        Raises:
            UsageError: one that is outside the environment's space.
        """
        wanted = 1 + len(self.space.shape or ())
        try:
            many = isinstance(observations, np.ndarray | list) and np.ndim(observations) == wanted
            rows = list(observations) if many else [observations]
            found = [self.flat(row) for row in rows]
        except ValueError:  # a list of lists of different lengths, say
            many, found = False, [None]
        if any(vector is None or not self.within(vector) for vector in found):
            raise UsageError(
                f"Observations are one of {self.space}, or an array of them [N, ...].",
                f"Got {observations!r:.200}.",
            )
        return np.asarray(found, np.float32).reshape(-1, self.num_states), not many

    def flat_all(self, observations: Sequence[Any]) -> Float[np.ndarray, "N D"] | None:
        """Observations as vectors; None unless all are arrays of the shape of a Box, together of its type."""
        shape, dtype = self.space.shape, self.space.dtype
        if not isinstance(self.space, spaces.Box) or not shape or not observations:
            return None
        if set(map(type, observations)) != {np.ndarray}:
            return None
        if {seen.shape for seen in observations} != {shape}:
            return None
        rows = np.concatenate(observations).reshape(len(observations), -1)
        return rows.astype(np.float32, copy=False) if rows.dtype == dtype else None

    def flat(self, observation: Any) -> np.ndarray | None:
        """An observation as a vector; None if its shape or type are not those of the space."""
        if not isinstance(self.space, spaces.Box):
            if not self.space.contains(observation):
                return None
            return np.asarray(spaces.flatten(self.space, observation), np.float32)
        vector = np.asarray(observation)
        if vector.shape != self.space.shape or vector.dtype.kind not in "biuf":
            return None
        return vector.astype(np.float32).reshape(-1)

    def within(self, vectors: Float[np.ndarray, "*N D"]) -> Bool[np.ndarray, "*N"]:
        """Whether vectors are finite and within the bounds of the space."""
        inside = (vectors >= self._low) & (vectors <= self._high)  # false for NaN
        return np.asarray(inside.all(-1))

    def _to_state(self, observation: Any, where: str) -> np.ndarray:
        vector = self.flat(observation)
        if vector is None or not self.within(vector):
            raise EnvironmentFaultError(
                f"Observations must lie in {self.space}.",
                f"Got {observation!r} at {where}.",
                "Correct the environment: its observations must be valid at every step.",
            )
        return vector


def _remembering(action: Actions) -> Callable[[Any], Any]:
    """The same meanings; arrays are copies, since an environment may write into what it gets."""
    known = functools.lru_cache(_REMEMBERED)(lambda number: action(np.asarray(number)))
    if isinstance(action.space, spaces.Discrete):
        return known
    if len(action.shape) == 1:
        return lambda number: known(number).copy()
    return lambda numbers: known(tuple(numbers)).copy()


def _bounds(space: Any) -> tuple[Any, Any]:
    """Least and largest entries of a vector, all finite, rounding allowed for."""
    if not isinstance(space, spaces.Box):
        return np.float32(-_LARGEST), np.float32(_LARGEST)
    low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (space.low, space.high))
    slack = _SLACK * np.maximum(1.0, np.minimum(np.abs(low), np.abs(high)))
    least, largest = np.maximum(low - slack, -_LARGEST), np.minimum(high + slack, _LARGEST)
    # Of the type of what is compared with them: nothing has to be converted at every step.
    return least.astype(np.float32), largest.astype(np.float32)


def open_vectors(
    env: Any, levels: tuple[float, ...] | None = None, **kwargs: Any
) -> VectorEnvironment:
    """Open a Gymnasium environment whose observations are vectors.

    Args:
        env: a registered id, an environment, or what was opened already.
        levels: what the actions mean where the environment takes numbers; see `Actions`.
        kwargs: passed to ``gymnasium.make``; only with an id.

    Raises:
        UnknownNameError: no environment of this id is registered.
        UnsupportedSpaceError: a space that cannot be used, or ``env`` is no environment.
        UsageError: ``gymnasium.make`` refused.

    Example:
        >>> cart = open_vectors("CartPole-v1")
        >>> cart.num_states, cart.num_actions, cart.horizon
        (4, 2, 500)
    """
    if isinstance(env, HostEnvironment):
        refuse_options(kwargs)
        if isinstance(env, VectorEnvironment) and env.levels == levels:
            return env
        return VectorEnvironment(env.env, levels)
    return VectorEnvironment(plain_environment(env, kwargs), levels)
