"""Gymnasium environments whose observations are vectors, stepped on the host, every answer checked."""

from __future__ import annotations

from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from metaql.errors import EnvironmentFaultError, UnsupportedSpaceError, UsageError
from metaql.tasks.host import HostEnvironment, plain_environment, refuse_options
from metaql.types import TaskSpec

_SLACK = 1e-4
"""Rounding by which an observation may leave its bounds, in units of the bound (at least 1)."""


class VectorEnvironment(HostEnvironment):
    """An environment with Box observations, or any that Gymnasium flattens (Dict, Tuple, Discrete).

    ``num_states`` is the number of entries of a flattened observation. Actions are Discrete, or one
    number out of ``levels``. Made by `open_vectors`.
    """

    def __init__(self, env: gymnasium.Env, levels: tuple[float, ...] | None) -> None:
        """Check the spaces.

        Raises:
            UnsupportedSpaceError: a space that cannot be used.
        """
        self.env, self.levels = env, levels
        self._space = env.observation_space
        if not self._space.is_np_flattenable:
            raise UnsupportedSpaceError(
                "Observations must be a Box, or a combination of spaces that flattens to one.",
                f"The observation space is {self._space}.",
                "Flatten it by a wrapper (gymnasium.wrappers.TransformObservation).",
            )
        self.num_states = spaces.flatdim(self._space)
        self.num_actions = self._count_actions(env.action_space)
        start = getattr(env.action_space, "start", 0)
        self.first_state, self.first_action = 0, int(start)
        self._prepare(env)

    def _count_actions(self, space: Any) -> int:
        if isinstance(space, spaces.Discrete):
            return int(space.n)
        one = isinstance(space, spaces.Box) and int(np.prod(space.shape)) == 1
        if not one or self.levels is None:
            raise UnsupportedSpaceError(
                "Actions must be Discrete, or one number for an agent that knows levels of it.",
                f"The action space is {space}, levels {self.levels}.",
                "Choose among few actions by a wrapper (gymnasium.wrappers.DiscretizeAction).",
            )
        low, high = float(space.low.min()), float(space.high.max())
        if min(self.levels) < low or max(self.levels) > high:
            raise UnsupportedSpaceError(
                "The levels of the agent's actions must be within the action space.",
                f"Levels {self.levels}, action space {space}.",
            )
        return len(self.levels)

    def spec(self, episodes: int) -> TaskSpec:
        """What a learner may know of this environment before its first step."""
        return super().spec(episodes)._replace(state_mask=jnp.zeros(0, bool))

    def action(self, index: int) -> Any:
        """What the environment takes for action ``index``."""
        space = self.env.action_space
        if self.levels is None or isinstance(space, spaces.Discrete):
            return np.int64(index + self.first_action)
        return np.full(space.shape or (), self.levels[index], space.dtype)

    def batch(self, observations: Any) -> tuple[np.ndarray, bool]:
        """Observations as an array ``[N, D]``, and whether a single one was given.

        Raises:
            UsageError: one that is outside the environment's space.
        """
        wanted = 1 + len(self._space.shape or ())
        try:
            many = isinstance(observations, np.ndarray | list) and np.ndim(observations) == wanted
            rows = list(observations) if many else [observations]
            found = [self._to_state(row, "predict") for row in rows]
        except (EnvironmentFaultError, ValueError) as error:
            raise UsageError(
                f"Observations are one of {self._space}, or an array of them [N, ...].",
                f"Got {observations!r}.",
            ) from error
        return np.asarray(found, np.float32).reshape(-1, self.num_states), not many

    def _to_state(self, observation: Any, where: str) -> np.ndarray:
        space = self._space
        if isinstance(space, spaces.Box):
            vector = np.asarray(observation)
            slack = _SLACK * np.maximum(1.0, np.minimum(np.abs(space.low), np.abs(space.high)))
            good = (
                vector.shape == space.shape
                and vector.dtype.kind in "biuf"
                and bool(np.isfinite(vector).all())
                and bool((vector >= space.low - slack).all())
                and bool((vector <= space.high + slack).all())
            )
        else:
            good = space.contains(observation)
        if not good:
            raise EnvironmentFaultError(
                f"Observations must lie in {space}.",
                f"Got {observation!r} at {where}.",
                "Correct the environment: its observations must be valid at every step.",
            )
        return np.asarray(spaces.flatten(space, observation), np.float32)


def open_vectors(
    env: Any, levels: tuple[float, ...] | None = None, **kwargs: Any
) -> HostEnvironment:
    """Open a Gymnasium environment whose observations are vectors.

    Args:
        env: a registered id, an environment, or what was opened already.
        levels: what the actions mean where the environment takes one number.
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
        same = isinstance(env, VectorEnvironment) and env.levels == levels
        return env if same else VectorEnvironment(env.env, levels)
    return VectorEnvironment(plain_environment(env, kwargs), levels)
