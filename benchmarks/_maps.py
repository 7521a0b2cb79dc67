"""Tasks from maps of letters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from metaql.tasks.finite import FiniteTask, finite_task

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""North, east, south, west: the two neighbours in this ring are the sideways moves."""


class Ground(NamedTuple):
    """What the letters of a map mean. A reward is for arriving, staying in place included."""

    reward: Mapping[str, float]
    ends: str
    """Arriving there ends the episode."""
    slip: Mapping[str, float] = MappingProxyType({})
    """Probability, by the cell one stands in, of going to either side instead."""
    blocked: str = ""
    """Cells that cannot be entered; edges never can."""


def map_task(
    rows: Sequence[str],
    ground: Ground,
    *,
    horizon: int,
    start: Any = None,
    stay: bool = False,
) -> FiniteTask:
    """The task of a map of letters.

    Args:
        rows: one string per row, all of one length.
        ground: what the letters mean.
        horizon: steps per episode.
        start: ``[S]`` start distribution; None: uniform over the cells ``S``.
        stay: a fifth action that stays where one is, always.
    """
    letters = np.array([list(row) for row in rows])
    cells = letters.ravel()
    arrive = _targets(letters, ground.blocked)
    slip = np.array([ground.slip.get(letter, 0.0) for letter in cells])[:, None, None]
    moves = np.eye(cells.size)[arrive]
    aside = (np.roll(moves, 1, axis=1) + np.roll(moves, -1, axis=1)) / 2.0
    transition = (1.0 - slip) * moves + slip * aside
    if stay:
        transition = np.concatenate([transition, np.eye(cells.size)[:, None]], axis=1)
    over = np.isin(cells, list(ground.ends + ground.blocked))
    transition = np.where(over[:, None, None], np.eye(cells.size)[:, None], transition)
    reward = np.array([ground.reward.get(letter, 0.0) for letter in cells])
    ends = np.isin(cells, list(ground.ends)).astype(float)
    first = (cells == "S").astype(float)
    return finite_task(
        transition,
        # Nobody stands in a cell that is over; what such rows hold must not look like a reward.
        np.where(over[:, None, None], 0.0, np.broadcast_to(reward, transition.shape)),
        termination=np.broadcast_to(ends, transition.shape),
        initial=first / first.sum() if start is None else start,
        horizon=horizon,
    )


def _targets(letters: np.ndarray, blocked: str) -> np.ndarray:
    """``[S, 4]``: the cell each move leads to."""
    num_rows, num_cols = letters.shape
    here = np.arange(letters.size).reshape(letters.shape)
    arrive = np.empty((*letters.shape, len(MOVES)), int)
    for index, (down, right) in enumerate(MOVES):
        row = np.clip(np.arange(num_rows) + down, 0, num_rows - 1)
        col = np.clip(np.arange(num_cols) + right, 0, num_cols - 1)
        there = here[row][:, col]
        arrive[..., index] = np.where(np.isin(letters[row][:, col], list(blocked)), here, there)
    return arrive.reshape(-1, len(MOVES))
