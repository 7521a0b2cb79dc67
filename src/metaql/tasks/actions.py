"""What numbered actions mean to a Gymnasium environment: a number, several of them, or levels of a Box."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from jaxtyping import Bool, Int

from metaql.errors import UnsupportedSpaceError

_SLACK = 1e-4
"""Rounding by which a logged action may leave its bounds, as a share of half its range."""


class Actions:
    """The actions of an environment, numbered from 0; where one has K parts, each of them is.

    - Discrete: A actions.
    - MultiDiscrete: K parts; those with fewer actions than the largest are padded.
    - Box: every entry takes one of some levels, which are shares of half its range around its middle: -1 is
      its lower bound, 1 the upper one. An entry is a part, unless it is the only one.
    """

    shape: tuple[int, ...]
    """``(A,)``, or ``(K, A)`` where an action has K parts."""
    mask: Bool[np.ndarray, "*K A"]
    """True for actions that exist."""

    def __init__(self, space: spaces.Space[Any], levels: tuple[float, ...] | None) -> None:
        """Check the space.

        Raises:
            UnsupportedSpaceError: it is none of these, a Box without bounds, or levels are missing.
        """
        self.space, self.levels = space, levels
        counts = self._counts()
        shape = (int(counts.max()),) if counts.size == 1 else (counts.size, int(counts.max()))
        self.shape = shape
        self.mask = np.arange(shape[-1]) < counts.reshape(*shape[:-1], 1)

    def __call__(self, index: Any) -> Any:
        """What the environment takes for the action of this number, or these numbers ``[K]``."""
        space = self.space
        if isinstance(space, spaces.Discrete):
            return space.dtype.type(index + space.start)
        if isinstance(space, spaces.MultiDiscrete):
            return (np.asarray(index).reshape(space.shape) + space.start).astype(space.dtype)
        low, high = (np.asarray(bound, np.float64) for bound in self._bounds)
        share = np.asarray(self.levels)[index].reshape(low.shape)
        value = low + 0.5 * (1.0 + share) * (high - low)
        kind: Any = space.dtype
        return (np.rint(value) if kind.kind in "iu" else value).astype(kind)

    def indices(self, actions: np.ndarray) -> Int[np.ndarray, "T *K"]:
        """Numbers of actions as the environment takes them, ``[T, ...]``; of a Box the nearest levels.

        Those that are not in the space have -1 somewhere.
        """
        flat = actions.reshape(len(actions), -1)
        space = self.space
        if isinstance(space, spaces.Box):
            low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in self._bounds)
            if flat.shape[1] != low.size or flat.dtype.kind not in "biuf":
                return np.full((len(flat), *self.shape[:-1]), -1)
            span = np.where(high > low, high - low, 1.0)
            share = np.where(high > low, 2.0 * (flat - low) / span - 1.0, flat - low)
            done = 2.0 * (self._executed() - low[:, None]) / span[:, None] - 1.0
            levels = np.where((high > low)[:, None], done, np.asarray(self.levels))
            nearest = np.abs(share[..., None] - levels).argmin(-1)
            numbers = np.where(np.abs(share) <= 1.0 + _SLACK, nearest, -1)
        elif flat.shape[1] != self._counts().size or flat.dtype.kind not in "iu":
            return np.full((len(flat), *self.shape[:-1]), -1)
        else:
            start: Any = getattr(space, "start", 0)
            shifted = flat - np.asarray(start).reshape(-1)
            numbers = np.where((shifted >= 0) & (shifted < self._counts()), shifted, -1)
        return numbers.reshape(len(flat), *self.shape[:-1]).astype(np.int32)

    def _executed(self) -> np.ndarray:
        """What the levels of every entry of a Box are to the environment, ``[K, levels]``."""
        size = int(np.prod(self.space.shape or ()))
        rows = [self(np.full(size, level)).reshape(-1) for level in range(len(self.levels or ()))]
        return np.stack(rows, -1).astype(np.float64)

    def holds(self, index: Any) -> bool:
        """Whether there is such an action."""
        number = np.asarray(index)
        if number.shape != self.shape[:-1] or number.dtype.kind not in "iu":
            return False
        within = (number >= 0) & (number < self.mask.sum(-1))
        return bool(within.all())

    def _counts(self) -> np.ndarray:
        """Actions of every part."""
        space = self.space
        if isinstance(space, spaces.Discrete):
            return np.asarray([space.n])
        if isinstance(space, spaces.MultiDiscrete):
            return np.asarray(space.nvec).reshape(-1)
        if not isinstance(space, spaces.Box) or self.levels is None:
            raise UnsupportedSpaceError(
                "Actions must be Discrete or MultiDiscrete, or a Box for an agent that knows levels of it.",
                f"The action space is {space}, levels {self.levels}.",
                "Choose among few actions by a wrapper (gymnasium.wrappers.TransformAction).",
            )
        if not space.is_bounded() or not self.levels or max(map(abs, self.levels)) > 1:
            raise UnsupportedSpaceError(
                "Levels are shares from -1 to 1 of the range of an action, which needs bounds.",
                f"The action space is {space}, levels {self.levels}.",
                "Bound the actions by a wrapper (gymnasium.wrappers.RescaleAction).",
            )
        self._bounds = space.low, space.high
        return np.full(int(np.prod(space.shape)), len(self.levels))
